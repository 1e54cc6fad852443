"""The hot calls of HTTP, from a body to an answer, without a framework: steps, scans, TensorFlow Serving's calls.

It knows paths, headers and JSON; what a call means is the gateway's, and bytes on a connection are the protocol's.
"""

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools
import orjson
import structlog

from services.gateway.answers import as_tf_serving, error_body, error_headers, many_body, step_body
from services.gateway.gateway import Gateway
from services.gateway.inference import Inference
from services.gateway.metrics import Metrics
from services.gateway.predict import Outcome, Predict, Terms
from services.gateway.tf_serving import FORWARDED
from services.policy.batch import PRIORITIES
from services.policy.columnar import Columns
from services.policy.contract import Signature
from services.policy.errors import BadRequest, DtypeMismatch, Internal, MissingInput, SluiceError
from services.policy.session import Answers
from services.wire.content import inflate
from services.wire.oip import InferRequest, encode_infer, parse_infer
from services.wire.rest import PredictBody, encode_predict, mixes_words, parse_json, parse_predict
from services.wire.rest_paths import rest_call

log = structlog.get_logger()

Header = tuple[bytes, bytes]

_SESSION_CALL = re.compile(r"/v1/sessions/([A-Za-z0-9._~-]{1,128}):(step|scan)")
_MANY_CALL = re.compile(r"/v1/models/([^/:]+)/sessions:step")
_INFER_CALL = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]{1,18}))?/infer")
_EVENTS = b"text/event-stream"
_INFERENCE_HEADER = b"inference-header-content-length"
_STEP_FIELDS = {"inputs", "step", "outputs"}
_MANY_FIELDS = {"sessions", "inputs", "steps", "outputs"}
_LARGE_BODY = 64 * 1024  # bytes whose parsing other clients would notice
_TIMEOUT_DIGITS = 9
_REQUEST_ID_LIMIT = 128
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
BUG = "Something went wrong inside the gateway; it has been logged with the request id."


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names: `call` is step, scan, step_many or TensorFlow Serving's; `name` a session's id or a model."""

    call: str
    name: str
    version: int | None = None
    label: str | None = None
    tf_serving: bool = False  # and its method is the right one

    @property
    def session(self) -> str | None:
        return self.name if self.call in ("step", "scan") else None


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    headers: tuple[Header, ...] = ()
    content_type: bytes = b"application/json"


Done = Callable[[Reply], None]


def wants_events(target: Target, headers: Iterable[Header]) -> bool:
    """Whether the answer of a predict call is to be a stream of events, which is no hot call."""
    return target.call == "predict" and any(name == b"accept" and _EVENTS in value.lower() for name, value in headers)


def target_of(method: bytes, url: bytes) -> Target | None:
    """The hot call that a request's method and target name, if they do."""
    raw, query = _split(url)
    path = unquote(raw) if "%" in raw else raw
    if found := _SESSION_CALL.fullmatch(path):
        return Target(found[2], found[1])
    if found := _MANY_CALL.fullmatch(path):
        return Target("step_many", found[1])
    if found := _INFER_CALL.fullmatch(path):
        return Target("infer", found[1], int(found[2]) if found[2] else None)
    try:
        call = rest_call(method.decode(), raw + query)
    except BadRequest:  # another path's, or nobody's
        return None
    return Target(call.verb, call.model, call.version, call.label, tf_serving=True) if call else None


def _split(url: bytes) -> tuple[str, str]:
    """The path of a request's target as it was sent, and the rest with its question mark."""
    if not url.startswith(b"/"):
        parsed = httptools.parse_url(url)
        return (parsed.path or b"").decode("latin-1"), f"?{parsed.query.decode('latin-1')}" if parsed.query else ""
    path, mark, query = url.decode("latin-1").partition("?")
    return path, mark + query


class Said(NamedTuple):
    """What a request's headers say of how it is carried out, and its body's encoding."""

    timeout_ms: int | None = None
    encoding: str = ""
    handicap_s: float = PRIORITIES["normal"]


class MethodNotAllowed(BadRequest):
    """These paths take POST only."""

    http_status = 405


