"""Rows that the client has recognized get the gateway's own answers, over HTTP and gRPC alike."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from sluice.client import AsyncClient, BadRequest, NoAnswer, NotCalibrated, NotFound, RecognizedRow, SluiceError
from sluice.client.recognition import read_recognized
from sluice.policy.errors import (
    DeadlineExceeded,
    DtypeMismatch,
    EmptyInput,
    InputNotFinite,
    ShapeMismatch,
    UnknownInput,
    UnsupportedByModel,
)
from tests.client.faults import Time
from tests.client.to_here import TRANSPORTS, client_of
from tests.gateway.here import Gate, Here, running
from tests.gateway.puppet import Puppet
from tests.gateway.sides import HUNDREDTHS, LEFT, RIGHT, STRANGE, document, put

ROWS = [LEFT, STRANGE, RIGHT]
ANSWERS: dict[str, tuple[list[list[float]], dict[str, Any]]] = {
    "as the calibration says": (ROWS, {}),
    "method, level and candidates": (ROWS, {"method": "max_logit", "level": 0.2, "top_k": 1}),
    "sets": (ROWS, {"sets": True}),
    "two methods that must agree": (ROWS, {"method": "detector+knn", "level": 0.1, "sets": True}),
    "a version": (ROWS, {"version": 1}),
    "a version as text": (ROWS, {"version": "1"}),
    "a label": (ROWS, {"label": "stable"}),
}
FLAWS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "model": ({"model": "nosuch"}, NotFound, "nosuch"),
    "model without recognition": ({"model": "plain"}, UnsupportedByModel, "plain"),
    "model without calibration": ({"model": "guard"}, NotCalibrated, "sluice calibrate guard"),
    "version": ({"version": 7}, NotFound, "7"),
    "label that is none": ({"label": ""}, ValueError, "a name of one character or more"),
    "version that is none": ({"version": "newest"}, ValueError, "whole number"),
    "version and label": ({"version": 1, "label": "stable"}, ValueError, "a version or a label"),
    "method": ({"method": "magic"}, BadRequest, "magic"),
    "level of 0": ({"level": 0.0}, BadRequest, "between 0 and 1"),
    "level that is none": ({"level": np.nan}, BadRequest, "between 0 and 1"),
    "level for which there are too few rows": ({"level": 0.001}, BadRequest, "999 calibration rows"),
    "no candidates": ({"top_k": 0}, BadRequest, "top_k"),
    "NaN": ({"rows": [LEFT, [np.nan, 0.2]]}, InputNotFinite, "'x'"),
    "infinity": ({"rows": np.array([[np.inf, 0.2]])}, InputNotFinite, "'x'"),
    "another scale": ({"rows": [[0.1, 255]]}, BadRequest, "255"),
    "width": ({"rows": [[0.1, 0.2, 0.3]]}, ShapeMismatch, "'x'"),
    "no rows": ({"rows": []}, EmptyInput, "one row or more"),
    "no rows of the right width": ({"rows": np.empty((0, 2))}, EmptyInput, "one row or more"),
    "no axis of rows": ({"rows": 0.5}, ShapeMismatch, r"\[rows, \.\.\.\]"),
    "ragged lists": ({"rows": [[0.1, 0.2], [0.3]]}, ShapeMismatch, "part 1 has 1 value where part 0 has 2 values"),
    "text": ({"rows": [["a", "b"]]}, DtypeMismatch, "'x'"),
    "neither numbers nor text": ({"rows": [[None, 0.2]]}, DtypeMismatch, "None"),
    "input": ({"rows": {"y": ROWS}}, UnknownInput, "'y'"),
    "no input": ({"rows": {}}, ShapeMismatch, r"\[rows, \.\.\.\]"),
    "inputs that do not agree": (
        {"rows": {"x": ROWS, "y": ROWS[:1]}},
        ShapeMismatch,
        r"Input 'x' has the shape \[3, 2\]",
    ),
}


@pytest.fixture
async def here(puppet: Puppet, tmp_path: Path) -> AsyncIterator[Here]:
    put(tmp_path, document())
    async with running(puppet, calibrations=tmp_path) as here:
        yield here


@pytest.fixture(params=TRANSPORTS)
async def client(request: pytest.FixtureRequest, here: Here) -> AsyncIterator[AsyncClient]:
    async with client_of(here, request.param) as client:
        yield client


@pytest.mark.parametrize("name", ANSWERS)
async def test_the_answer_is_the_gateways_own(here: Here, client: AsyncClient, name: str) -> None:
    rows, options = ANSWERS[name]
    given = {"instances": rows, **options}
    version, label = given.pop("version", None), given.pop("label", None)
    path = "/v1/models/sides" + (f"/versions/{version}" if version else f"/labels/{label}" if label else "")
    told = (await here.http.post(f"{path}:recognize", json=given)).json()
    found = await client.recognize("sides", np.array(rows, np.float32), **options)
    about = ("model", "version", "method", "level", "threshold")
    assert {name: getattr(found, name) for name in about} == {name: told[name] for name in about}
    assert [written(row) for row in found.results] == [
        {"set": None, "threshold": told["threshold"]} | each for each in told["results"]
    ]


async def test_a_class_or_unknown_comes_for_each_row(client: AsyncClient) -> None:
    found = await client.recognize("sides", ROWS)
    assert (found.model, found.version, found.method, found.level, found.threshold) == ("sides", "1", "knn", 0.05, 0.95)
    left, strange, right = found.results
    assert (left.label, left.known, left.closed_set_label, left.reason, left.set) == ("left", True, "left", None, None)
    assert (left.score, left.threshold) == (pytest.approx(0.2), 0.95)
    assert [label for label, _ in left.candidates] == ["left", "middle", "right"]
    assert sum(probability for _, probability in left.candidates) == pytest.approx(1)
    assert (strange.label, strange.known, strange.closed_set_label) == (None, False, "right")
    assert (strange.reason, strange.p_value) == ("score", pytest.approx(0.03, abs=0.011))
    assert (right.label, right.reason) == ("right", None)


async def test_rows_have_thresholds_of_their_own_where_there_is_none_for_all(
    client: AsyncClient, tmp_path: Path, here: Here
) -> None:
    classes = {"left": HUNDREDTHS, "right": [each / 2 for each in HUNDREDTHS], "middle": HUNDREDTHS}
    put(tmp_path, document(methods={"knn": {"scores": HUNDREDTHS, "class_scores": classes}}))
    await here.http.post("/v1/calibrations:reload")
    found = await client.recognize("sides", [LEFT, RIGHT])
    assert found.threshold is None
    assert [row.threshold for row in found.results] == [0.95, 0.475]


@pytest.mark.parametrize(
    "rows",
    [
        {"x": ROWS},
        {"x": np.array(ROWS, np.float32)},
        np.array(ROWS, ">f4"),
        np.array(ROWS),
        np.array(ROWS).T.copy().T,
        [np.array(row) for row in ROWS],
    ],
    ids=[
        "named lists",
        "a named array",
        "another byte order",
        "an array",
        "an array in another order",
        "a list of arrays",
    ],
)
async def test_rows_may_be_lists_or_arrays_by_name_or_bare(client: AsyncClient, rows: Any) -> None:
    found = await client.recognize("sides", rows)
    assert [row.label for row in found.results] == ["left", None, "right"]


async def test_no_method_is_the_calibrations_and_there_are_no_more_candidates_than_classes(client: AsyncClient) -> None:
    found = await client.recognize("sides", ROWS, method="", top_k=1 << 40)
    assert (found.method, [len(row.candidates) for row in found.results]) == ("knn", [3, 3, 3])


async def test_what_a_newer_gateway_says_besides_does_no_harm(here: Here) -> None:
    told = (await here.http.post("/v1/models/sides:recognize", json={"instances": ROWS})).json()
    newer = told | {"more": 1, "results": [each | {"more": 2} for each in told["results"]]}
    assert read_recognized(newer) == read_recognized(told)


async def test_an_empty_set_is_none_only_where_it_was_not_asked_for(client: AsyncClient) -> None:
    without, of = [(await client.recognize("sides", [[0.5, 0.97]], level=0.9, sets=sets)) for sets in (False, True)]
    assert (without.results[0].set, of.results[0].set) == (None, ())


@pytest.mark.parametrize("name", FLAWS)
async def test_what_is_wrong_with_a_call_is_told(client: AsyncClient, name: str) -> None:
    given, kind, sentence = FLAWS[name]
    with pytest.raises(kind, match=sentence):
        await client.recognize(**{"model": "sides", "rows": ROWS} | given)
    assert [row.label for row in (await client.recognize("sides", ROWS)).results] == ["left", None, "right"]


async def test_a_refusal_has_its_code_and_details(client: AsyncClient) -> None:
    with pytest.raises(SluiceError) as refused:
        await client.recognize("sides", ROWS, level=0.001)
    assert (refused.value.code, refused.value.details) == ("bad_request", {"needed": 999, "rows": 99})
    with pytest.raises(SluiceError) as refused:
        await client.recognize("guard", ROWS)
    assert refused.value.code == "not_calibrated"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_refusal_for_the_moment_is_waited_for(here: Here, time: Time, transport: str) -> None:
    faults = [grpc.StatusCode.UNAVAILABLE]

    async def before(_: Any) -> grpc.StatusCode | None:
        return faults.pop() if faults else None

    here.puppet.before = before
    async with client_of(here, transport, time) as client:
        found = await client.recognize("sides", ROWS)
    assert [row.label for row in found.results] == ["left", None, "right"]
    assert time.slept == [1]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_call_has_a_time_limit_of_its_own(here: Here, time: Time, transport: str) -> None:
    gate = Gate(here.puppet)
    async with client_of(here, transport, time) as client:
        with pytest.raises((DeadlineExceeded, NoAnswer)):
            await client.recognize("sides", ROWS, timeout_s=0.05)
        gate.open()
        assert len((await client.recognize("sides", ROWS)).results) == len(ROWS)


def written(row: RecognizedRow) -> dict[str, Any]:
    """A row as JSON writes it."""
    return {
        "label": row.label, "known": row.known, "closed_set_label": row.closed_set_label, "score": row.score,
        "threshold": row.threshold, "p_value": row.p_value, "reason": row.reason,
        "candidates": [{"label": label, "probability": probability} for label, probability in row.candidates],
        "set": None if row.set is None else list(row.set),
    }  # fmt: skip
