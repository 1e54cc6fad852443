"""`sluice serve --help` in the form of the other commands: the settings as options. It does not read them."""

from inspect import Parameter, Signature
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from sluice.gateway.settings import Settings

# The panels, by the setting with which each begins.
PANELS = {
    "allowed_batch_sizes": "Batches",
    "timeout_ms": "Requests",
    "buckets": "Sequences",
    "session_idle_s": "Sessions",
    "allow_reload": "Model server, start and stop",
}
_WORDS = {"Path": "PATH", "dict": "JSON", "tuple": "A,B,…", "int": "N", "float": "X", "str": "HOST:PORT"}
_HELP = (
    f"{Settings.__doc__} Give --models, or --backend, or both.\n\n"
    "Each option is a setting: it can also be given by an environment variable (SLUICE_LINGER_MS for --linger-ms), or "
    "by a key of the YAML file that --config names (linger_ms). An option goes before a variable, and that before the "
    "file."
)


def show() -> None:
    """Print it.

    Raises:
        SystemExit: with code 0, when that is done.
    """

    def serve(**_: Any) -> None: ...

    panel, options = None, []
    for name, field in Settings.model_fields.items():
        panel = PANELS.get(name, panel)
        options.append(
            Parameter(
                name,
                Parameter.KEYWORD_ONLY,
                default=_written(field.default),
                annotation=_option(name, field, panel),
            )
        )
    serve.__signature__ = Signature(options)  # type: ignore[attr-defined]  # from which typer makes its options
    app = typer.Typer(context_settings={"help_option_names": ["--help", "-h"]}, add_completion=False)
    app.command(help=_HELP)(serve)
    app(["--help"], prog_name="sluice serve")


def _option(name: str, field: FieldInfo, panel: str | None) -> Any:
    """How typer is told of a setting."""
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        return Annotated[bool, typer.Option(flag, help=field.description, rich_help_panel=panel)]
    word = "|".join(get_args(field.annotation)) if get_origin(field.annotation) is Literal else _word(field)
    return Annotated[str | None, typer.Option(flag, metavar=word, help=field.description, rich_help_panel=panel)]


def _word(field: FieldInfo) -> str:
    return next(word for kind, word in _WORDS.items() if kind in str(field.annotation))


def _written(default: Any) -> Any:
    """A default as it is shown; None where there is none to show."""
    if isinstance(default, tuple):
        return ", ".join(map(str, default)) or None
    return default if isinstance(default, bool) else str(default) if default not in (None, {}) else None