class RequestIds:
    """Ids for requests that bring none: short, and different from another process's."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._count = count(1)

    def __call__(self, headers: Iterable[Header]) -> bytes:
        """The request's own `X-Request-Id`, cut off where it is too long, or a new one."""
        for name, value in headers:
            if name == b"x-request-id" and not _CONTROL.search(value):
                return bytes(value[:_REQUEST_ID_LIMIT])
        return f"{self._prefix}-{next(self._count):x}".encode()


class Calls:
    """Begins hot calls; each is answered exactly once through its `done`, unless it is cancelled before."""

    gateway: Gateway  # from `open` on, as is `inference`
    inference: Inference

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tasks: set[asyncio.Task[bytes]] = set()

    def open(self, gateway: Gateway) -> Inference:
        """From now on calls are `gateway`'s."""
        self.gateway, self.inference = gateway, Inference(gateway)
        return self.inference

    @property
    def body_limit(self) -> int:
        return self.gateway.settings.body_bytes

    def begin(self, target: Target, headers: list[Header], body: bytes, done: Done) -> Callable[[], None]:
        """Begin a call; what it returns cancels it. `done` is called from the loop, never from within this call."""
        gateway = self.gateway
        arrived_at = gateway.now()
        try:
            said = read_headers(headers, target)
            body = inflate(body, said.encoding, self.body_limit)
            terms = Terms(gateway.deadline(said.timeout_ms, arrived_at), said.handicap_s)
            if target.call == "infer":
                return self._begin_infer(target, headers, body, terms, done)
            return self._begin(gateway, target, body, terms, done)
        except SluiceError as error:
            refused = error
        except Exception:
            log.exception("request failed", call=target.call)
            refused = Internal(BUG)
        return self.refuse(target, refused, done)

    def refuse(self, target: Target, error: SluiceError, done: Done) -> Callable[[], None]:
        """Answer a call with an error, soon; what it returns cancels that."""
        return asyncio.get_running_loop().call_soon(done, self.refusal(target, error)).cancel

    def refusal(self, target: Target, error: SluiceError) -> Reply:
        """The answer to a call that failed, which is counted."""
        body: dict[str, Any] = error_body(error)
        status, code = error.http_status, error.code
        if target.tf_serving:
            status, code, sentence = as_tf_serving(error)
            body = {"error": sentence}
        elif target.call == "infer":
            body = {"error": error.message}
        self._count(target, code)
        headers = {name.lower().encode(): value.encode() for name, value in error_headers(error).items()}
        headers[b"sluice-code"] = code.encode()
        if isinstance(error, MethodNotAllowed):
            headers[b"allow"] = b"POST"
        return Reply(status, orjson.dumps(body), tuple(headers.items()))

    def gone(self, target: Target) -> None:
        """The client has left before it was answered."""
        self._count(target, "client_gone")

    def _begin(self, gateway: Gateway, target: Target, body: bytes, terms: Terms, done: Done) -> Callable[[], None]:
        if target.call == "predict":
            return self._begin_predict(gateway, target, body, terms, done)
        if target.tf_serving:
            return self._in_task(target, FORWARDED[target.call](gateway, target, body, terms.deadline), done)
        if target.call == "step_many":
            return self._begin_many(gateway, target, body, terms, done)
        if len(body) > _LARGE_BODY:
            gateway.session(target.name)  # before it is parsed for nothing
        inputs, number, wanted = read_step(body)
        begin = gateway.step if target.call == "step" else gateway.scan
        step = begin(target.name, inputs, number, wanted, terms.deadline)
        step.handicap_s = terms.handicap_s
        gateway.engine.submit(step, partial(self._answer_step, target, wanted, done))
        return partial(gateway.engine.cancel, step)

    def _begin_predict(
        self, gateway: Gateway, target: Target, body: bytes, terms: Terms, done: Done
    ) -> Callable[[], None]:
        asked = parse_predict(body)
        predict = Predict(
            target.name, asked.signature_name, partial(read_rows, asked), target.version, target.label,
            handicap_s=terms.handicap_s,
        )  # fmt: skip
        answer = partial(self._answer_predict, target, asked.row_format, done)
        return gateway.predictions.begin(predict, terms.deadline, answer)

    def _begin_infer(
        self, target: Target, headers: list[Header], body: bytes, terms: Terms, done: Done
    ) -> Callable[[], None]:
        asked = parse_infer(body, _header_length(headers))
        answer = partial(self._answer_infer, target, asked, done)
        return self.inference.begin(target.name, target.version, asked, terms, answer)

    def _answer_infer(self, target: Target, asked: InferRequest, done: Done, outcome: Outcome) -> None:
        if not isinstance(outcome, SluiceError):
            try:
                body, head = encode_infer(asked, target.name, outcome.version, outcome.arrays)
            except SluiceError as error:
                outcome = error
        if isinstance(outcome, SluiceError):
            done(self.refusal(target, outcome))
            return
        self._count(target, "ok")
        if head is None:
            done(Reply(200, body))
        else:
            done(Reply(200, body, ((_INFERENCE_HEADER, b"%d" % head),), b"application/octet-stream"))

    def _answer_predict(self, target: Target, row_format: bool, done: Done, outcome: Outcome) -> None:
        if not isinstance(outcome, SluiceError):
            try:
                body = encode_predict(outcome.outputs, row_format=row_format)
            except SluiceError as error:
                outcome = error
        if isinstance(outcome, SluiceError):
            done(self.refusal(target, outcome))
            return
        self._count(target, "ok")
        done(Reply(200, body))

    def _begin_many(
        self, gateway: Gateway, target: Target, body: bytes, terms: Terms, done: Done
    ) -> Callable[[], None]:
        ids, inputs, numbers, wanted = read_many(body)
        columns = gateway.step_many(target.name, ids, inputs, numbers, wanted, terms.deadline)
        steps = [step for _, step in columns.steps]
        for step in steps:
            step.handicap_s = terms.handicap_s
        return gateway.engine.submit_all(steps, partial(self._answer_many, target, columns, wanted, done))

    def _answer_step(
        self, target: Target, wanted: list[str] | None, done: Done, outcome: Answers | SluiceError
    ) -> None:
        if isinstance(outcome, SluiceError):
            done(self.refusal(target, outcome))
            return
        self._count(target, "ok")
        headers = ((b"sluice-replayed", b"true"),) if outcome.replayed else ()
        done(Reply(200, step_body(outcome, wanted), headers))

    def _answer_many(
        self, target: Target, columns: Columns, wanted: list[str] | None, done: Done, outcomes: list[Any]
    ) -> None:
        try:
            answers = columns.joined(outcomes)
        except SluiceError as error:
            done(self.refusal(target, error))
            return
        self._count(target, "ok")
        done(Reply(200, many_body(answers, wanted)))

    def _in_task(self, target: Target, work: Any, done: Done) -> Callable[[], None]:
        """For calls that may have to wait for more than a batch."""

        def ended(task: "asyncio.Task[bytes]") -> None:
            self._tasks.discard(task)
            if task.cancelled():
                return
            error = task.exception()
            if isinstance(error, SluiceError):
                done(self.refusal(target, error))
            elif error is not None:
                log.error("request failed", call=target.call, exc_info=error)
                done(self.refusal(target, Internal(BUG)))
            else:
                self._count(target, "ok")
                done(Reply(200, task.result()))

        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

        def cancel() -> None:
            task.cancel()

        return cancel

    def _count(self, target: Target, outcome: str) -> None:
        self._metrics.request(target.call, self.gateway.model_of(target.call, target.name), outcome)


