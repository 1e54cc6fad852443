"""Settings of the embedded model server; the flags carry TensorFlow Serving's names where it has them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import Field, NonNegativeFloat, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sluice.log import LOG_FORMAT, LogFormat

WHAT, WHERE, WHEN, HOW = "What is served", "Where it listens", "When it changes", "How it runs"
NO_EFFECT = "Accepted, without effect"
REFUSED = "Refused, because moving on without them would not do what they say"

PREFIX = "SLUICE_MODEL_SERVER_"
_OFF = (False, 0, 0.0, "", None)


def _flag(group: str, default: Any, help_: str, **constraints: Any) -> Any:
    return Field(default, description=help_, json_schema_extra={"group": group}, **constraints)


class ModelServerSettings(BaseSettings):
    """A stand-in for TensorFlow Serving: the same wire, the same folder layout, the same flags."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, protected_namespaces=())

    models: Path | None = _flag(
        WHAT,
        None,
        "Folder of models, NAME/VERSION/saved_model.pb; all are served. Not a flag of TensorFlow Serving.",
    )
    model_config_file: Path | None = _flag(
        WHAT, None, "File of models, their version policies and labels: a ModelServerConfig in text format."
    )
    model_name: str | None = _flag(WHAT, None, "Name of a single model; default, if only its folder is given.")
    model_base_path: Path | None = _flag(WHAT, None, "Folder of a single model, VERSION/saved_model.pb.")
    saved_model_tags: str = _flag(WHAT, "serve", "Tags of the graph to load, with commas between them.")

    host: str = _flag(
        WHERE,
        "127.0.0.1",
        "Address to listen on; 0.0.0.0 is all, where TensorFlow Serving, without such a flag, listens.",
    )
    port: int = _flag(WHERE, 8500, "Port for gRPC; 0: none.", ge=0, le=65535)
    grpc_socket_path: Path | None = _flag(WHERE, None, "Unix socket for gRPC, besides the port.")
    grpc_socket_permissions: str | None = _flag(
        WHERE, None, "Permissions of that socket, in octal, such as 0770; else as the process makes files."
    )
    rest_api_port: int = _flag(WHERE, 0, "Port for REST; 0: none.", ge=0, le=65535)
    rest_api_enable_cors_support: bool = _flag(WHERE, False, "Pages from anywhere may call the REST API.")
    monitoring_config_file: Path | None = _flag(
        WHERE, None, "A MonitoringConfig in text format, which switches the Prometheus page on, at the REST port."
    )

    log_format: LogFormat = _flag(WHERE, "text", f"{LOG_FORMAT} Not a flag of TensorFlow Serving.")

    file_system_poll_wait_seconds: NonNegativeFloat = _flag(
        WHEN, 1.0, "How often the folders are looked at for new versions, in seconds; 0: at the start only."
    )
    model_config_file_poll_wait_seconds: NonNegativeFloat = _flag(
        WHEN, 0.0, "How often --model_config_file is read again, in seconds; 0: never."
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        WHEN, False, "A new label may be on a version that is not available yet, as all are at the start."
    )
    max_num_load_retries: int = _flag(
        WHEN, 5, "How often a version that cannot be loaded is tried again; it is also when its files change.", ge=0
    )
    load_retry_interval_micros: int = _flag(WHEN, 60_000_000, "How long after the last try, in microseconds.")
    enable_model_warmup: bool = _flag(
        WHEN, True, "Run a version's assets.extra/tf_serving_warmup_requests before it is served."
    )
    num_request_iterations_for_warmup: int = _flag(WHEN, 1, "How often each of them is run; below 1: once.")
    stop_with_parent: bool = _flag(
        WHEN, False, "Stop when standard input ends, as it does with the parent. Not a flag of TensorFlow Serving."
    )

    tensorflow_session_parallelism: int = _flag(
        HOW, 0, "Threads inside one operation, and operations side by side; 0: TensorFlow's choice.", ge=0
    )
    tensorflow_intra_op_parallelism: int = _flag(HOW, 0, "Threads inside one operation, instead.", ge=0)
    tensorflow_inter_op_parallelism: int = _flag(HOW, 0, "Operations side by side, instead.", ge=0)

    enable_batching: bool = _flag(
        HOW, False, "Refuse what TensorFlow Serving could not batch. Every call runs as it came: the gateway batches."
    )
    batching_parameters_file: Path | None = _flag(
        HOW, None, "BatchingParameters in text format, with --enable_batching: how many rows a request may have."
    )
    enable_per_model_batching_parameters: bool = _flag(NO_EFFECT, False, "As --enable_batching.")
    rest_api_num_threads: int = _flag(NO_EFFECT, 0, "Up to 40 calls run at one time.")
    rest_api_timeout_in_ms: int = _flag(NO_EFFECT, 30_000, "A call over REST runs to its end.")
    grpc_max_threads: int = _flag(NO_EFFECT, 0, "Up to 8 calls run at one time; others wait for them.")
    grpc_channel_arguments: str = _flag(NO_EFFECT, "", "Messages may have any size.")
    enable_grpc_healthcheck_service: bool = _flag(NO_EFFECT, True, "gRPC's health is always served.")
    num_load_threads: int = _flag(NO_EFFECT, 0, "Versions are loaded one after another, beside the calls.")
    num_unload_threads: int = _flag(NO_EFFECT, 0, "A version goes with the last call that holds it.")
    flush_filesystem_caches: bool = _flag(NO_EFFECT, True, "Caches are left to the system.")
    enable_signature_method_name_check: bool = _flag(
        NO_EFFECT, False, "Whether a signature fits a call is told from its inputs and outputs."
    )
    remove_unused_fields_from_bundle_metagraph: bool = _flag(NO_EFFECT, True, "TensorFlow's Python loads all fields.")
    enable_serialization_as_tensor_content: bool = _flag(NO_EFFECT, False, "Clients read either form.")
    enable_profiler: bool = _flag(NO_EFFECT, True, "There is no profiler.")
    per_process_gpu_memory_fraction: float = _flag(NO_EFFECT, 0.0, "TensorFlow takes what it needs.")
    xla_cpu_compilation_enabled: bool = _flag(NO_EFFECT, False, "TensorFlow decides.")
    xla_gpu_compilation_enabled: bool = _flag(NO_EFFECT, False, "TensorFlow decides.")
    num_tflite_pools: int = _flag(NO_EFFECT, 0, "There is no TensorFlow Lite.")
    num_tflite_interpreters_per_pool: int = _flag(NO_EFFECT, 0, "There is no TensorFlow Lite.")
    skip_initialize_tpu: bool = _flag(NO_EFFECT, False, "TPUs are not used.")

    ssl_config_file: str = _flag(REFUSED, "", "TLS is not spoken here: put a proxy in front, or use a Unix socket.")
    use_alts_credentials: bool = _flag(REFUSED, False, "ALTS is not spoken here.")
    platform_config_file: str = _flag(REFUSED, "", "The only platform is TensorFlow, configured by flags.")
    prefer_tflite_model: bool = _flag(REFUSED, False, "TensorFlow Lite models cannot be run; TensorFlow's can.")
    tensorflow_session_config_file: str = _flag(
        REFUSED, "", "Use --tensorflow_intra_op_parallelism and --tensorflow_inter_op_parallelism."
    )
    thread_pool_factory_config_file: str = _flag(REFUSED, "", "TensorFlow's own thread pools are used.")
    mixed_precision: str = _flag(REFUSED, "", "Models run in the precision in which they were exported.")

    @model_validator(mode="before")
    @classmethod
    def _given(cls, flags: dict[str, Any]) -> dict[str, Any]:
        """A flag with nothing after its `=` is one that is not given."""
        return {name: value for name, value in flags.items() if value != ""}

    @field_validator("grpc_socket_permissions")
    @classmethod
    def _octal(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch("0?[0-7]{3}", value):
            raise ValueError(f"expected permissions in octal, such as 0770; got {value!r}")
        return value

    @model_validator(mode="after")
    def _some_model(self) -> Self:
        if self.model_name is not None and self.model_base_path is None and self.model_config_file is None:
            raise ValueError("--model_name goes with --model_base_path")
        if self.models is not None and (self.model_base_path or self.model_config_file):
            raise ValueError("--models goes without --model_config_file and --model_base_path")
        if self.models is None and self.model_base_path is None and self.model_config_file is None:
            raise ValueError("expected one of --models, --model_config_file or --model_base_path")
        return self

    @model_validator(mode="after")
    def _some_address(self) -> Self:
        if not (self.port or self.rest_api_port or self.grpc_socket_path):
            raise ValueError("expected somewhere to listen: --port, --grpc_socket_path or --rest_api_port")
        if self.port and self.port == self.rest_api_port:
            raise ValueError(f"--port and --rest_api_port are two ports; both are {self.port}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batching_parameters_file is not None and not self.enable_batching:
            raise ValueError("--batching_parameters_file goes with --enable_batching")
        if all((self.tensorflow_session_parallelism, *self._instead)):
            raise ValueError("--tensorflow_session_parallelism goes without the other two that end in _parallelism")
        return self

    @model_validator(mode="after")
    def _nothing_refused(self) -> Self:
        for name in flags_of(REFUSED):
            if getattr(self, name) not in _OFF:
                raise ValueError(f"--{name} is refused: {type(self).model_fields[name].description}")
        return self

    @property
    def _instead(self) -> tuple[int, int]:
        return self.tensorflow_intra_op_parallelism, self.tensorflow_inter_op_parallelism

    @property
    def threads(self) -> tuple[int, int]:
        """TensorFlow's threads inside one operation, and its operations side by side; 0: its choice."""
        return self._instead if any(self._instead) else (self.tensorflow_session_parallelism,) * 2

    @property
    def tags(self) -> list[str]:
        return self.saved_model_tags.split(",")

    @property
    def without_effect(self) -> list[str]:
        """The flags that are set to something else than their default, and do nothing."""
        fields = type(self).model_fields
        return [name for name in flags_of(NO_EFFECT) if getattr(self, name) != fields[name].default]


def flags_of(group: str) -> Iterator[str]:
    """The names of a group's flags."""
    for name, field in ModelServerSettings.model_fields.items():
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["group"] == group:
            yield name
