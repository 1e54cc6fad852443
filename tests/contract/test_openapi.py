"""The OpenAPI page is kept: schemathesis asks as it says, and the answers are as it says."""

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks
from schemathesis.transport.serialization import Binary

from sluice.gateway.app import create_app
from sluice.gateway.settings import Settings
from sluice.policy.errors import SluiceError, error_classes
from sluice.wire.envelope import SavedState, seal
from tests.gateway.here import Here, running
from tests.gateway.puppet import FEATURES, Puppet
from tests.gateway.sides import document, put
from tests.size import size

HOT_PATHS = [
    "/v1/sessions/{session}:step",
    "/v1/sessions/{session}:scan",
    "/v1/models/{model}/sessions:step",
    "/v1/models/{model}:predict",
    "/v1/models/{model}:recognize",
    "/v1/models/{model}/labels/{label}:recognize",
    "/v1/models/{model}/versions/{version}:predict",
]
DOCUMENTED_FAULTS = {502, 503, 504}
SESSION = "station-7"
SAVED = seal(SavedState("sum", 1, 3, {"h": np.zeros(FEATURES, np.float32)}))
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """A gateway and its puppet in a thread with a loop of their own."""
    started, stop = threading.Event(), asyncio.Event()
    found: list[str] = []
    loop = asyncio.new_event_loop()

    async def serve(folder: Path) -> None:
        puppet = Puppet(folder)
        await puppet.start()
        put(folder, document())
        async with running(puppet, calibrations=folder) as here:
            await known(here)
            found.append(f"http://127.0.0.1:{here.port}")
            started.set()
            await stop.wait()
        await puppet.stop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(tmp_path_factory.mktemp("puppet"))))
    thread.start()
    assert started.wait(30)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """One for all requests: making a new one takes longer than a request."""
    with requests.Session() as session:
        yield session


