"""What is wrong with how a command was called, in a sentence: in our words where a value is not of its flag's kind."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from sluice.wire.answers import what_it_takes


def told(error: Any, arguments: Sequence[str]) -> str:
    """The sentence for an error of typer's over `arguments`; empty if it has shown the help instead."""
    if isinstance(error.__cause__, ValidationError):
        [wrong, *_] = error.__cause__.errors()
        if takes := what_it_takes(wrong):
            return f"{error.param.opts[0]}: expected {takes}, got {wrong['input']!r:.80}"
    if not (said := error.format_message()):
        return ""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else f"sluice {arguments[0]}"
    return f"{said.rstrip('.')}{'' if said.endswith('?') else '.'} `{command} --help` says what it takes"
