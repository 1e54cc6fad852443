"""The model server's command line: flags, as TensorFlow Serving takes them, to settings. It imports no TensorFlow."""

import argparse
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from sluice.model_server.settings import HOW, NO_EFFECT, REFUSED, WHAT, WHEN, WHERE, ModelServerSettings, flags_of

GROUPS = (WHAT, WHERE, WHEN, HOW, NO_EFFECT, REFUSED)
_PROGRAM = "sluice model-server"
_WORDS = {Path: "PATH", int: "N", float: "N", str: "TEXT"}


def load(args: Sequence[str]) -> ModelServerSettings:
    """The settings that flags make: `--flag=value` or `--flag value`, and `--flag` alone for one that is true or false.

    Raises:
        pydantic.ValidationError: a value is of the wrong form.
        SystemExit: `--help` or `--version` (0), or flags that do not exist (2).
    """
    return ModelServerSettings(**vars(_parser().parse_args(args)))


def default_of(name: str) -> str:
    """A flag's default as one would write it; "" for none."""
    default = ModelServerSettings.model_fields[name].default
    return "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=_PROGRAM,
        usage=f"{_PROGRAM} --models PATH | --model_base_path PATH | --model_config_file PATH [--FLAG=VALUE ...]",
        description=ModelServerSettings.__doc__,
        epilog="A flag can also be set by the environment, SLUICE_MODEL_SERVER_FLAG.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    versions = f"sluice {version('sluice-serving')}, TensorFlow {_tensorflow()}"
    made.add_argument("--version", action="version", version=versions, help="show the versions and exit")
    for group in GROUPS:
        section = made.add_argument_group(group)
        for name in flags_of(group):
            _add(section, name)
    return made


def _tensorflow() -> str:
    try:
        return version("tensorflow")
    except PackageNotFoundError:  # tensorflow-cpu, say, or none, of which its import tells
        return "of another distribution"


def _add(section: Any, name: str) -> None:
    field, default = ModelServerSettings.model_fields[name], default_of(name)
    said = f"{field.description} [{default}]" if default else field.description
    if get_origin(field.annotation) is Literal:
        section.add_argument(f"--{name}", metavar="|".join(get_args(field.annotation)), help=said)
    elif field.annotation is bool:
        section.add_argument(f"--{name}", nargs="?", const="true", metavar="BOOL", help=said)
    else:
        word = next(word for kind, word in _WORDS.items() if kind.__name__ in str(field.annotation))
        section.add_argument(f"--{name}", metavar=word, help=said)
