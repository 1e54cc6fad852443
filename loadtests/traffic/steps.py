"""The requests of a session: a client's way through a series, and what Keras forecasts after each of its steps."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtests.traffic.checks import check_forecast, check_nothing, check_opened
from loadtests.traffic.exchange import Exchange
from loadtests.traffic.models import MONTH

IDLE_S = 120.0  # a session that its client has dropped is gone after this time


@dataclass(frozen=True, eq=False, slots=True)
class Series:
    """What a session of a model is fed, and what Keras says after each step, run alone from the start.

    Attributes:
        model: its name.
        inputs: float32 [steps, 1].
        answers: float32 [steps, 1].
    """

    model: str
    inputs: NDArray[np.float32]
    answers: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.inputs)


def opening(series: Series, session: str | None = None, *, again: bool = False) -> Exchange:
    """Open a session, by an id of one's own or by the gateway's; `again`: in place of one of that id, if there is."""
    fields: dict[str, Any] = {"ttl_s": IDLE_S} | ({} if session is None else {"session": session})
    if again:
        fields["if_exists"] = "restart"
    check = partial(check_opened, session, 0)
    return Exchange(f"/v1/models/{series.model}/sessions", orjson.dumps(fields), check, status=201)


def step_body(series: Series, step: int) -> bytes:
    """The month after `step` of them, numbered, so that it is safe to send again."""
    return _dumps({"inputs": {MONTH: series.inputs[step]}, "step": step})


def check_step(series: Series, step: int, body: bytes) -> None:
    """Raises: WrongAnswer: what was answered to `step_body` is not what Keras says."""
    check_forecast(series.answers[step], step + 1, body)


def stepping(series: Series, session: str, step: int) -> Exchange:
    """The step after `step` others."""
    return Exchange(f"/v1/sessions/{session}:step", step_body(series, step), partial(check_step, series, step))


def scanning(series: Series, session: str, step: int, steps: int) -> Exchange:
    """`steps` steps in one call, after `step` others."""
    end = step + steps
    body = _dumps({"inputs": {MONTH: series.inputs[step:end]}, "step": step})
    return Exchange(f"/v1/sessions/{session}:scan", body, partial(check_forecast, series.answers[step:end], end))


def forking(session: str, step: int) -> Exchange:
    """Copy a session after `step` steps; the gateway chooses the copy's id."""
    return Exchange(f"/v1/sessions/{session}:fork", b"{}", partial(check_opened, None, step), status=201)


def closing(session: str) -> Exchange:
    return Exchange(f"/v1/sessions/{session}", b"", check_nothing, method="DELETE", status=204)


def _dumps(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)