def read_rows(asked: PredictBody, signature: Signature, limit: int) -> Mapping[str, Any]:
    """What a predict request gives a signature, for `Predict.read`."""
    if signature.kind == "sequences":
        return asked.rows(signature.inputs, limit)
    return asked.tensors(signature.inputs, any_shape=True)


def read_headers(headers: list[Header], target: Target) -> Said:
    """What the headers say.

    Raises:
        BadRequest: one cannot be read, or names another session than the path.
    """
    timeout_ms, encoding, handicap_s = Said()
    for name, value in headers:
        if name == b"sluice-timeout-ms":
            timeout_ms = read_timeout(value)
        elif name == b"sluice-priority":
            handicap_s = read_priority(value.decode("latin-1"))
        elif name == b"sluice-session" and target.session is not None:
            check_session_header(value.decode("latin-1"), target.session)
        elif name == b"content-encoding":
            encoding = value.decode("latin-1")
    return Said(timeout_ms, encoding, handicap_s)


def read_priority(text: str) -> float:
    """`Sluice-Priority`, as `Ticket.handicap_s`."""
    if text not in PRIORITIES:
        raise BadRequest(f"Sluice-Priority is one of {', '.join(PRIORITIES)}; got {text!r:.80}.")
    return PRIORITIES[text]


