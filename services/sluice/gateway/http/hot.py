"""The hot calls of HTTP, from a body to an answer, without a framework: steps, scans, predict, recognize, infer.

It knows paths, headers and JSON; what a call means is the gateway's, and bytes on a connection are the protocol's.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools
import orjson
import structlog

from sluice.gateway.core.decisions import Verdicts
from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.oip import Inference
from sluice.gateway.core.predict import ModelSpec, Predict, Prediction, Terms
from sluice.gateway.core.recognition import Recognize
from sluice.gateway.http.answers import as_tf_serving, error_body, error_headers, many_body, step_body
from sluice.gateway.http.fields import read_many, read_step
from sluice.gateway.http.headers import INFERENCE_HEADER, Header, accepts_events, header_length, read_headers
from sluice.gateway.http.tf_serving import FORWARDED
from sluice.gateway.metrics.metrics import Metrics
from sluice.policy.columnar import Columns
from sluice.policy.contract import Signature
from sluice.policy.errors import BadRequest, Internal, SluiceError
from sluice.policy.session import Answers
from sluice.wire.content import inflate
from sluice.wire.oip import InferRequest, encode_infer, parse_infer
from sluice.wire.recognition import encode_recognized, parse_recognize
from sluice.wire.rest import PredictBody, encode_predict, parse_predict
from sluice.wire.rest_paths import rest_call

log = structlog.get_logger()

_SESSION_CALL = re.compile(r"/v1/sessions/([A-Za-z0-9._~-]{1,128}):(step|scan)")
_MANY_CALL = re.compile(r"/v1/models/([^/:]+)/sessions:step")
_RECOGNIZE_CALL = re.compile(r"/v1/models/([^/:]+)(?:/versions/([0-9]{1,19})|/labels/([^/:]+))?:recognize")
_INFER_CALL = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]{1,19}))?/infer")
_LARGE_BODY = 64 * 1024  # bytes whose parsing other clients would notice
BUG = "Something went wrong inside the gateway; it has been logged with the request id."


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names.

    `call` is step, scan, step_many, recognize, infer or TensorFlow Serving's; `name` a session's id or a model.
    """

    call: str
    name: str
    version: int | None = None
    label: str | None = None
    tf_serving: bool = False  # and its method is the right one

    @property
    def session(self) -> str | None:
        return self.name if self.call in ("step", "scan") else None


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: tuple[Header, ...] = ()
    content_type: bytes = b"application/json"


Done = Callable[[Reply], None]


def wants_events(target: Target, headers: Iterable[Header]) -> bool:
    """Whether the answer of a predict call is to be a stream of events, which is no hot call."""
    return target.call == "predict" and accepts_events(headers)


def target_of(method: bytes, url: bytes) -> Target | None:
    """The hot call that a request's method and target name, if they do."""
    raw, query = _split(url)
    path = unquote(raw) if "%" in raw else raw
    if found := _SESSION_CALL.fullmatch(path):
        return Target(found[2], found[1])
    if found := _MANY_CALL.fullmatch(path):
        return Target("step_many", found[1])
    if found := _RECOGNIZE_CALL.fullmatch(path):
        return Target("recognize", found[1], int(found[2]) if found[2] else None, found[3])
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


