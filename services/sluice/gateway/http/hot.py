"""The hot calls of HTTP, from a body to an answer, without a framework: steps, scans, predict, recognize, infer.

It knows paths, headers and JSON; what a call means is the gateway's, and bytes on a connection are the protocol's.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools
import orjson
import structlog

from sluice.gateway.core.decisions import Verdicts
from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.oip import Inference
from sluice.gateway.core.pending import Pending, Terms, in_task
from sluice.gateway.core.predict import Predict, Prediction
from sluice.gateway.core.recognition import Options
from sluice.gateway.core.resolve import ModelSpec
from sluice.gateway.http.answers import many_body, step_body
from sluice.gateway.http.fields import read_many, read_step
from sluice.gateway.http.headers import (
    EVENTS,
    INFERENCE_HEADER,
    Header,
    RequestIds,
    accepts,
    header_length,
    read_headers,
)
from sluice.gateway.http.tf_serving import FORWARDED
from sluice.gateway.metrics.metrics import Metrics
from sluice.gateway.trace import names, within
from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.contract import Signature
from sluice.policy.errors import BadRequest, Internal, ModelNotFound, SluiceError
from sluice.policy.session import Answers
from sluice.wire.answers import error_body, error_headers
from sluice.wire.content import inflate
from sluice.wire.oip import InferRequest, encode_infer, parse_infer
from sluice.wire.recognition import encode_recognized, parse_recognize
from sluice.wire.rest import PredictBody, encode_predict, parse_predict
from sluice.wire.rest_paths import rest_call
from sluice.wire.statuses import as_tf_serving

log = structlog.get_logger()

_NO_MODEL = ModelSpec("")
_LARGE_BODY = 64 * 1024  # bytes whose parsing other clients would notice


class Route(NamedTuple):
    """A kind of hot call: the name that it is counted by, whose errors it has, and what begins one."""

    call: str
    begin: Callable[["Calls", "Request", Pending], None]
    protocol: str = "sluice"  # or tf_serving, or oip


class Target(NamedTuple):
    """What a path names: a session or a model."""

    route: Route
    spec: ModelSpec
    session: str | None = None

    @property
    def tf_serving(self) -> bool:
        """Whether it is a call of TensorFlow Serving's API; then its method is the right one."""
        return self.route.protocol == "tf_serving"


class Request(NamedTuple):
    """A hot call, its body whole and inflated."""

    target: Target
    headers: list[Header]
    body: bytes
    terms: Terms


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: tuple[Header, ...] = ()
    content_type: bytes = b"application/json"


class MethodNotAllowed(BadRequest):
    """These paths take POST only."""

    http_status = 405


def wants_events(target: Target, headers: Iterable[Header]) -> bool:
    """Whether the answer of a predict call is to be a stream of events, which is no hot call."""
    return target.route is _PREDICT and accepts(EVENTS, headers)


def target_of(method: bytes, url: bytes) -> Target | None:
    """The hot call that a request's method and target name, if they do."""
    raw, query = _split(url)
    path = unquote(raw) if "%" in raw else raw
    for pattern, route in _SESSION_ROUTES:
        if found := pattern.fullmatch(path):
            return Target(route, _NO_MODEL, found[1])
    for pattern, route in _ROUTES:
        if found := pattern.fullmatch(path):
            version, label = (*found.groups()[1:], None, None)[:2]
            return Target(route, ModelSpec(found[1], int(version) if version else None, label))
    try:
        call = rest_call(method.decode(), raw + query)
    except BadRequest:  # another path's, or nobody's
        return None
    return Target(_TF_SERVING[call.verb], ModelSpec(call.model, call.version, call.label)) if call else None


def _split(url: bytes) -> tuple[str, str]:
    """The path of a request's target as it was sent, and the rest with its question mark."""
    if not url.startswith(b"/"):
        parsed = httptools.parse_url(url)
        if parsed.path is None:
            raise BadRequest(f"its target has no path; {url.decode('latin-1')!r:.80} came")
        return parsed.path.decode("latin-1"), f"?{parsed.query.decode('latin-1')}" if parsed.query else ""
    path, mark, query = url.decode("latin-1").partition("?")
    return path, mark + query


