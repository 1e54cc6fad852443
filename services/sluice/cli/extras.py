"""Which extras of the distribution each command needs, and whether they are installed. It imports none of them."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from sluice.cli.errors import WRONG_USAGE, CommandError

DISTRIBUTION = "sluice-serving"
# Modules that come with this extra alone, and TensorFlow, which can be missing beside what needs it.
PROOF: Mapping[str, Sequence[str]] = {
    "gateway": ("h2",),
    "cli": ("typer",),
    "export": ("keras", "tensorflow"),
    "model-server": ("tensorflow_serving", "tensorflow"),
    "models": ("wordfreq",),
    "evaluator": ("sqlalchemy", "sklearn"),
}
NEEDS: Mapping[str, Sequence[str]] = {
    "serve": ("gateway",),
    "model-server": ("model-server",),
    "evaluator": ("evaluator",),
    "models": ("cli", "models"),
    "export": ("cli", "export"),
    "explain": ("cli",),
    "buckets": ("cli",),
    "calibrate": ("cli",),
    "evaluate": ("cli", "evaluator"),
    "doctor": ("cli", "gateway"),
    "demo": ("cli", "gateway", "export", "model-server", "models", "evaluator"),
}


def installed(extra: str) -> bool:
    return all(map(_can_be_imported, PROOF[extra]))


def _can_be_imported(module: str) -> bool:
    found = find_spec(module)
    return found is not None and found.has_location  # a folder that was left behind has none


def need(command: str, *extras: str, otherwise: str = "") -> None:
    """Raises: CommandError: one of the extras that the command needs is not installed; names them all."""
    if missing := _missing(extras):
        named = f"the extra{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
        raise CommandError(f'"sluice {command}" needs {named}: {_install(missing)}{otherwise}', WRONG_USAGE)


def overview() -> str:
    """What to say instead of the command line's own help, which comes with the extra `cli`."""
    width = max(map(len, NEEDS))
    commands = (f"  {command:{width}}  {_state(extras)}" for command, extras in NEEDS.items())
    return "\n".join(
        [
            "Usage: sluice COMMAND [ARGS]...",
            "",
            "The Python client is installed: from sluice.client import Client",
            "Commands need more, by extra:",
            "",
            *commands,
            "",
            f"Everything: {_install(['all'])}",
        ]
    )


def _state(extras: Sequence[str]) -> str:
    missing = _missing(extras)
    return _install(missing) if missing else "is installed"


def _missing(extras: Sequence[str]) -> list[str]:
    return [extra for extra in extras if not installed(extra)]


def _install(extras: Sequence[str]) -> str:
    return f"pip install '{DISTRIBUTION}[{','.join(extras)}]'"
