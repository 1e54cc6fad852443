"""What those ask who run a gateway: whether it lives, whether requests should come here, and its metrics."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from sluice.gateway.http.rest import Here
from sluice.gateway.metrics.metrics import Metrics

router = APIRouter()


class Readiness(BaseModel):
    status: Literal["ready", "not ready"]
    reason: str | None = None
    backend: str
    models: dict[str, list[str]] = Field(description="Versions that can be called, by model.")
    troubled: dict[str, str] | None = Field(
        None, description="What is wrong with models of which not all can be called; the others are served."
    )
    unserved: dict[str, str] | None = Field(
        None, description="What lies in the folder of models and is not served, and what to do, by name."
    )
    notes: list[str] | None = Field(None, description="What an operator should know though all is served.")


@router.get("/healthz", summary="Whether the process lives", tags=["operation"])
async def healthz() -> dict[str, str]:
    """Answers while the process lives."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    summary="Whether requests should come here",
    tags=["operation"],
    responses={503: {"model": Readiness}},
    response_model_exclude_none=True,
)
async def readyz(gateway: Here, response: Response) -> Readiness:
    """Whether requests should be sent here: the model server answers, and every required model can be called."""
    reason = "the gateway is stopping" if gateway.draining else gateway.catalog.trouble()
    if reason:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    troubled = {name: trouble for name, trouble in gateway.catalog.troubles().items() if trouble}
    return Readiness(
        status="not ready" if reason else "ready",
        reason=reason or None,
        backend=gateway.catalog.address,
        models={name: [str(v) for v in sorted(model.served)] for name, model in gateway.catalog.models.items()},
        troubled=troubled or None,
        unserved=gateway.catalog.unserved or None,
        notes=gateway.catalog.notes() or None,
    )


@router.get("/metrics", summary="Metrics, for Prometheus", tags=["operation"], response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    found: Metrics = request.app.state.metrics
    return Response(found.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
