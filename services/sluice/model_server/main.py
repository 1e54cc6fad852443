"""The model server as a process: load, listen, watch the folders, stop when told to."""

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from sluice.log import configure
from sluice.model_server.flags import load
from sluice.model_server.listening import Rest, check_ports
from sluice.model_server.settings import PREFIX, ModelServerSettings
from sluice.model_server.stopping import Stop
from sluice.stderr import say
from sluice.wrong_settings import Given, told

if TYPE_CHECKING:
    from sluice.model_server.batching import Batching
    from sluice.model_server.models import Loader, Models
    from sluice.model_server.monitoring import Monitoring
    from sluice.model_server.rest import RestOptions

log = structlog.get_logger()

_GRACE_S = 5.0
_MICROSECONDS = 1e6
_NAME = "default"  # of a model whose folder alone is given


def main(args: Sequence[str]) -> int:
    """Run with these flags until told to stop; the exit code."""
    try:
        settings = load(args)
    except ValidationError as error:
        say(f"sluice model-server: {told(error, Given(args, PREFIX, dash='_'))}\n")
        return 2
    return run(settings)


def run(settings: ModelServerSettings) -> int:
    """Serve until SIGTERM, SIGINT or, if asked for, the end of the parent; 1 if that cannot be done.

    Until it listens it ends at once, with code 0.
    """
    configure(settings.log_format)
    stop = Stop(with_parent=settings.stop_with_parent)
    try:
        # TensorFlow takes seconds to import: say at once that it would be in vain
        check_ports(settings.host, port=settings.port, rest_api_port=settings.rest_api_port)
    except OSError as error:
        return _cannot_start(error)
    if settings.without_effect:
        log.info("accepted without effect, see --help", flags=settings.without_effect)
    try:
        from sluice.model_server.errors import ServingError
    except ImportError as error:
        return _cannot_start(error)
    try:
        return _serve(settings, stop)
    except (ImportError, OSError, ServingError) as error:
        return _cannot_start(error)


def _serve(settings: ModelServerSettings, stop: Stop) -> int:
    """Raises: ImportError, OSError, ServingError: it cannot be started."""
    from sluice.model_server import rpc
    from sluice.model_server.calls import Calls
    from sluice.model_server.monitoring import Monitoring
    from sluice.model_server.rest import application

    options, batching = _rest_options(settings), _batching(settings)

    def known(name: str) -> bool:
        return models.knows(name)

    monitoring = Monitoring(known)
    models = _models(settings, _loader(settings, monitoring, batching))
    _start(settings, models, stop)
    calls = Calls(models, monitoring)
    addresses = _grpc_addresses(settings)
    server = rpc.server(calls, addresses)
    if settings.grpc_socket_path is not None and settings.grpc_socket_permissions is not None:
        settings.grpc_socket_path.chmod(int(settings.grpc_socket_permissions, 8))
    rest = Rest(application(calls, options), settings.host, settings.rest_api_port, _GRACE_S)
    stop.finishes = True
    server.start()
    log.info("listening", grpc=addresses, rest=settings.rest_api_port or None)
    models.watch(settings.file_system_poll_wait_seconds, stop)
    answered = server.stop(_GRACE_S)
    rest.stop()
    answered.wait()
    return 0


def _rest_options(settings: ModelServerSettings) -> "RestOptions":
    """What the files say that are read once; each is checked before a model is loaded."""
    from sluice.model_server.config import metrics_path_in, read_file
    from sluice.model_server.rest import RestOptions

    monitoring = settings.monitoring_config_file
    path = metrics_path_in(read_file(monitoring)) if monitoring is not None else None
    return RestOptions(settings.rest_api_enable_cors_support, path)


def _batching(settings: ModelServerSettings) -> "Batching | None":
    from sluice.model_server.batching import Batching
    from sluice.model_server.config import batching_in, read_file

    file = settings.batching_parameters_file
    if not settings.enable_batching:
        return None
    return Batching() if file is None else batching_in(read_file(file))


def _loader(settings: ModelServerSettings, monitoring: "Monitoring", batching: "Batching | None") -> "Loader":
    from sluice.model_server.servable import Servable, Threads
    from sluice.model_server.warmup import requests_of, warm_up

    threads = Threads(*settings.threads)

    def loaded(path: Path) -> Servable:
        with monitoring.load(str(path)):
            servable = Servable(path, threads, settings.tags, batching)
        recorded = requests_of(path) if settings.enable_model_warmup else None
        if recorded is not None:
            with monitoring.warm_up(str(path)):
                warm_up(servable, recorded, max(settings.num_request_iterations_for_warmup, 1))
        return servable

    return loaded


def _models(settings: ModelServerSettings, loader: "Loader") -> "Models":
    from sluice.model_folder import look
    from sluice.model_server.folders import models_in
    from sluice.model_server.models import Models
    from sluice.model_server.versions import Retries

    folder = settings.models
    return Models(
        dict if folder is None else partial(models_in, folder),
        loader,
        any_labels=settings.allow_version_labels_for_unavailable_models,
        unserved=dict if folder is None else lambda: look(folder).unserved,
        warns=not settings.stop_with_parent,  # which has a parent that does
        retries=Retries(settings.max_num_load_retries, settings.load_retry_interval_micros / _MICROSECONDS),
    )


def _start(settings: ModelServerSettings, models: "Models", stop: Stop) -> None:
    """Load what there is of a folder of models; of models that are named, each must come.

    Raises:
        OSError, ServingError: that cannot be done.
    """
    from sluice.model_server.config import ModelConfig
    from sluice.model_server.config_file import ConfigFile

    poll_s = settings.file_system_poll_wait_seconds
    if settings.models is not None:
        models.refresh()
    elif settings.model_config_file is not None:
        file = ConfigFile(settings.model_config_file)
        models.start(file.configs, poll_s, stop)
        if (every_s := settings.model_config_file_poll_wait_seconds) > 0:
            watch = partial(file.watch, every_s, models.configure, stop)
            threading.Thread(target=watch, name="config", daemon=True).start()
    elif settings.model_base_path is not None:
        name = settings.model_name or _NAME
        models.start({name: ModelConfig(name, settings.model_base_path)}, poll_s, stop)


def _grpc_addresses(settings: ModelServerSettings) -> list[str]:
    addresses = [f"{settings.host}:{settings.port}"] if settings.port else []
    if settings.grpc_socket_path is not None:
        addresses.append(f"unix:{settings.grpc_socket_path}")
    return addresses


def _cannot_start(error: Exception) -> int:
    say(f"sluice model-server: cannot start: {error}\n")
    return 1
