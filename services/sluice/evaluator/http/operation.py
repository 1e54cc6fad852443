"""What those ask who run an evaluator: whether it lives, whether requests should come here, and its metrics."""

import asyncio
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy.exc import DBAPIError

from sluice.evaluator.http.evaluations import Here
from sluice.evaluator.http.views import Readiness
from sluice.evaluator.jobs.database import reason_of
from sluice.evaluator.jobs.life_cycle import Status
from sluice.evaluator.service import Service
from sluice.policy.errors import SluiceError

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="Whether the process lives")
async def healthz() -> dict[str, str]:
    """Answers while the process lives."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    summary="Whether requests should come here",
    responses={503: {"model": Readiness}},
    response_model_exclude_none=True,
)
async def readyz(service: Here, request: Request, response: Response) -> Readiness:
    """Whether the database and the gateway answer."""
    reason, counts = "", dict.fromkeys(Status, 0)
    try:
        counts = dict(await service.counts())
        await request.app.state.reach()
    except DBAPIError as error:
        reason = f"the database cannot be used: {reason_of(error)}"
    except SluiceError as error:
        reason = f"the gateway cannot be used: {error.message}"
    if reason:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return Readiness(
        status="not ready" if reason else "ready",
        reason=reason or None,
        gateway=request.app.state.gateway,
        evaluations={status.value: count for status, count in counts.items()},
    )


@router.get("/metrics", summary="Metrics, for Prometheus", response_class=Response)
async def metrics(service: Here) -> Response:
    """Prometheus' text format."""
    text = await asyncio.to_thread(_text, service)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _text(service: Service) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(service))
    return generate_latest(registry)


class _Collector:
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        evaluations = GaugeMetricFamily("sluice_evaluations", "Evaluations, by status.", labels=["status"])
        for status, count in self._service.store.counts().items():
            evaluations.add_metric([status.value], count)
        yield evaluations
        rows = CounterMetricFamily("sluice_evaluation_rows", "Rows evaluated since the evaluator started.")
        rows.add_metric([], self._service.runner.rows)
        yield rows
