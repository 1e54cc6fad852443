"""Writes the hot paths into the OpenAPI page: they are answered ahead of FastAPI, which does not see them itself."""

from typing import Any

from fastapi import FastAPI

from services.gateway.rest import ErrorInfo
from services.policy.errors import SluiceError, error_classes

_ERROR = {"$ref": "#/components/schemas/ErrorInfo"}
_TF_SERVING_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
    "additionalProperties": False,
}
_ROW = {
    "description": "A row for each input by name, without a batch axis; or the row itself where there is one input."
}
_NUMBER = {
    "type": "integer",
    "minimum": 0,
    "description": "Time steps done so far. Given, the call runs exactly once: a repeat gets the same answer again.",
}
_WANTED = {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "Outputs wanted; all if absent."}


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` include the hot paths and the errors every call can give."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            schema["components"]["schemas"]["ErrorInfo"] = ErrorInfo.model_json_schema()
            schema["paths"].update(_hot_paths())
            for path in schema["paths"].values():
                for operation in path.values():
                    _add_errors(operation)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_errors(operation: dict[str, Any]) -> None:
    schema = _TF_SERVING_ERROR if operation["operationId"].startswith("predict") else _ERROR
    operation["responses"].pop("422", None)  # FastAPI's own form of a bad request; ours is 400
    for status, codes in _codes_by_status().items():
        operation["responses"].setdefault(
            str(status),
            {"description": ", ".join(codes), "content": {"application/json": {"schema": schema}}},
        )


def _codes_by_status() -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for error in error_classes(SluiceError):
        found.setdefault(error.http_status, []).append(error.code)
    return {status: sorted(set(codes)) for status, codes in sorted(found.items())}


def _hot_paths() -> dict[str, Any]:
    session = _path("session", "The session's id.", "station-7", pattern="^[A-Za-z0-9._~-]{1,128}$")
    model = _path("model", "The model's name.", "temperature", pattern="^[^/:]+$")
    version = _path("version", "The model's version.", "1", pattern="^[0-9]{1,18}$")
    return {
        "/v1/sessions/{session}:step": {"post": _step(session)},
        "/v1/sessions/{session}:scan": {"post": _scan(session)},
        "/v1/models/{model}/sessions:step": {"post": _step_many(model)},
        "/v1/models/{model}:predict": {"post": _predict([model], "")},
        "/v1/models/{model}/versions/{version}:predict": {"post": _predict([model, version], "_version")},
    }


def _path(name: str, description: str, example: str, **schema: str) -> dict[str, Any]:
    return {
        "name": name, "in": "path", "required": True, "description": description, "example": example,
        "schema": {"type": "string", **schema},
    }  # fmt: skip


_TIMEOUT = {
    "name": "Sluice-Timeout-Ms", "in": "header", "required": False,
    "description": "Whole milliseconds from arrival; the answer is 504 after it.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}  # fmt: skip


def _step(session: dict[str, Any]) -> dict[str, Any]:
    return _operation(
        "step_session", "Step", "sessions", "Run one time step of a session and get the model's outputs for it.",
        [session, _TIMEOUT],
        _object({"inputs": _ROW, "step": _NUMBER, "outputs": _WANTED}, ["inputs"], {"inputs": [26.1], "step": 0}),
        _answer({"outputs": {"forecast": [25.8]}, "step": 1}),
    )  # fmt: skip


def _scan(session: dict[str, Any]) -> dict[str, Any]:
    chunk = {"description": "A chunk [time, ...] for each input by name; or the chunk itself where there is one input."}
    return _operation(
        "scan_session", "Scan", "sessions", "Run a chunk of time steps of a session in one call.",
        [session, _TIMEOUT],
        _object({"inputs": chunk, "step": _NUMBER, "outputs": _WANTED}, ["inputs"], {"inputs": [[26.1], [25.8]]}),
        _answer({"outputs": {"forecast": [[25.8], [25.1]]}, "step": 2}),
    )  # fmt: skip


def _step_many(model: dict[str, Any]) -> dict[str, Any]:
    ids = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
    numbers = {"type": "array", "items": {**_NUMBER, "type": ["integer", "null"]}, "description": "By session."}
    rows = {"description": "Rows [sessions, ...] for each input by name; or the rows themselves if there is one input."}
    by_session = {"type": "array", "description": "By session, in the order of the request."}
    refused = {"error": "There is no session 'station-8'. …", "code": "session_not_found"}
    return _operation(
        "step_sessions", "Step many", "sessions",
        "Run one time step of many sessions of a model in one call. A session that cannot be stepped has `null` and an "
        "error; the others are answered.",
        [model, _TIMEOUT],
        _object(
            {"sessions": ids, "inputs": rows, "steps": numbers, "outputs": _WANTED}, ["sessions", "inputs"],
            {"sessions": ["station-7", "station-8"], "inputs": [[26.1], [25.8]], "steps": [0, None]},
        ),
        _object(
            {
                "outputs": {"type": "object", "additionalProperties": by_session},
                "steps": {**by_session, "items": {"type": ["integer", "null"]}},
                "errors": {**by_session, "items": {"anyOf": [ErrorInfo.model_json_schema(), {"type": "null"}]}},
            },
            ["outputs", "steps", "errors"],
            {"outputs": {"forecast": [[25.8], None]}, "steps": [1, None], "errors": [None, refused]},
        ),
    )  # fmt: skip


def _predict(parameters: list[dict[str, Any]], suffix: str) -> dict[str, Any]:
    fields = {
        "signature_name": {"type": "string", "description": "Without it: serving_default."},
        "instances": {"type": "array", "description": "Rows: one value, or one object by input name, each."},
        "inputs": {"description": "Columns: input name → all rows; or the rows themselves where there is one input."},
    }
    answer = {
        "type": "object",
        "properties": {"predictions": {"type": "array"}, "outputs": {}},
        "example": {"predictions": [[[25.8], [25.1]]]},
    }
    return _operation(
        f"predict{suffix}", "Predict", "models",
        "TensorFlow Serving's predict, batched with other clients' rows. Errors are `{\"error\": sentence}` alone; the "
        "code is in the header `Sluice-Code`.",
        [*parameters, _TIMEOUT], _object(fields, [], {"instances": [[[26.1], [25.8]]]}), answer,
    )  # fmt: skip


def _object(properties: dict[str, Any], required: list[str], example: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": required, "additionalProperties": False,
        "example": example,
    }  # fmt: skip


def _answer(example: dict[str, Any]) -> dict[str, Any]:
    return _object({"outputs": {"type": "object"}, "step": {"type": "integer"}}, ["outputs", "step"], example)


def _operation(
    id: str, summary: str, tag: str, description: str,
    parameters: list[dict[str, Any]], body: dict[str, Any], answer: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    return {
        "operationId": id, "summary": summary, "tags": [tag], "description": description, "parameters": parameters,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}}},
    }  # fmt: skip
