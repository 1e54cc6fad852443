"""Every setting of the evaluator, from flags and `SLUICE_EVALUATOR_…` environment variables, in this order."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as Unreadable

from sluice.client.urls import check_url
from sluice.listener import check_address
from sluice.log import LOG_FORMAT, LogFormat
from sluice.wrong_settings import Given, unreadable

PREFIX = "SLUICE_EVALUATOR_"
_GIGABYTE = 1024**3
_SCHEMES = ("http://", "https://")


class SettingsError(ValueError):
    """Settings that cannot be used; the sentence names the setting."""


def _split(listed: Any) -> Any:
    if not isinstance(listed, str):
        return listed
    return listed.split(",") if listed else ()


def _gateway(text: str) -> str:
    if not text.startswith(_SCHEMES):
        raise ValueError(f"expected http://HOST:PORT or https://HOST:PORT, got {text!r}")
    check_url(text)
    return text


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Evaluate models through a gateway: data sets in, reports out."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, cli_kebab_case=True, cli_prog_name="sluice evaluator",
        cli_hide_none_type=True, cli_avoid_json=True, cli_implicit_flags=True,
        cli_exit_on_error=False,
    )  # fmt: skip

    gateway: Annotated[str, AfterValidator(_gateway)] = Field(
        "http://127.0.0.1:8080", description="The gateway that serves the models, http://HOST:PORT."
    )
    http: Annotated[str, AfterValidator(partial(check_address, unix=True))] = Field(
        "127.0.0.1:8082", description="Where to listen, HOST:PORT or unix:PATH. Port 0: any free one."
    )
    database: str = Field(
        "sqlite:///var/evaluator/evaluations.db",
        description="Where evaluations and the values of their rows are kept: sqlite:///FILE, or "
        "postgresql://USER:PASSWORD@HOST:PORT/NAME. One evaluator has it to itself.",
    )
    data_roots: Names = Field(
        (), description="Folders, or URLs such as s3://bucket/folder, below which data may be named; without any: none."
    )
    protocols: Names = Field(
        ("file",), description="Of `file`, `s3` and `gs`, those by which data may be named, below the data roots."
    )
    uploads: Path = Field(Path("var/evaluator/uploads"), description="Folder that gets the files that clients send.")
    upload_bytes: PositiveInt = Field(_GIGABYTE, description="Largest upload, in bytes; beyond it: 413 body_too_large.")
    uploads_bytes: PositiveInt = Field(
        10 * _GIGABYTE, description="Bytes of all uploads together; beyond it: 413 body_too_large."
    )
    upload_kept_s: Seconds = Field(
        24 * 3600.0, description="How long an upload is kept that no evaluation is of, in seconds."
    )
    at_once: PositiveInt = Field(1, description="Evaluations that run at the same time; the others are queued.")
    log_format: LogFormat = Field("text", description=LOG_FORMAT)


def load(args: Sequence[str]) -> Settings:
    """The settings that flags `args` and the environment together make.

    Raises:
        SettingsError: a flag or an environment variable is unknown, or a flag lacks its value.
        pydantic.ValidationError: a value is of the wrong form.
        SystemExit: `--help` (0).
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    if unknown := sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known):
        raise SettingsError(
            f"environment: there is no setting {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    try:
        return Settings(_cli_parse_args=[*args])
    except Unreadable as error:
        told = unreadable(str(error), Given(args, PREFIX), Settings.model_fields, "sluice evaluator")
        raise SettingsError(told) from None
