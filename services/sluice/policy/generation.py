"""Decides which token comes next when a model generates: the likeliest, a sampled one, or those of the best beams.

It does not know how the model is called, nor who shares its batches: an instance's answer depends on its own logits
and its own random numbers alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sluice.policy.batch import Rows
from sluice.policy.contract import Generation
from sluice.policy.errors import BackendError, BadRequest
from sluice.policy.slab import state_rows

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Beam:
    """Beam search: `width` sequences go on side by side, the `n_best` of those that have ended are the answer.

    Sequences are compared by their log probability divided by ((5 + steps) / 6) ** length_penalty (Wu et al. 2016,
    "Google's Neural Machine Translation System", equation 14); 0: by the log probability itself.
    """

    width: int
    n_best: int = 1
    length_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """A token is drawn: of the `top_k` likeliest (0: of all), and of these of the fewest that have `top_p` together.

    Logits are divided by `temperature` before. `seed` makes the answer the same again.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """How to generate; neither beam nor sampling: the likeliest token at each step."""

    max_steps: int
    beam: Beam | None = None
    sampling: Sampling | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for: so many beams at most."""

    beam_width: int = 16


@dataclass(frozen=True, slots=True)
class Result:
    """A sequence: tokens without start and end, its score, how many steps the decoder made, and why it ended."""

    tokens: tuple[int, ...]
    score: float
    steps: int
    finished: Literal["end", "length"]


def said(generation: Generation, results: Sequence[Result]) -> list[dict[str, Any]]:
    """What each sequence of an instance says: its `text`; its `tokens` where they have no texts, or texts are equal."""
    if not any(generation.tokens):
        return [{"tokens": [*result.tokens]} for result in results]
    texts = ["".join(generation.tokens[token] for token in result.tokens) for result in results]
    return [
        {"text": text, **({"tokens": [*result.tokens]} if texts.count(text) > 1 else {})}
        for text, result in zip(texts, results, strict=True)
    ]


def check_options(options: Options, generation: Generation, limits: Limits) -> None:
    """Raises: BadRequest: what is asked for is more than the model or the gateway allows, or contradicts itself."""
    _check("max_steps", options.max_steps, 1, generation.max_steps)
    if options.beam is not None and options.sampling is not None:
        raise BadRequest("A request has either beam or sampling, or neither; it has both.")
    if options.beam is not None:
        _check("beam.width", options.beam.width, 1, min(limits.beam_width, len(generation.tokens)))
        _check("beam.n_best", options.beam.n_best, 1, options.beam.width)
        _check("beam.length_penalty", options.beam.length_penalty, 0, 10)
    if options.sampling is not None:
        _check("sampling.temperature", options.sampling.temperature, 1e-3, 1e3)
        _check("sampling.top_k", options.sampling.top_k, 0, len(generation.tokens))
        _check("sampling.top_p", options.sampling.top_p, 1e-6, 1)
        _check("sampling.seed", options.sampling.seed, 0, (1 << 63) - 1)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise BadRequest(f'"{name}" is from {least} to {most} here; got {value!r:.80}.')


@dataclass(frozen=True, slots=True)
class _Sequence:
    """A sequence that goes on."""

    tokens: tuple[int, ...] = ()
    log_probability: float = 0.0


@dataclass(slots=True)
class Decoding:
    """One instance while it is generated: give `inputs` to the decoder, and what comes out to `advance`, until `done`.

    states: by input, `[rows, ...]`; at first one row, the encoder's.
    chance: the next of this instance's own random numbers, in 0 to 1; of use for sampling only.
    """

    generation: Generation
    options: Options
    states: Mapping[str, Array]
    chance: Callable[[], float] = float
    steps: int = 0
    ended: list[Result] = field(default_factory=list)
    _going: list[_Sequence] = field(default_factory=lambda: [_Sequence()])

    @property
    def done(self) -> bool:
        return not self._going

    @property
    def rows(self) -> int:
        """How many rows the next step has: one for each sequence that goes on."""
        return len(self._going)

    def inputs(self) -> dict[str, Array]:
        """What the decoder takes next, `[rows, ...]`."""
        last = [going.tokens[-1] if going.tokens else self.generation.start for going in self._going]
        return {self.generation.input: np.array(last, np.int32), **self.states}

    def advance(self, outputs: Rows) -> int | None:
        """The decoder has answered. Returns the token that is certain now, if it is no end; of beams none is.

        Raises:
            BackendError: logits or states are not as the contract says, or not finite.
        """
        log_probabilities = self._log_probabilities(outputs)
        self.states = state_rows(self.generation.decode.states, outputs)
        self.steps += 1
        if self.options.beam is not None:
            self._go_on_with(self.options.beam, log_probabilities)
            return None
        [going], own = self._going, log_probabilities[0]
        token = self._drawn(own, self.options.sampling) if self.options.sampling else int(own.argmax())
        self._extend([(0, token, going.log_probability + float(own[token]))])
        return None if token == self.generation.end else token

    def results(self) -> list[Result]:
        """The sequences that have ended, the best first."""
        best = 1 if self.options.beam is None else self.options.beam.n_best
        return sorted(self.ended, key=lambda result: -result.score)[:best]

    def _log_probabilities(self, outputs: Rows) -> Array:
        """Float64 `[rows, token]`."""
        logits, tokens = outputs.get(self.generation.logits), len(self.generation.tokens)
        if logits is None or logits.shape != (self.rows, tokens):
            came = "none" if logits is None else list(logits.shape)
            raise BackendError(f"The model must answer {[self.rows, tokens]} {self.generation.logits!r}; {came} came.")
        wide = logits.astype(np.float64)
        peak = wide.max(axis=1, keepdims=True)
        if not np.isfinite(peak).all():  # a token may be impossible, but not all of them
            raise BackendError(f"The model answered {self.generation.logits!r} that are not finite.")
        return wide - peak - np.log(np.exp(wide - peak).sum(axis=1, keepdims=True))  # type: ignore[no-any-return]

    def _drawn(self, own: Array, sampling: Sampling) -> int:
        order = np.argsort(-own, kind="stable")[: sampling.top_k or None]
        likely = np.exp((own[order] - own[order[0]]) / sampling.temperature)
        passed = np.cumsum(likely / likely.sum())
        kept = int(np.searchsorted(passed, sampling.top_p)) + 1
        drawn = np.searchsorted(passed[:kept], self.chance() * passed[:kept][-1], side="right")
        return int(order[min(int(drawn), kept - 1)])

    def _go_on_with(self, beam: Beam, log_probabilities: Array) -> None:
        """Twice as many candidates as beams: when all beams have one that ends, as many go on."""
        sums = np.array([going.log_probability for going in self._going])[:, np.newaxis] + log_probabilities
        best = np.argsort(-sums, axis=None, kind="stable")[: 2 * beam.width]
        rows, tokens = np.unravel_index(best, sums.shape)
        found = [(int(row), int(token), float(sums[row, token])) for row, token in zip(rows, tokens, strict=True)]
        possible = [each for each in found if each[2] > -np.inf]
        ending = [each for each in possible[: beam.width] if each[1] == self.generation.end]
        going = [each for each in possible if each[1] != self.generation.end][: beam.width]
        self._extend([*ending, *going])
        enough = sorted((result.score for result in self.ended), reverse=True)[: beam.width]
        if self._going and len(enough) == beam.width and self._best_to_come(beam) <= enough[beam.n_best - 1]:
            self._going, self.states = [], {}

    def _best_to_come(self, beam: Beam) -> float:
        """What no sequence that goes on can exceed: its log probability can only fall."""
        most = max(going.log_probability for going in self._going)
        return most / _penalty(self.options.max_steps, beam.length_penalty)

    def _extend(self, chosen: Sequence[tuple[int, int, float]]) -> None:
        """Go on with (row, token, log probability): those that end are put aside, the others' states are kept."""
        before, rows = self._going, list[int]()
        self._going = []
        for row, token, log_probability in chosen:
            tokens = before[row].tokens
            if token == self.generation.end:
                self.ended.append(self._result(tokens, log_probability, "end"))
            elif self.steps == self.options.max_steps:
                self.ended.append(self._result((*tokens, token), log_probability, "length"))
            else:
                self._going.append(_Sequence((*tokens, token), log_probability))
                rows.append(row)
        if rows != list(range(len(before))):
            self.states = {name: array[rows] for name, array in self.states.items()}

    def _result(self, tokens: tuple[int, ...], log_probability: float, finished: Literal["end", "length"]) -> Result:
        beam = self.options.beam
        score = log_probability / _penalty(self.steps, beam.length_penalty if beam else 0.0)
        return Result(tokens, score, self.steps, finished)


def _penalty(steps: int, strength: float) -> float:
    return float(((5 + steps) / 6) ** strength)
