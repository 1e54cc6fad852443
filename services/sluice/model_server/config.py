"""Which models a server is told to serve: a folder of models, one model by flags, or a configuration file.

It does not know how versions are loaded.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message

from sluice.model_server.batching import Batching
from sluice.model_server.errors import InvalidArgument, ServingError
from sluice.model_server.runtime import model_server_config_pb2
from sluice.wire.messages.tfs.v1 import config_pb2

Policy = Callable[[Iterable[int]], set[int]]

_PLATFORM = "tensorflow"
METRICS_PATH = "/monitoring/prometheus/metrics"


def latest(count: int = 1) -> Policy:
    """A policy that serves the `count` newest versions."""
    return lambda found: set(sorted(found)[-count:])


def specific(wanted: Iterable[int]) -> Policy:
    """A policy that serves these versions only."""
    chosen = set(wanted)
    return lambda found: chosen & set(found)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model: its folder of versions, which of them are served, and label → version."""

    name: str
    path: Path
    policy: Policy = field(default_factory=latest)
    labels: Mapping[str, int] = field(default_factory=dict)


Configs = Mapping[str, ModelConfig]


def read_file(path: Path) -> bytes:
    """Raises: InvalidArgument: a file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from None


def configs_in(content: bytes) -> Configs:
    """The models of a configuration file, a `ModelServerConfig` in protobuf's text format.

    Raises:
        InvalidArgument: it is none, or what it says cannot be done.
    """
    return configured(_parsed(content, model_server_config_pb2.ModelServerConfig()))


def _parsed(content: bytes, message: Message) -> Any:
    """The message that a file in protobuf's text format holds.

    Raises:
        InvalidArgument: it does not.
    """
    try:
        return text_format.Parse(content.decode(), message)
    except (UnicodeDecodeError, text_format.ParseError) as error:
        raise InvalidArgument(f"expected a {message.DESCRIPTOR.name} in protobuf's text format: {error}") from None


def configured(config: Any) -> Configs:
    """The models of a `ModelServerConfig`.

    Raises:
        InvalidArgument: what it says cannot be done; the model is named.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise InvalidArgument("the configuration has no model_config_list, which names the models to serve")
    found: dict[str, ModelConfig] = {}
    for each in config.model_config_list.config:
        if each.name in found:
            raise InvalidArgument(f"model {each.name!r} is named twice; each model has one entry")
        found[each.name] = _model(each)
    return found


def _model(config: Any) -> ModelConfig:
    if not config.name:
        raise InvalidArgument("a model of the configuration has no name")
    platform = config.model_platform
    if config.model_type == model_server_config_pb2.TENSORFLOW and not platform:  # as configurations said it once
        platform = _PLATFORM
    if platform != _PLATFORM:
        raise InvalidArgument(f"model {config.name!r}: expected model_platform {_PLATFORM!r}; got {platform!r}")
    path = Path(config.base_path)
    if not path.is_absolute():
        raise InvalidArgument(
            f"model {config.name!r}: expected an absolute base_path on this machine; got {config.base_path!r}"
        )
    return ModelConfig(config.name, path, _policy(config), dict(config.version_labels))


def _policy(config: Any) -> Policy:
    policy = config.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return set
        case "specific":
            if not policy.specific.versions:
                raise InvalidArgument(f"model {config.name!r}: the policy `specific` names no versions")
            return specific(policy.specific.versions)
        case _:
            return latest(policy.latest.num_versions or 1)


Labels = Mapping[str, Mapping[str, int]]  # model → label → version


def check_labels(configs: Configs, available: Mapping[str, Collection[int]], current: Labels | None) -> None:
    """Whether each label is on a version that can be called before anything changes, as TensorFlow Serving has it.

    With `current`, the labels of now, a label that is new may be on any version; one that moves may not.

    Raises:
        ServingError: FAILED_PRECONDITION: it is not.
    """
    for name, config in configs.items():
        for label, version in config.labels.items():
            stays = current is not None and current.get(name, {}).get(label, version) == version
            if version not in available.get(name, ()) and not stays:
                raise ServingError(
                    "FAILED_PRECONDITION",
                    f"model {name!r}: label {label!r} is on version {version}, which is not available yet; load the "
                    "version first, and label it in a second configuration, or see "
                    "--allow_version_labels_for_unavailable_models",
                )


def metrics_path_in(content: bytes) -> str | None:
    """The path of the Prometheus page that a `MonitoringConfig` in text format asks for; None: it asks for none.

    Raises:
        InvalidArgument: it is no `MonitoringConfig`, or has a path that cannot be asked for.
    """
    prometheus = _parsed(content, config_pb2.MonitoringConfig()).prometheus_config
    path = prometheus.path or METRICS_PATH
    if not path.startswith("/"):
        raise InvalidArgument(f"expected a path of the Prometheus page that begins with /; got {path!r}")
    return path if prometheus.enable else None


def batching_in(content: bytes) -> Batching:
    """What `BatchingParameters` in text format ask for.

    Raises:
        InvalidArgument: a file is none, or its sizes cannot be used.
    """
    parameters = _parsed(content, config_pb2.BatchingParameters())
    for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads", "max_execution_batch_size"):
        if parameters.HasField(name) and getattr(parameters, name).value < 1:
            raise InvalidArgument(f"expected a {name} of 1 or more; got {getattr(parameters, name).value}")
    sizes = [*parameters.allowed_batch_sizes]
    if sizes != sorted(set(sizes)) or min(sizes, default=1) < 1:
        raise InvalidArgument(f"expected allowed_batch_sizes that increase, from 1 or more; got {sizes}")
    splits = parameters.enable_large_batch_splitting.value and parameters.HasField("max_execution_batch_size")
    largest = parameters.max_execution_batch_size.value if splits else parameters.max_batch_size.value
    if sizes and largest and sizes[-1] != largest:
        raise InvalidArgument(f"the last of allowed_batch_sizes is the largest batch, {largest}; got {sizes[-1]}")
    if parameters.enable_large_batch_splitting.value:
        return Batching(None)
    return Batching(parameters.max_batch_size.value) if parameters.HasField("max_batch_size") else Batching()
