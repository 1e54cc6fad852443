"""Texts as tokens, and how much of a sequence is as it should be.

It does not know models.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.evaluator.tasks.asking import text_of
from sluice.policy.contract import Generation


class Tokens:
    """The tokens of a model that generates, by their texts: greedily, the longest that fits comes next."""

    def __init__(self, generation: Generation) -> None:
        self._ids = {text: place for place, text in reversed([*enumerate(generation.tokens)]) if text}
        self._longest = max(map(len, self._ids), default=0)
        self._end = generation.end

    def ids(self, text: str) -> NDArray[np.int32] | None:
        """The tokens' numbers, the end token last; None where no token's text goes on with the text."""
        found, start = [], 0
        while start < len(text):
            stop = min(len(text), start + self._longest)
            while stop > start and text[start:stop] not in self._ids:
                stop -= 1
            if stop == start:
                return None
            found.append(self._ids[text[start:stop]])
            start = stop
        return np.array([*found, self._end], np.int32)


def split(value: Any, tokens: Tokens | None) -> Sequence[Any]:
    """An answer's or a label's tokens: numbers as they are, of text those of the model, or else its characters."""
    if np.ndim(value):
        return [*np.asarray(value).ravel().tolist()]
    text = text_of(value)
    ids = tokens.ids(text) if tokens else None
    return text if ids is None else ids[:-1].tolist()


def matching(answer: Sequence[Any], right: Sequence[Any]) -> tuple[int, int]:
    """How many tokens are right, position by position; and how many positions the longer of both has."""
    return sum(mine == own for mine, own in zip(answer, right, strict=False)), max(len(answer), len(right))