async def known(here: Here) -> None:
    """Let the gateway know the models."""
    for model in ("sum", "plain", "sides"):
        await here.http.get(f"/v1/models/{model}/contract")


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Half of all calls are about what there is."""
    model = "sides" if "recogni" in context.operation.path or "calibration" in context.operation.path else "sum"
    there = {"model": model, "session": SESSION, "version": "1"}
    return {
        name: there[name] if name in there and isinstance(value, str) and sum(map(ord, value)) % 2 else value
        for name, value in (path_parameters or {}).items()
    }


def fitted(body, path):
    """Half of all bytes are a saved state, and half of all tensors and rows fit the models."""
    if isinstance(body, dict) and path.endswith(":recognize") and len(str(body)) % 2:
        return {**body, "instances": [[0.1, 0.2]]}
    if isinstance(body, dict) and path.endswith("/infer") and len(str(body)) % 2:
        return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    return Binary(SAVED) if isinstance(body, Binary) and sum(body.data) % 2 else body


PAGE = create_app(Settings(backend="nowhere:1")).openapi()
ALL = (each.ok() for each in schemathesis.openapi.from_dict(PAGE).get_all_operations())
LEFT_OUT = re.compile("/labels/|/evaluations")  # as versions, but for the name; what the evaluator answers
OPERATIONS = {each.label: each for each in ALL if not LEFT_OUT.search(each.label)}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as asked for", "otherwise"])
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_as_documented(label, mode, url, session):
    operation = OPERATIONS[label]
    met = set()

    @settings(
        max_examples=size(12, 200), derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        session.post(f"{url}/v1/models/sum/sessions", json={"session": SESSION})  # it may have been closed
        body = fitted(case.body, operation.path)
        if mode is GenerationMode.POSITIVE and body is not case.body:  # what is to be refused stays as it is
            case.body = body
        response = case.call(base_url=url, session=session)
        assert response.status_code < 500 or response.status_code in DOCUMENTED_FAULTS, response.text
        assert response.headers["x-request-id"]
        case.validate_response(response, checks=CHECKS)
        met.add(response.status_code)

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # nothing of it can be wrong
    if mode is GenerationMode.POSITIVE:
        assert len(met) > 1 or met <= {200}


@pytest.fixture(scope="module")
def page():
    return PAGE


@pytest.mark.parametrize("path", HOT_PATHS)
def test_every_hot_path_is_documented_with_schema_and_example(page, path):
    operation = page["paths"][path]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert operation["summary"] and operation["description"]
    jsonschema.validate(body["example"], body)
    jsonschema.validate(answer["example"], answer)
    assert {each["name"] for each in operation["parameters"] if each["in"] == "path"} == {
        part.split("}")[0] for part in path.split("{")[1:]
    }


@pytest.mark.parametrize("call", [":step", ":scan", "/sessions:step", ":predict", ":recognize", ":generate", "/infer"])
def test_deadline_priority_and_exact_batches_are_documented_where_batches_are_waited_for(page, call):
    operations = [operations["post"] for path, operations in page["paths"].items() if path.endswith(call)]
    assert operations
    of_its_own = set() if call == ":generate" else {"Sluice-Batch"}
    for operation in operations:
        headers = {each["name"] for each in operation["parameters"] if each["in"] == "header"}
        assert headers == {"Sluice-Timeout-Ms", "Sluice-Priority"} | of_its_own, operation["operationId"]


@pytest.mark.parametrize(("method", "path"), [("post", "/v1/models/{model}/sessions"), ("get", "/v2/models/{model}")])
def test_deadline_and_priority_are_documented_where_the_model_server_may_be_asked(page, method, path):
    headers = {each["name"] for each in page["paths"][path][method]["parameters"] if each["in"] == "header"}
    assert headers == {"Sluice-Timeout-Ms", "Sluice-Priority"}


def test_every_operation_says_what_it_does_and_has_a_name_of_its_own(page):
    operations = [operation for path in page["paths"].values() for operation in path.values()]
    assert all(operation.get("summary") and operation.get("description") for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)


def test_every_operation_is_called_by_words_of_its_own_under_a_part_that_is_described(page):
    operations = [operation for path in page["paths"].values() for operation in path.values()]
    summaries = [operation["summary"] for operation in operations]
    assert len(set(summaries)) == len(summaries)
    assert not [each for each in operations if each["summary"].lower().replace(" ", "_") == each["operationId"]]
    described = {each["name"] for each in page["tags"] if each["description"]}
    assert {tag for operation in operations for tag in operation["tags"]} == described


def test_calls_of_a_version_and_by_a_label_are_folded_into_one_part_of_the_page(page):
    for path, operations in page["paths"].items():
        for operation in operations.values():
            folded = "{version}" in path or "{label}" in path
            assert (operation["tags"] == ["by version or label"]) == folded, path


def test_the_page_names_the_websocket_and_the_guide(page):
    said = page["info"]["description"] + "".join(each["description"] for each in page["tags"])
    assert "WebSocket, `/v1/sessions/{session}/stream`" in said
    named = set(re.findall(r"docs/[\w-]+\.md", said))
    assert {"docs/tour.md", "docs/clients.md", "docs/sessions.md"} <= named
    assert all(Path(each).is_file() for each in named)


@pytest.mark.parametrize("error", sorted({each.code for each in error_classes(SluiceError)}))
def test_every_error_code_is_documented_with_its_status(page, error):
    statuses = {each.http_status for each in error_classes(SluiceError) if each.code == error}
    for path in page["paths"].values():
        for operation in path.values():
            assert (
                any(
                    error in operation["responses"].get(str(status), {}).get("description", "").split(", ")
                    for status in statuses
                )
                or "ready" in operation["operationId"]
            ), operation["operationId"]


def test_errors_of_tensorflow_servings_paths_are_documented_as_its_own(page):
    for path, operations in page["paths"].items():
        for operation in operations.values():
            error = operation["responses"]["404"]["content"]["application/json"]["schema"]
            ours = (
                "/sessions" in path
                or not path.startswith(("/v1/models/", "/v2"))
                or path.endswith(("/contract", "/buckets", "/calibration", ":generate", ":recognize"))
            )
            assert ("$ref" in error) == ours, path
