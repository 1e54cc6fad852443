"""Every setting of the gateway, from flags, `SLUICE_…` environment variables and a YAML file, in this order."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveInt
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from pydantic_settings import SettingsError as Unreadable

from sluice.listener import check_address
from sluice.log import LOG_FORMAT, LogFormat
from sluice.missing import no_folder
from sluice.model_folder import LAYOUT
from sluice.policy.batching import BatchingOptions
from sluice.policy.lengths import BucketOptions
from sluice.policy.sessions import SessionOptions
from sluice.wrong_settings import UNKNOWN_FLAG, Given, no_setting, unreadable

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\sA-Z]+")
PREFIX = "SLUICE_"
_OTHERS = ("SLUICE_MODEL_SERVER_", "SLUICE_EVALUATOR_")  # the children's own settings
_TARGET = re.compile("[a-z][a-z0-9+.-]*:///?")  # gRPC's own form, such as dns:///HOST:PORT
_FOLDERS = {
    "--models": f"the folder of models, {LAYOUT}",
    "--calibrations": "the folder that `sluice calibrate` writes to, or an empty one (`mkdir -p DIR`)",
}
_ADDRESSES = "--http HOST:PORT, and --grpc HOST:PORT beside it"
# What other servers call what is a setting here.
_MEANT = dict.fromkeys(("port", "host", "bind", "address", "rest-api-port"), _ADDRESSES) | {
    "model-base-path": "--models DIR, the folder above it",
}

# What settings look like that are JSON.
_JSON = {"scan_chunks": '{"MODEL": 64}', "bucket_bounds": '{"MODEL": {"time": [16, 64]}}'}


class SettingsError(ValueError):
    """Settings that cannot be used; the sentence names the setting."""


def _increasing(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if not sizes or list(sizes) != sorted(set(sizes)):
        raise ValueError(f"expected increasing batch sizes, got {list(sizes)}")
    return sizes


def _split(listed: Any) -> Any:
    if not isinstance(listed, str):
        return listed
    return listed.split(",") if listed else ()


def _origin(text: str) -> str:
    if text != "*" and not _ORIGIN.fullmatch(text):
        raise ValueError(f"expected * or SCHEME://HOST[:PORT] in lower case, with nothing behind it, got {text!r}")
    return text


def _backend(text: str) -> str:
    return text if _TARGET.match(text) else check_address(text, least=1, unix=True)


def _evaluator(text: str) -> str:
    return check_address(text.removeprefix("http://").rstrip("/"), least=1, unix=True)


def _increasing_bounds(bounds: tuple[int, ...]) -> tuple[int, ...]:
    if not bounds or list(bounds) != sorted(set(bounds)):
        raise ValueError(f"expected increasing lengths, got {list(bounds)}")
    return bounds


Bounds = Annotated[tuple[PositiveInt, ...], AfterValidator(_increasing_bounds)]
Sizes = Annotated[tuple[PositiveInt, ...], NoDecode, BeforeValidator(_split), AfterValidator(_increasing)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_split)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Address = Annotated[str, AfterValidator(check_address)]


class Settings(BaseSettings):
    """Serve models: HTTP in front, a model server behind."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, cli_kebab_case=True, cli_prog_name="sluice serve",
        cli_hide_none_type=True, cli_avoid_json=True, cli_implicit_flags=True,
        cli_exit_on_error=False,
    )  # fmt: skip

    models: Path | None = Field(
        None,
        description="Folder of models in TensorFlow Serving's layout, NAME/VERSION/saved_model.pb. Without --backend "
        "the embedded model server serves it; with --backend its names are the models to look at.",
    )
    required_models: Names = Field(
        (),
        description="Models without which the gateway is not ready: `/readyz` is 503 while one of them cannot be "
        "called. Any other model that cannot be called is listed there, and keeps nobody from the rest.",
    )
    http: Address = Field("127.0.0.1:8080", description="Where to listen for HTTP, HOST:PORT. Port 0: any free one.")
    grpc: Address = Field("127.0.0.1:8081", description="Where to listen for gRPC, HOST:PORT. Port 0: any free one.")
    backend: Annotated[str, AfterValidator(_backend)] | None = Field(
        None,
        description="Model server to use, HOST:PORT or unix:PATH; those of a name with several addresses take turns. "
        "Without it the embedded one is started as a child.",
    )
    calibrations: Path | None = Field(
        None,
        description="Folder of calibrations, MODEL-VERSION.json, that `:recognize` decides by; files that change are "
        "read again.",
    )
    evaluator: Annotated[str, AfterValidator(_evaluator)] | None = Field(
        None,
        description="Evaluator that answers `/v1/evaluations`, HOST:PORT or unix:PATH. Without it one is started as a "
        "child when it is first asked for.",
    )
    evaluations_database: str | None = Field(
        None, description="Where that child keeps its evaluations, a URL as `sluice evaluator --database` takes it."
    )
    evaluations_data_roots: Names = Field(
        (), description="Folders and URLs below which that child may read data; without any it reads uploads only."
    )
    config: Path | None = Field(None, description="YAML file of settings, one key for each flag, with underscores.")

    allowed_batch_sizes: Sizes = Field(
        BatchingOptions().allowed_batch_sizes,
        description="Row counts that the model server sees; a batch is filled up to the next one. Few for a GPU.",
    )
    in_flight: PositiveInt = Field(
        BatchingOptions().in_flight,
        description="Batches of one model that may run at the same time. More make batches smaller.",
    )
    linger_ms: float = Field(
        BatchingOptions().linger_s * 1000,
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        description="How long the oldest row waits for company while the model server is idle, in milliseconds.",
    )
    queue_rows: PositiveInt = Field(
        BatchingOptions().queue_rows, description="Rows of one model that may wait; beyond it: 429 queue_full."
    )
    low_priority_share: float = Field(
        BatchingOptions().low_priority_share,
        gt=0,
        le=1,
        description="While other requests for a model come, the share of the time of one of its `in_flight` slots that "
        "batches of low priority may take. The less, the less the others notice; without others they take all.",
    )
    timeout_ms: PositiveInt = Field(
        30_000, description="How long a request may take when it does not say Sluice-Timeout-Ms, in milliseconds."
    )
    body_bytes: PositiveInt = Field(
        16 * 1024 * 1024, description="Largest request body, in bytes; beyond it: 413 body_too_large."
    )
    arrival_s: Seconds = Field(
        60.0, description="How long an HTTP request's head and body may take to arrive, in seconds; beyond it: 408."
    )
    keep_alive_s: Seconds = Field(
        75.0,
        description="An HTTP connection without a request is closed after this long, in seconds. Keep it above the "
        "idle time of the proxy in front.",
    )
    half_closed_s: Seconds = Field(
        1.0,
        description="How long a request is still served once its client has closed its side of the HTTP connection, in "
        "seconds. Such a client waits for its answer, as nc does, or it has left.",
    )
    idle_connections: PositiveInt = Field(
        10_000, description="HTTP connections without a request; beyond it the longest idle one is closed."
    )
    cors_origins: Origins = Field(
        (),
        description="Origins whose pages may call the gateway from a browser (CORS), SCHEME://HOST[:PORT] each, or * "
        "for all. With *, any page can use the gateway through its visitors' browsers.",
    )
    buckets: PositiveInt = Field(
        BucketOptions().buckets,
        description="Buckets that are learned for each ragged axis, where the contract gives no bounds.",
    )
    bucket_bounds: dict[str, dict[str, Bounds]] = Field(
        {}, description="By model and ragged axis, the buckets' inclusive upper bounds, instead of the contract's."
    )
    sequence_limit: PositiveInt = Field(
        BucketOptions().limit,
        description="Longest sequence, where no bounds are given; beyond it: 413 sequence_too_long.",
    )
    scan_chunks: dict[str, NonNegativeInt] = Field(
        {},
        description="By model, time steps of the chunks in which its sequences run, instead of the contract's or of "
        "what runs cost; 0: whole, in buckets. For models that can be scanned; of any other the log warns.",
    )
    scan_steps: PositiveInt = Field(4096, description="Most time steps of one scan; beyond it: 413 sequence_too_long.")

    session_idle_s: Seconds = Field(
        SessionOptions().idle_s, description="A session that is not used for this long expires, in seconds."
    )
    session_life_s: Seconds = Field(
        SessionOptions().life_s, description="No session lives longer than this, used or not, in seconds."
    )
    sessions_per_model: PositiveInt = Field(
        SessionOptions().per_model, description="Sessions open at one time on one model; beyond it: 503 sessions_full."
    )
    session_evict: bool = Field(
        SessionOptions().evict, description="When a model is full, evict its longest idle session instead of refusing."
    )
    session_queue_steps: PositiveInt = Field(
        SessionOptions().queue_steps, description="Steps of one session that may wait; beyond it: 429."
    )
    sessions_remembered: PositiveInt = Field(
        SessionOptions().remembered, description="Ended sessions whose reason is remembered."
    )
    sessions_remembered_s: Seconds = Field(
        SessionOptions().remembered_s, description="How long the reason of an ended session is remembered, in seconds."
    )

    allow_reload: bool = Field(
        False, description="Pass gRPC's HandleReloadConfigRequest on to the model server; else: permission_denied."
    )
    poll_s: Seconds = Field(
        1.0,
        description="How often the model server is asked for its versions, and calibrations are looked at, in seconds.",
    )
    drain_s: Seconds = Field(10.0, description="How long running requests may take to end at a stop, in seconds.")
    intra_op_threads: int = Field(
        1, ge=0, description="Embedded model server: threads inside one operation; 0: TensorFlow's choice."
    )
    inter_op_threads: int = Field(
        1, ge=0, description="Embedded model server: operations side by side; 0: TensorFlow's choice."
    )

    log_format: LogFormat = Field("text", description=LOG_FORMAT + " Children that are started here follow it.")

    @property
    def batching(self) -> BatchingOptions:
        linger_s, share = self.linger_ms / 1000, self.low_priority_share
        return BatchingOptions(self.allowed_batch_sizes, self.in_flight, linger_s, self.queue_rows, share)

    @property
    def bucket_options(self) -> BucketOptions:
        return BucketOptions(self.bucket_bounds, self.buckets, self.sequence_limit, self.scan_chunks)

    @property
    def sessions(self) -> SessionOptions:
        return SessionOptions(
            self.session_idle_s,
            self.session_life_s,
            self.sessions_per_model,
            self.session_evict,
            self.session_queue_steps,
            self.sessions_remembered,
            self.sessions_remembered_s,
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class names them
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = init_settings.init_kwargs if isinstance(init_settings, InitSettingsSource) else {}
        yaml = YamlConfigSettingsSource(settings_cls, yaml_file=given.get("config"))
        return init_settings, env_settings, yaml


def load(args: Sequence[str]) -> Settings:
    """The settings that flags `args`, the environment and a YAML file together make.

    Raises:
        SettingsError: the file or a folder is missing, or a flag, a variable or a key of the file is unknown.
        pydantic.ValidationError: a value is of the wrong form.
        SystemExit: `--help` (0).
    """
    _refuse_unknown_environment()
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--config", default=os.environ.get(f"{PREFIX}CONFIG"))
    config = first.parse_known_args(args)[0].config
    if config is not None:
        _check_yaml(Path(config))
    known: dict[str, Any] = {"config": config} if config else {}
    try:
        settings = Settings(_cli_parse_args=[*args], **known)
    except Unreadable as error:
        raise SettingsError(_unreadable(str(error), args)) from None
    if settings.models is None and settings.backend is None:
        raise SettingsError("expected --models DIR, --backend HOST:PORT, or both")
    for flag, folder in (("--models", settings.models), ("--calibrations", settings.calibrations)):
        if folder is not None and not folder.is_dir():
            raise SettingsError(f"{flag}: expected {_FOLDERS[flag]}; {no_folder(folder)}")
    if settings.http == settings.grpc and not settings.http.endswith(":0"):
        raise SettingsError(f"--http and --grpc are two addresses; both are {settings.http}")
    return settings


def _unreadable(error: str, args: Sequence[str]) -> str:
    """What is wrong with flags, and for one that there is not, which may be meant."""
    if (unknown := UNKNOWN_FLAG.search(error)) and not unknown[1].startswith("-"):
        return f"expected flags, got {unknown[1]!r}; did you mean --models {unknown[1]}?"
    return unreadable(error, Given(args, PREFIX), Settings.model_fields, "sluice serve", _MEANT, _JSON)


def _check_yaml(file: Path) -> None:
    if not file.is_file():
        raise SettingsError(f"config: there is no file {file}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"config: {file} is not YAML: {error}") from None
    if not isinstance(content, dict | None) or not all(isinstance(key, str) for key in content or ()):
        raise SettingsError(f"config: {file} must hold one `setting: value` a line; got {type(content).__name__}")
    unknown = [no_setting(key, Settings.model_fields) for key in content or () if key not in Settings.model_fields]
    if unknown:
        raise SettingsError(f"config: {file}: {'; '.join(unknown)}")


def _refuse_unknown_environment() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    ours = [name for name in os.environ if name.startswith(PREFIX) and not name.startswith(_OTHERS)]
    unknown = sorted(name for name in ours if name not in known)
    if unknown:
        raise SettingsError(
            f"environment: there is no setting {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
