"""Writes the hot paths into the OpenAPI page: they are answered ahead of FastAPI, which does not see them itself."""

from typing import Any, get_args

from fastapi import FastAPI

from sluice.gateway.http.body import VERSION
from sluice.gateway.http.rest import BATCH, PRIORITY, TIMEOUT, ErrorInfo
from sluice.policy.errors import SluiceError, error_classes
from sluice.policy.recognition import Reason

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
_ERRORS = 'Errors are `{"error": sentence}` alone; the code is in the header `Sluice-Code`.'
_CLASSES = [["sunny", 0.9], ["cloudy", 0.1]]
_STATUS = {
    "model_version_status": [
        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}
_METADATA = {
    "model_spec": {"name": "temperature", "signature_name": "", "version": "1"},
    "metadata": {"signature_def": {"signature_def": {}}},
}
_WANTED = {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "Outputs wanted; all if absent."}
_FIRST = "/v1/models/{model}/sessions"
FOLDED = "by version or label"
_FOLDED = {"/versions/{version}": ", of a version", "/labels/{label}": ", by a label"}
TAGS = [
    {
        "name": "sessions",
        "description": "One client's recurrent state on one model version: open, step, close (docs/sessions.md). Many "
        "steps of one session go over a WebSocket, `/v1/sessions/{session}/stream`: each message is a body of `:step`, "
        "and each reply its answer.",
    },
    {"name": "models", "description": "Rows and sequences without a session, and what is served (docs/sequences.md)."},
    {"name": "recognition", "description": "A class, or *unknown* (docs/recognition.md)."},
    {"name": "generation", "description": "Texts and other sequences, token by token (docs/generation.md)."},
    {
        "name": "open inference protocol",
        "description": "For clients of Triton and KServe as they are (docs/open-inference-protocol.md).",
    },
    {
        "name": "evaluations",
        "description": "A model measured on a data set, through this gateway. A process of its own answers, the "
        "evaluator, whose page says what bodies hold.",
    },
    {"name": "operation", "description": "Health, readiness, metrics (docs/operations.md)."},
    {
        "name": FOLDED,
        "description": "The same calls, of another version than the newest: by its number, or by a label that it has.",
    },
]


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` include the hot paths and the errors every call can give."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            schema["components"]["schemas"]["ErrorInfo"] = ErrorInfo.model_json_schema()
            paths = schema["paths"]
            schema["paths"] = {_FIRST: paths.pop(_FIRST), **_hot_paths(), **paths, **_evaluations()}
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    _add_errors(operation)
                    _fold(path, operation)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _fold(path: str, operation: dict[str, Any]) -> None:
    """A call that names a version or a label is like the one without: such calls have their own part of the page."""
    for where, which in _FOLDED.items():
        if where in path:
            operation["tags"] = [FOLDED]
            operation["summary"] += which


def _add_errors(operation: dict[str, Any]) -> None:
    theirs = operation["operationId"].startswith(("tf_serving_", "oip_"))  # protocols of other servers
    schema = _TF_SERVING_ERROR if theirs else _ERROR
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
    return {
        "/v1/sessions/{session}:step": {"post": _step(session)},
        "/v1/sessions/{session}:scan": {"post": _scan(session)},
        "/v1/models/{model}/sessions:step": {"post": _step_many(model)},
        "/v2/models/{model}/infer": {"post": _infer([model], "")},
        "/v2/models/{model}/versions/{version}/infer": {"post": _infer([model, _VERSION], "_version")},
        **_of_models(model),
    }


def _of_models(model: dict[str, Any]) -> dict[str, Any]:
    """Recognize, and TensorFlow Serving's calls: of the newest version, of one by its number, and by its label."""
    label = _path("label", "A label of the model's version.", "stable")
    paths: dict[str, Any] = {}
    for where, parameters, suffix in (
        ("", [model], ""),
        ("/versions/{version}", [model, _VERSION], "_version"),
        ("/labels/{label}", [model, label], "_label"),
    ):
        path = f"/v1/models/{{model}}{where}"
        paths |= {
            f"{path}:recognize": {"post": _recognize(parameters, suffix)},
            f"{path}:predict": {"post": _predict(parameters, suffix)},
            f"{path}:classify": {"post": _examples("classify", parameters, suffix, _CLASSES)},
            f"{path}:regress": {"post": _examples("regress", parameters, suffix, [25.8])},
            path: {"get": _about("status", parameters, suffix, _STATUS)},
            f"{path}/metadata": {"get": _about("metadata", parameters, suffix, _METADATA)},
        }
    return paths


def _path(name: str, description: str, example: str, **schema: str) -> dict[str, Any]:
    return {
        "name": name, "in": "path", "required": True, "description": description, "example": example,
        "schema": {"type": "string", **schema},
    }  # fmt: skip


def _header(header: Any) -> dict[str, Any]:
    return {
        "name": header.alias, "in": "header", "required": False, "description": header.description,
        "schema": header.json_schema_extra,
    }  # fmt: skip


_TIMEOUT, _PRIORITY, _BATCH = _header(TIMEOUT), _header(PRIORITY), _header(BATCH)
_VERSION = _path("version", "The model's version.", "1", pattern=VERSION)


def _step(session: dict[str, Any]) -> dict[str, Any]:
    return _operation(
        "step_session", "Run one time step", "sessions",
        "Run one time step of a session and get the model's outputs for it.",
        [session, _TIMEOUT, _PRIORITY, _BATCH],
        _object({"inputs": _ROW, "step": _NUMBER, "outputs": _WANTED}, ["inputs"], {"inputs": [26.1], "step": 0}),
        _answer({"outputs": {"forecast": [25.8]}, "step": 1}),
    )  # fmt: skip


def _scan(session: dict[str, Any]) -> dict[str, Any]:
    chunk = {"description": "A chunk [time, ...] for each input by name; or the chunk itself where there is one input."}
    return _operation(
        "scan_session", "Run several time steps", "sessions", "Run a chunk of time steps of a session in one call.",
        [session, _TIMEOUT, _PRIORITY, _BATCH],
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
        "step_sessions", "Run one time step of many sessions", "sessions",
        "Run one time step of many sessions of a model in one call. A session that cannot be stepped has `null` and an "
        "error; the others are answered.",
        [model, _TIMEOUT, _PRIORITY, _BATCH],
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
        f"tf_serving_predict{suffix}", "Run rows or sequences through a model", "models",
        f"TensorFlow Serving's predict, batched with other clients' rows. {_ERRORS} With `Accept: text/event-stream` "
        "the parts of an answer come as events, for models whose sequences can run in chunks.",
        [*parameters, _TIMEOUT, _PRIORITY, _BATCH], _object(fields, [], {"instances": [[[26.1], [25.8]]]}), answer,
    )  # fmt: skip


def _recognize(parameters: list[dict[str, Any]], suffix: str) -> dict[str, Any]:
    fields = {
        "instances": {"type": "array", "description": "Rows: one value, or one object by input name, each."},
        "method": {
            "type": ["string", "null"],
            "description": "One of the calibration's, or two that must agree: `knn+energy`.",
        },
        "level": {
            "type": ["number", "null"], "exclusiveMinimum": 0, "exclusiveMaximum": 1,
            "description": "The share of known rows that may be called unknown.",
        },
        "top_k": {"type": ["integer", "null"], "minimum": 1, "default": 3, "description": "Candidates of each row."},
        "sets": {"type": ["boolean", "null"], "default": False, "description": "Answer with prediction sets, too."},
    }  # fmt: skip
    candidate = {
        "type": "object", "required": ["label", "probability"],
        "properties": {"label": {"type": "string"}, "probability": {"type": "number"}},
    }  # fmt: skip
    result = {
        "type": "object",
        "required": ["label", "known", "closed_set_label", "score", "p_value", "reason", "candidates"],
        "properties": {
            "label": {"type": ["string", "null"], "description": "null: unknown."},
            "known": {"type": "boolean"},
            "closed_set_label": {"type": "string", "description": "The class that the model would have to answer."},
            "score": {"type": "number", "description": "Larger is stranger."},
            "threshold": {"type": "number", "description": "Of this row, where the rows do not share one."},
            "p_value": {"type": ["number", "null"]},
            "reason": {"enum": [None, *get_args(Reason)], "description": "Why it is unknown."},
            "candidates": {"type": "array", "items": candidate},
            "set": {"type": "array", "items": {"type": "string"}},
        },
        "additionalProperties": False,
    }
    three = {
        "label": "3", "known": True, "closed_set_label": "3", "score": 0.12, "p_value": 0.61, "reason": None,
        "candidates": [{"label": "3", "probability": 0.97}, {"label": "5", "probability": 0.02}],
    }  # fmt: skip
    eight = {
        "label": None, "known": False, "closed_set_label": "3", "score": 0.74, "p_value": 0.003, "reason": "score",
        "candidates": [{"label": "3", "probability": 0.88}, {"label": "2", "probability": 0.07}],
    }  # fmt: skip
    answer = {
        "model": {"type": "string"}, "version": {"type": "string"}, "method": {"type": "string"},
        "level": {"type": "number"},
        "threshold": {"type": ["number", "null"], "description": "null: each row has its own."},
        "results": {"type": "array", "items": result},
    }  # fmt: skip
    example = {
        "model": "digits", "version": "1", "method": "knn", "level": 0.05, "threshold": 0.31, "results": [three, eight]
    }  # fmt: skip
    return _operation(
        f"recognize{suffix}", "Name rows, or call them unknown", "recognition",
        "Answer each row with one of the model's classes or with *unknown*, which is an answer and no error. The "
        "threshold is that of the model's calibration: known rows are called unknown with a probability of `level` "
        "at most.",
        [*parameters, _TIMEOUT, _PRIORITY, _BATCH],
        _object(fields, ["instances"], {"instances": [[0.0, 0.5], [0.9, 0.1]], "method": "knn", "level": 0.05}),
        _object(answer, list(answer), example),
    )  # fmt: skip


def _infer(parameters: list[dict[str, Any]], suffix: str) -> dict[str, Any]:
    tensor = {"type": "object", "required": ["name", "datatype", "shape"]}
    fields = {
        "id": {"type": "string", "description": "Comes back with the answer."},
        "parameters": {
            "type": "object",
            "description": "sequence_id, sequence_start, sequence_end: the sequence that the request belongs to. "
            "timeout: microseconds. signature_name: instead of serving_default. binary_data_output: answers as bytes.",
        },
        "inputs": {"type": "array", "items": tensor, "description": "Each with data, or with bytes after the JSON."},
        "outputs": {"type": "array", "items": {"type": "object"}, "description": "Outputs wanted; all if absent."},
    }
    given = {"name": "inputs", "datatype": "FP32", "shape": [1, 2, 1], "data": [26.1, 25.8]}
    gotten = {"name": "forecast", "datatype": "FP32", "shape": [1, 2, 1], "data": [25.8, 25.1]}
    return _operation(
        f"oip_infer{suffix}", "Run rows, or a sequence's next step", "open inference protocol",
        "The Open Inference Protocol's infer, batched with other clients' rows; or a sequence's next request, which is "
        f"a step of the session of that name. {_ERRORS}",
        [*parameters, _TIMEOUT, _PRIORITY, _BATCH],
        {**_object(fields, ["inputs"], {"inputs": [given]}), "additionalProperties": True},
        {
            "type": "object", "required": ["model_name", "model_version", "outputs"],
            "example": {"model_name": "temperature", "model_version": "1", "outputs": [gotten]},
        },
    )  # fmt: skip


def _examples(call: str, parameters: list[dict[str, Any]], suffix: str, result: Any) -> dict[str, Any]:
    example = {"type": "object", "description": 'A tf.Example: feature → value, list of values, or {"b64": text}.'}
    fields = {
        "signature_name": {"type": "string", "description": "Without it: serving_default."},
        "context": {**example, "description": "Features that all examples share."},
        "examples": {"type": "array", "items": example},
    }
    return _operation(
        f"tf_serving_{call}{suffix}", f"{call.capitalize()} tf.Examples", "models",
        f"TensorFlow Serving's {call}, passed on. {_ERRORS}",
        [*parameters, _TIMEOUT], _object(fields, ["examples"], {"examples": [{"age": 32.5}]}),
        {"type": "object", "properties": {"results": {"type": "array"}}, "example": {"results": [result]}},
    )  # fmt: skip


_ABOUT = {"status": "Show which versions of a model are served", "metadata": "Show a model's signatures"}


def _about(call: str, parameters: list[dict[str, Any]], suffix: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": f"tf_serving_{call}{suffix}", "summary": _ABOUT[call], "tags": ["models"],
        "description": f"TensorFlow Serving's {call} of a model. {_ERRORS}", "parameters": [*parameters, _TIMEOUT],
        "responses": _responses({"type": "object", "example": answer}),
    }  # fmt: skip


# Method, what follows /v1/evaluations, name, summary, and a sentence.
_EVALUATIONS = (
    ("post", "", "begin_evaluation", "Begin an evaluation", "Measure a model on a data set; the answer has its id."),
    ("get", "", "list_evaluations", "List the evaluations", "All that are known, the newest first."),
    ("post", "/uploads", "upload_data", "Upload a data set", "A file, as a form or as the body."),
    ("get", "/{evaluation}", "get_evaluation", "Look at an evaluation", "How far it is, and at last its metrics."),
    ("delete", "/{evaluation}", "delete_evaluation", "Delete an evaluation", "With its report and its upload."),
    ("post", "/{evaluation}:cancel", "cancel_evaluation", "Cancel an evaluation", "It stops where it is."),
    ("post", "/{evaluation}:resume", "resume_evaluation", "Resume an evaluation", "It goes on where it was."),
    ("get", "/{evaluation}/events", "watch_evaluation", "Watch an evaluation", "Its progress, as server-sent events."),
    ("get", "/{evaluation}/report", "get_report", "Read an evaluation's report", "As JSON, Markdown or a page."),
)


def _evaluations() -> dict[str, Any]:
    """The evaluator's paths by name: what their bodies hold it says itself."""
    one, paths = [_path("evaluation", "The evaluation's id.", "e-1", pattern="^[^/:]+$")], dict[str, Any]()
    for method, path, name, summary, sentence in _EVALUATIONS:
        paths.setdefault(f"/v1/evaluations{path}", {})[method] = {
            "operationId": name, "summary": summary, "tags": ["evaluations"], "description": sentence,
            "parameters": [*(one if "{" in path else []), _TIMEOUT],
            "responses": {"2XX": {"description": "The evaluator's answer."}},
        }  # fmt: skip
    return paths


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
        "responses": _responses(answer),
    }  # fmt: skip


def _responses(answer: dict[str, Any]) -> dict[str, Any]:
    return {"200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}}}
