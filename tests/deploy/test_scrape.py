"""A real Prometheus, set up as deploy/prometheus says, has data for every panel of the dashboard and every record."""

import asyncio
import contextlib
import math
import shutil
import socket
import urllib.error
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route
from structlog.testing import capture_logs

from sluice.model_server.monitoring import CONTENT_TYPE, Monitoring
from tests.deploy.dashboard import ROOT, asked, panels
from tests.deploy.test_prometheus import needed, rules
from tests.evaluator.puppet import Here as Evaluator
from tests.evaluator.puppet import running as evaluator_running
from tests.gateway.batching_server import TEXT
from tests.gateway.here import Here, eventually, running
from tests.gateway.puppet import Puppet
from tests.gateway.sides import LEFT, STRANGE, document, put

PROMETHEUS = ROOT / "deploy" / "prometheus"
PATIENCE_S = 60.0


class Faults:
    """What the puppet does: it fails over `plain`, and every second batch of `strides` meets others."""

    def __init__(self) -> None:
        self._met = False

    async def __call__(self, request: Any) -> tuple[grpc.StatusCode, str] | None:
        match request.model_spec.name:
            case "plain":
                return grpc.StatusCode.INTERNAL, "as the test told me"
            case "strides":
                self._met = not self._met
                return (grpc.StatusCode.FAILED_PRECONDITION, TEXT) if self._met else None
        return None


@contextlib.asynccontextmanager
async def gateway_running(folder: Path) -> AsyncIterator[Here]:
    """A gateway with calibrations, in front of a model server with faults."""
    calibrations = folder / "calibrations"
    calibrations.mkdir()
    put(calibrations, document())
    puppet = Puppet(folder)
    puppet.before = Faults()
    await puppet.start()
    async with running(puppet, calibrations=calibrations, sessions_per_model=2) as here:
        yield here
    await puppet.stop()


@contextlib.asynccontextmanager
async def others_running(evaluator: Evaluator, monitoring: Monitoring) -> AsyncIterator[str]:
    """The evaluator and TensorFlow Serving's page of metrics, at one address."""

    async def page(_: Any) -> Response:
        return Response(monitoring.page(), headers={"content-type": CONTENT_TYPE})

    app = Starlette(routes=[Route("/monitoring/prometheus/metrics", page), Mount("/", evaluator.app)])
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined, method-assign]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server._serve([listener]))
        await eventually(lambda: server.started)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def prometheus_running(folder: Path, gateway: str, others: str) -> AsyncIterator[str]:
    """A Prometheus that looks at these addresses twice a second."""
    settings = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
    settings["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), "500ms")
    for each in settings["scrape_configs"]:
        each["static_configs"] = [{"targets": [gateway if each["job_name"] == "sluice/gateway" else others]}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    shutil.copy(PROMETHEUS / "rules.yaml", folder)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = [f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus", *flags, f"--web.listen-address={address}", stdout=log, stderr=log
        )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        await process.wait()


async def load(here: Here, evaluator: Evaluator, monitoring: Monitoring) -> None:
    """A little of everything that is counted, faults among it."""
    adders = await here.adders(2)
    assert (await here.http.post("/v1/models/sum/sessions", json={})).status_code == 503
    for adder in adders:
        await adder.goes_on()
        await here.http.delete(f"/v1/sessions/{adder.id}")
    calls = {
        "plain:predict": [[1.0, 2.0]],
        "strides:predict": [[[1.0, 2.0]] * length for length in (1, 3)],
        "speller:generate": ["abc", "hello"],
        "sides:recognize": [LEFT, STRANGE],
    }
    posts = (here.http.post(f"/v1/models/{call}", json={"instances": rows}) for call, rows in calls.items())
    assert [answer.status_code for answer in await asyncio.gather(*posts)] == [500, 200, 200, 200]
    await evaluator.ask()
    evaluator.puppet.do()
    with monitoring.request("sum", "Predict", "GRPC"):
        pass


def without_data(prometheus: str) -> list[str]:
    """What has no number yet: queries of panels, and recording rules."""
    asking = {f"{panel.title}: {query.expr}": query.with_all("1m") for panel in panels() for query in panel.queries}
    asking |= {rule["record"]: rule["record"] for rule in rules() if "record" in rule}
    return [name for name, expr in asking.items() if not any(map(is_number, asked(prometheus, "query", query=expr)))]


def is_number(series: dict[str, Any]) -> bool:
    return math.isfinite(float(series["value"][1]))


async def test_every_panel_and_every_recording_rule_has_data(tmp_path: Path) -> None:
    needed("prometheus")
    monitoring, missing = Monitoring(lambda _: True), ["everything"]
    with capture_logs():
        async with (
            gateway_running(tmp_path) as here,
            evaluator_running(tmp_path) as evaluator,
            others_running(evaluator, monitoring) as others,
            prometheus_running(tmp_path, f"127.0.0.1:{here.port}", others) as prometheus,
        ):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    while missing:
                        await load(here, evaluator, monitoring)
                        with contextlib.suppress(urllib.error.URLError):  # it starts
                            missing = await asyncio.to_thread(without_data, prometheus)
    assert not missing, (tmp_path / "prometheus.log").read_text()
