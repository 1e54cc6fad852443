"""What is wrong with a process's settings, in a line: the flag, variable or key, what it takes, and what came."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from sluice.wire.answers import what_it_takes

UNKNOWN_FLAG = re.compile(r"unrecognized arguments: (\S+)")
_LACKS_VALUE = re.compile(r"argument (--\S+): expected one argument")
_NEEDS_NONE = re.compile(r"argument (--[^/]+)/(--\S+): ignored explicit argument (.*)")
_NO_JSON = re.compile(r"""for (?:field ")?(\w+)""")
_NONE: Mapping[str, str] = MappingProxyType({})


class Given(NamedTuple):
    """Where settings were given: `arguments` are flags, whose words have a `dash` between them.

    The names of variables begin with `prefix`.
    """

    arguments: Sequence[str]
    prefix: str
    dash: str = "-"

    def of(self, name: str) -> tuple[str, str | None]:
        """The flag, the variable or else the key of a file by which a setting was given; its text where it is known."""
        flag, variable = f"--{name.replace('_', self.dash)}", f"{self.prefix}{name.upper()}"
        for place, argument in reversed([*enumerate(self.arguments)]):
            written, equals, value = argument.partition("=")
            if written == flag:
                return flag, value if equals else next(iter(self.arguments[place + 1 :]), None)
        return (variable, os.environ[variable]) if variable in os.environ else (name, None)


def told(error: ValidationError, given: Given) -> str:
    """Of each setting what is wrong with it; of settings that do not go together, why."""
    found = []
    for each in error.errors():
        name, *inner = each["loc"] or ("",)
        where = ".".join([given.of(str(name))[0], *(part for part in inner if isinstance(part, str))])
        found.append(f"{where}: {_reason(each)}" if each["loc"] else _reason(each))
    return "; ".join(found)


def unreadable(
    error: str, given: Given, known: Collection[str], program: str, meant: Mapping[str, str] = _NONE,
    json: Mapping[str, str] = _NONE,
) -> str:  # fmt: skip
    """What is wrong with flags of which no settings can be made; `error` is that of pydantic's parser.

    `known` are the settings; `meant` is what to use in place of other programs' flags, `json` what settings look like
    that are JSON.
    """
    listed = f"`{program} --help` lists them"
    if lacks := _LACKS_VALUE.search(error):
        return f"{lacks[1]}: expected a value behind it; {listed}"
    if needs_none := _NEEDS_NONE.search(error):
        on, off, came = needs_none.groups()
        return f"{on}: expected no value, only {on} or {off}; got {came}"
    if unknown := UNKNOWN_FLAG.search(error):
        name = unknown[1].lstrip("-").partition("=")[0].replace("_", "-")
        close = get_close_matches(name, [*meant, *(each.replace("_", "-") for each in known)], 1)
        instead = meant.get(close[0], f"--{close[0]}") if close else ""
        return f"there is no flag {unknown[1]}; {f'did you mean {instead}? ' if instead else ''}{listed}"
    if (named := _NO_JSON.search(error)) and named[1] in json:
        where, text = given.of(named[1])
        return f"{where}: expected JSON such as {json[named[1]]}, got {text!r:.80}"
    return error.removeprefix("error parsing CLI: ")


def no_setting(name: str, known: Collection[str]) -> str:
    """What to say of a setting that there is not; which one may be meant."""
    close = get_close_matches(name.lower().replace("-", "_"), known, 1)
    return f"there is no setting {name!r:.80}{f'; did you mean {close[0]}?' if close else ''}"


def _reason(error: Any) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    takes, came = what_it_takes(error), f"{error['input']!r:.80}"
    return f"{error['msg']} (got {came})" if takes is None else f"expected {takes}, got {came}"
