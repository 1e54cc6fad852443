"""The recorded models, served by the model server alone, and by the gateway in front of it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.end_to_end.serving import serving
from tests.golden import models
from tests.model_server.conftest import Server


@dataclass(frozen=True, slots=True)
class Door:
    """Where the recorded calls are answered."""

    url: str
    channel: grpc.Channel
    address: str = ""  # of a model server, for a gateway


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    return models.save(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def model_server(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flag = "--allow_version_labels_for_unavailable_models"
    running = Server(tmp_path_factory.mktemp("server"), f"--model_config_file={config}", flag)
    yield running
    running.close()


@pytest.fixture(scope="session")
def served(model_server: Server) -> Door:
    return Door(f"http://127.0.0.1:{model_server.rest_port}", model_server.client._channel)


@pytest.fixture(scope="session")
def passed_on(config: Path, model_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The gateway, in front of the model server."""
    flags = ("--backend", f"unix:{model_server.socket}", "--allow-reload")
    with (
        serving(config.parent, tmp_path_factory.mktemp("gateway"), *flags) as gateway,
        grpc.insecure_channel(gateway.grpc_url.removeprefix("grpc://")) as channel,
    ):
        yield Door(gateway.url, channel)


@pytest.fixture(scope="session")
def open_to_pages(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A model server that pages may call, Prometheus may ask, and that refuses what cannot be batched."""
    folder = tmp_path_factory.mktemp("open")
    monitoring = folder / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    batching = folder / "batching.config"
    batching.write_text("max_batch_size { value: 64 } batch_timeout_micros { value: 1000 }")
    flags = (
        "--allow_version_labels_for_unavailable_models",
        "--rest_api_enable_cors_support",
        f"--monitoring_config_file={monitoring}",
        "--enable_batching",
        f"--batching_parameters_file={batching}",
    )
    running = Server(folder, f"--model_config_file={config}", *flags)
    yield Door(f"http://127.0.0.1:{running.rest_port}", running.client._channel, f"unix:{running.socket}")
    running.close()