class Calls:
    """Begins hot calls, and answers each of them once, unless it is cancelled before."""

    gateway: Gateway  # from `open` on, as is `inference`
    inference: Inference

    def __init__(self, metrics: Metrics, ids: RequestIds) -> None:
        self._metrics = metrics
        self._ids = ids

    def open(self, gateway: Gateway) -> Inference:
        """From now on calls are `gateway`'s."""
        self.gateway, self.inference = gateway, Inference(gateway)
        return self.inference

    @property
    def body_limit(self) -> int:
        return self.gateway.settings.body_bytes

    def begin(self, target: Target, headers: list[Header], body: bytes, done: Callable[[Reply], None]) -> Pending:
        """Begin a call. `done` is called from the loop, never from within this call."""
        pending = Pending(partial(self._answer, target, headers, done))
        pending.begin(self._begin, target, headers, body)
        return pending

    def refuse(self, target: Target, error: SluiceError, done: Callable[[Reply], None]) -> Pending:
        """Answer a call with an error, soon."""
        pending = Pending(partial(self._answer, target, [], done))
        pending.begin(_raise, error)
        return pending

    def gone(self, target: Target) -> None:
        """The client has left before it was answered."""
        self._count(target, "client_gone")

    def _begin(self, target: Target, headers: list[Header], body: bytes, pending: Pending) -> None:
        said = read_headers(headers, target.session)
        terms = self.gateway.terms(said.timeout_s, said.priority_s, said.exact)
        body = inflate(body, said.encoding, self.body_limit)
        request = Request(target, headers, body, terms)
        context = within(headers, self._ids.name(headers)) if said.traced else None
        if context is None:
            target.route.begin(self, request, pending)
        else:
            context.run(target.route.begin, self, request, pending)

    def _answer(
        self, target: Target, headers: list[Header], done: Callable[[Reply], None], outcome: Reply | SluiceError
    ) -> None:
        if isinstance(outcome, SluiceError):
            if isinstance(outcome, Internal):
                said = names(headers, self._ids.name(headers))
                log.error("answered that there is a bug", call=target.route.call, **said)
            outcome = self._refusal(target, outcome)
        else:
            self._count(target, "ok")
        done(outcome)

    def _refusal(self, target: Target, error: SluiceError) -> Reply:
        """The answer to a call that failed, which is counted."""
        body: dict[str, Any] = error_body(error)
        status, code = error.http_status, error.code
        if target.tf_serving:
            status, code, sentence = as_tf_serving(error)
            if target.spec.label is not None and isinstance(error, ModelNotFound) and error.origin is None:
                status = BadRequest.http_status  # as for a label that a model has not
            body = {"error": sentence}
        elif target.route.protocol == "oip":
            body = {"error": error.message}
        self._count(target, code)
        headers = {name.lower().encode(): value.encode() for name, value in error_headers(error).items()}
        headers[b"sluice-code"] = code.encode()
        if isinstance(error, MethodNotAllowed):
            headers[b"allow"] = b"POST"
        return Reply(status, orjson.dumps(body), tuple(headers.items()))

    def _count(self, target: Target, outcome: str) -> None:
        gateway, session = self.gateway, target.session
        model = gateway.known(target.spec.name) if session is None else gateway.sessions.model_of(session)
        self._metrics.request(target.route.call, model, outcome)


def _raise(error: SluiceError, _: Pending) -> None:
    raise error


def _step(here: Calls, request: Request, pending: Pending) -> None:
    (route, _, session), _, body, terms = request
    sessions = here.gateway.sessions
    if len(body) > _LARGE_BODY:
        sessions.get(session or "")  # before it is parsed for nothing
    inputs, number, wanted = read_step(body)
    pending.make = partial(_stepped, wanted)
    act = sessions.step if route.call == "step" else sessions.scan
    act(session or "", inputs, number, wanted, terms, pending)


