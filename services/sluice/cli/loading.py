"""The settings of a server's command line, or the sentence that says what is wrong with them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from sluice.cli.errors import WRONG_USAGE, CommandError

Settings = TypeVar("Settings")


def loaded(load: Callable[[Sequence[str]], Settings], arguments: Sequence[str]) -> Settings:
    """Raises: CommandError: a setting cannot be used; names each."""
    try:
        return load(arguments)
    except ValidationError as error:
        raise CommandError("; ".join(_told(error.errors())), WRONG_USAGE) from None
    except ValueError as error:  # ours, and those of pydantic-settings about what cannot be read at all
        raise CommandError(str(error), WRONG_USAGE) from None


def _told(wrong: Iterable[Mapping[str, Any]]) -> list[str]:
    """Of each setting what is wrong with it: in our words, which say what came, or in pydantic's."""
    return [
        f"{'.'.join(map(str, each['loc'])) or 'settings'}: "
        + (str(each["ctx"]["error"]) if each["type"] == "value_error" else f"{each['msg']} (got {each['input']!r:.80})")
        for each in wrong
    ]
