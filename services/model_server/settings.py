"""Settings of the embedded model server; the flags carry TensorFlow Serving's names where it has them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, PositiveFloat, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class ModelServerSettings(BaseSettings):
    """A stand-in for TensorFlow Serving: the same wire, the same folder layout, the same flags."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="SLUICE_MODEL_SERVER_",
        cli_prog_name="sluice model-server",
        cli_hide_none_type=True,
        cli_avoid_json=True,
        protected_namespaces=(),
    )

    models: Path | None = Field(None, description="Folder of models, NAME/VERSION/saved_model.pb; all are served.")
    model_name: str | None = Field(None, description="Name of a single model, with --model_base_path.")
    model_base_path: Path | None = Field(None, description="Folder of a single model, VERSION/saved_model.pb.")
    host: str = Field("127.0.0.1", description="Address to listen on. 0.0.0.0 is all of them.")
    port: int = Field(8500, ge=0, le=65535, description="Port for gRPC; 0: none.")
    grpc_socket_path: Path | None = Field(None, description="Unix socket for gRPC, besides the port.")
    rest_api_port: int = Field(8501, ge=0, le=65535, description="Port for REST; 0: none.")
    file_system_poll_wait_seconds: PositiveFloat = Field(
        1.0, description="How often the folders are looked at for new versions, in seconds."
    )
    tensorflow_intra_op_parallelism: int = Field(0, ge=0, description="Threads inside one operation; 0: its choice.")
    tensorflow_inter_op_parallelism: int = Field(0, ge=0, description="Operations side by side; 0: its choice.")
    stop_with_parent: bool = Field(False, description="Stop when standard input ends, as it does with the parent.")

    @model_validator(mode="after")
    def _some_model(self) -> Self:
        single = self.model_name is not None and self.model_base_path is not None
        if single == (self.models is not None) or (self.model_name is None) != (self.model_base_path is None):
            raise ValueError("expected either --models, or --model_name together with --model_base_path")
        return self

    @model_validator(mode="after")
    def _some_address(self) -> Self:
        if not (self.port or self.rest_api_port or self.grpc_socket_path):
            raise ValueError("expected somewhere to listen: --port, --grpc_socket_path or --rest_api_port")
        return self


def load(args: Sequence[str]) -> ModelServerSettings:
    """The settings that flags make.

    Raises:
        pydantic.ValidationError: a value is of the wrong form.
        SystemExit: `--help` (0), or flags that cannot be used (2).
    """
    return ModelServerSettings(_cli_parse_args=[_SWITCHES.get(each, each) for each in args])


# TensorFlow Serving's flags need no value to be switched on.
_SWITCHES = {"--stop_with_parent": "--stop_with_parent=true"}