def _step_many(here: Calls, request: Request, pending: Pending) -> None:
    ids, inputs, numbers, wanted = read_many(request.body)
    pending.make = lambda answers: Reply(200, many_body(answers, wanted))
    here.gateway.sessions.step_many(request.target.spec.name, ids, inputs, numbers, wanted, request.terms, pending)


def _predict(here: Calls, request: Request, pending: Pending) -> None:
    asked, predictions = parse_predict(request.body), here.gateway.predictions
    pending.make = partial(_predicted, asked.row_format)

    def begin(served: ServedVersion, pending: Pending) -> None:
        signature = served.predicted(asked.signature_name)
        call = Predict(signature, inputs_of(asked, signature, predictions.rows_limit))
        predictions.submit(served, call, request.terms, pending)

    here.gateway.resolver.resolve(request.target.spec, request.terms.deadline, begin, pending)


def _recognize(here: Calls, request: Request, pending: Pending) -> None:
    asked, recognitions = parse_recognize(request.body), here.gateway.recognitions
    pending.make = _recognized

    def begin(served: ServedVersion, pending: Pending) -> None:
        rule = recognitions.rule(served, Options(asked.method, asked.level, asked.top_k, asked.sets))
        inputs = inputs_of(asked.rows, rule.signature, here.gateway.predictions.rows_limit)
        recognitions.submit(served, rule, inputs, request.terms, pending)

    here.gateway.resolver.resolve(request.target.spec, request.terms.deadline, begin, pending)


def _infer(here: Calls, request: Request, pending: Pending) -> None:
    spec = request.target.spec
    asked = parse_infer(request.body, header_length(request.headers))
    pending.make = partial(_inferred, asked, spec.name)
    here.inference.begin(spec.name, spec.version, asked, request.terms, pending)


def _forward(call: str, here: Calls, request: Request, pending: Pending) -> None:
    target, _, body, terms = request
    pending.make = partial(Reply, 200)
    in_task(FORWARDED[call], here.gateway, target.spec, body, terms.deadline, pending=pending)


def inputs_of(asked: PredictBody, signature: Signature, limit: int) -> Mapping[str, Any]:
    """What a request gives a signature, for `Predict.inputs`; of sequences no more rows than `limit`."""
    if signature.kind != "sequences":
        return asked.tensors(signature.inputs, any_shape=True)
    if asked.row_format or not (measures := asked.columns_among(signature.measures)):
        return asked.rows(signature.inputs, limit)
    return asked.tensors({**signature.inputs, **measures}, any_shape=True)


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


_SESSION, _MODEL, _VERSION = r"/v1/sessions/([A-Za-z0-9._~-]{1,128})", r"/models/([^/:]+)", r"/versions/([0-9]{1,19})"
_SESSION_ROUTES: tuple[tuple[re.Pattern[str], Route], ...] = (
    (re.compile(_SESSION + ":step"), Route("step", _step)),
    (re.compile(_SESSION + ":scan"), Route("scan", _step)),
)
# The first that a path is wholly like; groups: a model, a version, a label.
_ROUTES: tuple[tuple[re.Pattern[str], Route], ...] = (
    (re.compile(f"/v1{_MODEL}/sessions:step"), Route("step_many", _step_many)),
    (re.compile(f"/v1{_MODEL}(?:{_VERSION}|/labels/([^/:]+))?:recognize"), Route("recognize", _recognize)),
    (re.compile(f"/v2/models/([^/]+)(?:{_VERSION})?/infer"), Route("infer", _infer, "oip")),
)
_PREDICT = Route("predict", _predict, "tf_serving")
# TensorFlow Serving's calls, by the verb of their path.
_TF_SERVING: Mapping[str, Route] = {
    "predict": _PREDICT,
    **{call: Route(call, partial(_forward, call), "tf_serving") for call in FORWARDED},
}