class MethodNotAllowed(BadRequest):
    """These paths take POST only."""

    http_status = 405


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
            said = read_headers(headers, target.session)
            body = inflate(body, said.encoding, self.body_limit)
            terms = Terms(gateway.deadline(said.timeout_ms, arrived_at), said.priority_s)
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
        if target.call == "recognize":
            return self._begin_recognize(gateway, target, body, terms, done)
        if target.call == "step_many":
            return self._begin_many(gateway, target, body, terms, done)
        if len(body) > _LARGE_BODY:
            gateway.session(target.name)  # before it is parsed for nothing
        inputs, number, wanted = read_step(body)
        begin = gateway.step if target.call == "step" else gateway.scan
        step = begin(target.name, inputs, number, wanted, terms.deadline)
        step.priority_s = terms.priority_s
        gateway.engine.submit(step, partial(self._answer, target, done, partial(_stepped, wanted)))
        return partial(gateway.engine.cancel, step)

    def _begin_predict(
        self, gateway: Gateway, target: Target, body: bytes, terms: Terms, done: Done
    ) -> Callable[[], None]:
        asked = parse_predict(body)
        predict = Predict(
            target.name, asked.signature_name, partial(read_rows, asked), target.version, target.label,
            priority_s=terms.priority_s,
        )  # fmt: skip
        answer = partial(self._answer, target, done, partial(_predicted, asked.row_format))
        return gateway.predictions.begin(predict, terms.deadline, answer)

    def _begin_recognize(
        self, gateway: Gateway, target: Target, body: bytes, terms: Terms, done: Done
    ) -> Callable[[], None]:
        asked = parse_recognize(body)
        recognize = Recognize(
            ModelSpec(target.name, target.version, target.label), partial(read_rows, asked.rows),
            asked.method, asked.level, asked.top_k, asked.sets, terms.priority_s,
        )  # fmt: skip
        return gateway.recognitions.begin(recognize, terms.deadline, partial(self._answer, target, done, _recognized))

    def _begin_infer(
        self, target: Target, headers: list[Header], body: bytes, terms: Terms, done: Done
    ) -> Callable[[], None]:
        asked = parse_infer(body, header_length(headers))
        answer = partial(self._answer, target, done, partial(_inferred, asked, target.name))
        return self.inference.begin(target.name, target.version, asked, terms, answer)

    def _answer(self, target: Target, done: Done, write: Callable[[Any], Reply], outcome: Any) -> None:
        """Answer with what `write` makes of the outcome, or with an error: the outcome, or what `write` raises."""
        try:
            if isinstance(outcome, SluiceError):
                raise outcome
            reply = write(outcome)
        except SluiceError as error:
            done(self.refusal(target, error))
            return
        self._count(target, "ok")
        done(reply)

    def _begin_many(
        self, gateway: Gateway, target: Target, body: bytes, terms: Terms, done: Done
    ) -> Callable[[], None]:
        ids, inputs, numbers, wanted = read_many(body)
        columns = gateway.step_many(target.name, ids, inputs, numbers, wanted, terms.deadline)
        steps = [step for _, step in columns.steps]
        for step in steps:
            step.priority_s = terms.priority_s
        return gateway.engine.submit_all(
            steps, partial(self._answer, target, done, partial(_stepped_many, columns, wanted))
        )

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


def _predicted(row_format: bool, outcome: Prediction) -> Reply:
    return Reply(200, encode_predict(outcome.outputs, row_format=row_format))


def _inferred(asked: InferRequest, model: str, outcome: Prediction) -> Reply:
    body, head = encode_infer(asked, model, outcome.version, outcome.arrays)
    if head is None:
        return Reply(200, body)
    return Reply(200, body, ((INFERENCE_HEADER, b"%d" % head),), b"application/octet-stream")


def _recognized(outcome: Verdicts) -> Reply:
    rule = outcome.rule
    about = rule.model, rule.version, rule.method, rule.level, rule.threshold
    return Reply(200, encode_recognized(*about, outcome.results))


def _stepped(wanted: list[str] | None, outcome: Answers) -> Reply:
    headers = ((b"sluice-replayed", b"true"),) if outcome.replayed else ()
    return Reply(200, step_body(outcome, wanted), headers)


def _stepped_many(columns: Columns, wanted: list[str] | None, outcomes: list[Any]) -> Reply:
    return Reply(200, many_body(columns.joined(outcomes), wanted))


def read_rows(asked: PredictBody, signature: Signature, limit: int) -> Mapping[str, Any]:
    """What a predict request gives a signature, for `Predict.read`."""
    if signature.kind == "sequences":
        return asked.rows(signature.inputs, limit)
    return asked.tensors(signature.inputs, any_shape=True)