def read_timeout(value: bytes) -> int:
    """`Sluice-Timeout-Ms`: whole milliseconds, more than 0."""
    if not value.isdigit() or len(value) > _TIMEOUT_DIGITS or int(value) == 0:
        raise BadRequest(
            f"Sluice-Timeout-Ms takes whole milliseconds, more than 0; got {value.decode('latin-1')!r:.80}."
        )
    return int(value)


def check_session_header(header: str | None, id: str) -> None:
    if header is not None and header != id:
        raise BadRequest(f"The header Sluice-Session must name the session of the path, {id!r}; it names {header!r}.")


def read_step(body: bytes) -> tuple[Any, int | None, list[str] | None]:
    """The fields of a step or scan: inputs, number, names of the outputs wanted.

    Raises:
        BadRequest, MissingInput, DtypeMismatch: what is wrong with the body.
    """
    fields = _fields(body, _STEP_FIELDS, "A step has inputs, step and outputs.")
    return fields["inputs"], _number(fields.get("step")), _wanted(fields.get("outputs"))


def read_many(body: bytes) -> tuple[list[str], Any, list[int] | None, list[str] | None]:
    """The fields of a step of many sessions: ids, inputs, numbers by session (-1: none), names of the outputs wanted.

    Raises:
        BadRequest, MissingInput, DtypeMismatch: what is wrong with the body.
    """
    fields = _fields(body, _MANY_FIELDS, "A step of many sessions has sessions, inputs, steps and outputs.")
    ids = fields.get("sessions")
    if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
        raise BadRequest(f'"sessions" is a list of session ids; got {ids!r:.80}.')
    steps = fields.get("steps")
    if steps is None:
        return ids, fields["inputs"], None, _wanted(fields.get("outputs"))
    if not isinstance(steps, list):
        raise BadRequest(f'"steps" is a list with a whole number or null for each session; got {steps!r:.80}.')
    numbers = [-1 if number is None else number for number in map(_number, steps)]
    return ids, fields["inputs"], numbers, _wanted(fields.get("outputs"))


def _fields(body: bytes, known: set[str], hint: str) -> dict[str, Any]:
    fields = parse_json(body)
    if not isinstance(fields, dict):
        raise BadRequest('The body must be an object such as {"inputs": ...}.')
    if unknown := fields.keys() - known:
        raise BadRequest(f"Unknown fields: {_listed(unknown)}. {hint}")
    if "inputs" not in fields:
        raise MissingInput('The body must have "inputs": a row for each input, or the row itself.')
    if (b"true" in body or b"false" in body) and mixes_words(fields["inputs"]):
        raise DtypeMismatch("The inputs mix true or false with numbers; send one or the other.")
    return fields


def _header_length(headers: Iterable[Header]) -> int | None:
    """How many bytes of an infer request's body are JSON; None: all."""
    for name, value in headers:
        if name == _INFERENCE_HEADER:
            if not value.isdigit() or len(value) > _TIMEOUT_DIGITS:
                raise BadRequest(f"Inference-Header-Content-Length is a number of bytes; got {value!r:.80}.")
            return int(value)
    return None


def _number(value: Any) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    raise BadRequest(f'"step" is the number of time steps done so far, a whole number from 0; got {value!r:.80}.')


def _wanted(value: Any) -> list[str] | None:
    if value is None or (isinstance(value, list) and value and all(isinstance(name, str) for name in value)):
        return value
    raise BadRequest(f'"outputs" is a list of output names; got {value!r:.80}.')


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:80]) for name in sorted(names))
