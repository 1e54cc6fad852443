"""The asynchronous client of one gateway: the transport by the URL, the retries, and what can be asked for."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, get_args

from numpy.typing import ArrayLike

from sluice.client.arguments import check_headers, check_name, check_number, check_whole, names_of
from sluice.client.generation import instances_of
from sluice.client.many import StepMany, turns_of
from sluice.client.overview import read_buckets, read_calibration_files, read_models
from sluice.client.paths import about_path, spec_of
from sluice.client.predict import Asked, Predictions
from sluice.client.recognition import check_rows
from sluice.client.refusals import read_fields
from sluice.client.retry import Patience, persistently
from sluice.client.sequences import columns_of
from sluice.client.session import AsyncSession
from sluice.client.stream import AsyncStream
from sluice.client.turns import turn
from sluice.client.urls import transport_to
from sluice.client.values import (
    Array,
    Buckets,
    CalibrationFile,
    Columns,
    Ended,
    GenerateCall,
    IfExists,
    Opened,
    Opening,
    Page,
    RecognizeCall,
    Recognized,
    Results,
    ServedModel,
    Token,
    Values,
    arrays_of,
    input_word,
)
from sluice.policy.contract import Contract, Signature
from sluice.policy.contract_document import parse_contract
from sluice.policy.generation import Beam, Sampling
from sluice.wire.rest import DEFAULT_SIGNATURE

T = TypeVar("T")


class AsyncClient:
    """A gateway at `url`: http://HOST:PORT, https://HOST:PORT or grpc://HOST:PORT, with the same methods.

    A call is sent up to `attempts` times: after a broken connection, and after 429, 503 and 504, as soon as the gateway
    says or else after a growing, random wait. `timeout_s` is the limit that the gateway gets for one attempt, in
    seconds (raise it for long scans); no attempt begins more than `total_s` seconds after the first. `headers` go with
    every call, over gRPC as metadata. `sleep` and `clock` replace the time in tests.

    It belongs to one event loop, in which it must be made; `async with` closes its connections at the end.

    Raises:
        ValueError: another kind of URL, a `timeout_s` that is no positive number, less than one attempt, or headers
            that are no texts by their names.
    """

    def __init__(
        self,
        url: str,
        *,
        attempts: int = 8,
        timeout_s: float = 10.0,
        total_s: float = 60.0,
        headers: Mapping[str, str] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_headers(headers)
        self._patience = Patience(attempts, timeout_s, total_s, sleep, clock)
        self._url = url
        self._transport = transport_to(url, headers or {})
        self._predictions = Predictions(self._transport)

    async def predict(
        self,
        model: str,
        values: Values,
        outputs: Sequence[str] | None = None,
        *,
        signature: str = DEFAULT_SIGNATURE,
        version: int | str | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        """Run rows through a model: name → `[rows, ...]`, or the array itself if the signature has one input.

        Numbers may have any dtype that says the same in the signature's; text is `str` or `bytes`. Without `version`
        and `label` the newest version answers. `timeout_s` is for this call what it is for all in `AsyncClient`.

        Where the contract says that rows may differ in length, give a list of them, or pad them yourself and give the
        lengths beside them, under the name of the contract's input; a row may be text where the contract says so.

        Returns output name → array, in the signature's dtypes, text as `bytes`; `outputs` names those that are wanted.
        Outputs whose rows differ in length are arrays of objects, `[rows]`, each a row's own array.
        The signatures are asked for once, and again after a refusal. Over HTTP, float16, bfloat16, uint16 and complex
        inputs are refused, and bytes of an output that are not UTF-8 arrive whole only if its name ends with `_bytes`.

        Raises:
            SluiceError: the gateway's refusal, or what is wrong with the values.
            NoAnswer: the gateway could not be reached.
            ValueError: both a version and a label, or one of them that is none; or a `timeout_s` that is no
                positive number.
        """
        check_name("A signature", signature)
        asked = Asked(spec_of(model, version, label), signature, columns_of(values), names_of(outputs))
        return await persistently(partial(self._predictions.run, asked), self._patience_of(timeout_s))

    async def recognize(
        self,
        model: str,
        rows: Values,
        *,
        method: str | None = None,
        level: float | None = None,
        top_k: int | None = None,
        sets: bool = False,
        version: int | str | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
    ) -> Recognized:
        """Answer each row with a class of a classifier or with *unknown*: name → `[rows, ...]`, or the array itself.

        `method` measures how strange a row is, `level` is the share of known rows that may be rejected, between 0 and
        1, and `top_k` how many candidates a row gets: without them it is as the calibration and the gateway say. With
        `sets` each row also has its prediction set. `version`, `label` and `timeout_s` are as for `predict`; over HTTP,
        bfloat16 and complex inputs are refused.

        Raises:
            NotCalibrated: no calibration is in use for this model version.
            SluiceError: the gateway's other refusals, or what is wrong with the values.
            NoAnswer: the gateway could not be reached.
            ValueError: both a version and a label, or one of them that is none; or a `timeout_s` that is no
                positive number.
        """
        call = RecognizeCall(spec_of(model, version, label), arrays_of(rows), method, level, top_k, sets)
        check_rows(call.inputs)
        check_number("level", level)
        check_whole("top_k", top_k)
        return await persistently(partial(self._transport.recognize, call), self._patience_of(timeout_s))

    async def generate(
        self,
        model: str,
        instances: Values,
        *,
        max_steps: int | None = None,
        beam: Beam | None = None,
        sampling: Sampling | None = None,
        version: int | str | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
    ) -> Results:
        """Generate sequences for each instance: a text, or a row of the encoder's input, by name or bare.

        Without `max_steps` the model's limit holds, without `beam` and `sampling` the likeliest token is taken at each
        step. `version`, `label` and `timeout_s` are as for `predict`. Rows may differ in length over HTTP; over gRPC
        they are padded, and their lengths stand beside them under the name that the contract gives them.

        Returns each instance's sequences, the best first: one unless `beam.n_best` says more.

        Raises:
            SluiceError: the gateway's refusal, what is wrong with the values, or the first instance's error.
            NoAnswer: the gateway could not be reached.
            ValueError: both a version and a label, or one of them that is none; or a `timeout_s` that is no
                positive number.
        """
        check_whole("max_steps", max_steps)
        call = GenerateCall(spec_of(model, version, label), instances_of(instances), max_steps, beam, sampling)
        return await persistently(partial(self._transport.generate, call), self._patience_of(timeout_s))

    def generate_stream(
        self,
        model: str,
        instances: Values,
        *,
        max_steps: int | None = None,
        beam: Beam | None = None,
        sampling: Sampling | None = None,
        version: int | str | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Token | Ended]:
        """As `generate`, telling each token as soon as it is certain, and an `Ended` for each instance when it is.

        Beams give no tokens. A call is sent again only until the first of these has come; a stream that breaks
        later raises what has happened. Closing it, or leaving it to `contextlib.aclosing`, frees what still runs.
        """
        check_whole("max_steps", max_steps)
        call = GenerateCall(spec_of(model, version, label), instances_of(instances), max_steps, beam, sampling)
        return self._events(call, self._patience_of(timeout_s))

    async def models(self) -> list[ServedModel]:
        """The models that the gateway serves. This and the methods up to `reload_calibrations` want an http:// URL.

        Raises:
            SluiceError: the gateway's refusal.
            NoAnswer: the gateway could not be reached, or something else answered.
            ValueError: the URL is a grpc:// one.
        """
        return await self._answer("/v1/models", read_models)

    async def contract(self, model: str, version: int | str | None = None) -> Contract | None:
        """How a model wants to be called, by its own contract; None for a model without one.

        Raises:
            ContractError: this client cannot read it; else as `models`.
        """
        document = await self._answer(about_path(model, "contract", version), lambda body: body["contract"])
        return None if document is None else parse_contract(document)

    async def buckets(self, model: str, version: int | str | None = None) -> Buckets:
        """To what lengths a model's sequences are padded, whether they run in chunks, and what lengths came."""
        return await self._answer(about_path(model, "buckets", version), read_buckets)

    async def ready(self) -> None:
        """Return as soon as the gateway can be used; it is asked again like any other call.

        Raises:
            Unavailable: it is not ready; the sentence says why.
            NoAnswer: the gateway could not be reached.
        """
        await self._answer("/readyz", lambda body: body["status"])

    async def metrics(self) -> str:
        """The gateway's metrics in Prometheus' text format."""
        return (await persistently(partial(self._transport.answer, "GET", "/metrics"), self._patience)).decode()

    async def reload_calibrations(self) -> list[CalibrationFile]:
        """Have the gateway look at its folder of calibrations now; a file that cannot be used says why."""
        return await self._answer("/v1/calibrations:reload", read_calibration_files, method="POST")

    async def signatures(
        self, model: str, *, version: int | str | None = None, label: str | None = None
    ) -> Mapping[str, Signature]:
        """What a model's signatures take and give by TensorFlow's own metadata, over HTTP and gRPC."""
        return await persistently(partial(self._transport.signatures, spec_of(model, version, label)), self._patience)

    async def open(
        self,
        model: str,
        session: str | None = None,
        *,
        version: int | str | None = None,
        label: str | None = None,
        state: Mapping[str, ArrayLike] | None = None,
        ttl_s: float | None = None,
        if_exists: IfExists = "error",
        numbered: bool = True,
    ) -> AsyncSession:
        """Open a session at time step 0: `session` is an id of your own, without which the gateway makes one.

        `version` or `label` choose the model version, `state` is name → row of initial state, `ttl_s` how long the
        session may be idle, in seconds. If the id is open already: `if_exists="return"` gives that session as it is,
        `"restart"` begins it again. Without `numbered`, steps carry no number: they may then run twice, or be given up
        when a connection breaks.

        If the first answer is lost, a repeat can meet the session that it opened, as `SessionExists`; without an id
        of your own one may stay behind until its idle time is over.

        Raises:
            SluiceError: the gateway's refusal.
            NoAnswer: the gateway could not be reached.
        """
        if if_exists not in get_args(IfExists):
            raise ValueError(f"if_exists is one of {', '.join(get_args(IfExists))}; got {if_exists!r}.")
        if state is not None and not isinstance(state, Mapping):
            raise ValueError(f"state holds rows by the states' names; got {state!r:.80}.")
        check_name("A model", model)
        if session is not None:
            check_name("A session", session)
        if label is not None:
            check_name("A label", label)
        check_number("ttl_s", ttl_s, " of seconds")
        opening = Opening(
            model,
            session,
            None if version is None else str(version),
            label,
            None if state is None else arrays_of(state),
            ttl_s,
            if_exists,
        )
        opened = await persistently(partial(self._transport.open, opening), self._patience)
        return AsyncSession(self._transport, self._patience, opened, numbered=numbered)

    async def session(self, id: str, *, numbered: bool = True) -> AsyncSession:
        """An open session, to go on from its present time step."""
        check_name("A session", id)
        view = await persistently(partial(self._transport.view, id), self._patience)
        opened = Opened(view.session, view.model, view.version, view.step)
        return AsyncSession(self._transport, self._patience, opened, numbered=numbered)

    async def restore(self, id: str, envelope: bytes, *, numbered: bool = True) -> AsyncSession:
        """A session with a state that `AsyncSession.state` gave: a new one, or the open one of this id.

        Raises:
            StateIncompatible: it is of another model or version than the open session, or than what is served.
            BadRequest: it is damaged.
        """
        check_name("A session", id)
        opened = await persistently(partial(self._transport.put_state, id, envelope), self._patience)
        return AsyncSession(self._transport, self._patience, opened, numbered=numbered)

    async def list(self, model: str, *, limit: int = 100, after: str = "") -> Page:
        """Your own sessions of a model, in order of id: `limit` at most, behind the id `after`."""
        check_name("A model", model)
        check_whole("limit", limit)
        return await persistently(partial(self._transport.list, model, limit, after), self._patience)

    async def step_many(
        self,
        model: str,
        sessions: Sequence[AsyncSession],
        values: Values,
        outputs: Sequence[str] | None = None,
    ) -> Columns:
        """Run one time step of each of many sessions, all of `model`, in one call.

        `values` are name → `[sessions, ...]`, or the array itself if the model has one input.

        Raises:
            SluiceError: the call as a whole was refused; errors of single sessions are in the answer.
            NoAnswer: the gateway could not be reached.
            ValueError: another number of rows than of sessions, or something else than sessions.
        """
        turns, inputs, names = turns_of(sessions), arrays_of(values), names_of(outputs)
        for name, array in inputs.items():
            if array.shape[:1] != (len(sessions),):
                raise ValueError(
                    f"{input_word(name)} takes [sessions={len(sessions)}, ...]; got shape {[*array.shape]}."
                )
        async with turn(turns):
            return await StepMany(self._transport, model, sessions, inputs, names).run(self._patience)

    def stream(self, model: str) -> AsyncStream:
        """A stream for the steps of any sessions of a model; it is opened at the first step."""
        return AsyncStream(model, self._transport.lane(self._patience.timeout_s))

    async def _events(self, call: GenerateCall, patience: Patience) -> AsyncGenerator[Token | Ended]:
        async def begin(timeout_s: float) -> tuple[AsyncGenerator[Token | Ended], Token | Ended | None]:
            events = self._transport.generate_stream(call, timeout_s)
            return events, await anext(events, None)

        events, event = await persistently(begin, patience)
        async with aclosing(events):
            while event is not None:
                yield event
                event = await anext(events, None)

    async def _answer(self, path: str, read: Callable[[dict[str, Any]], T], method: str = "GET") -> T:
        async def attempt(timeout_s: float) -> T:
            return read_fields(self._url, await self._transport.answer(method, path, timeout_s), read)

        return await persistently(attempt, self._patience)

    def _patience_of(self, timeout_s: float | None) -> Patience:
        """The patience of a call that may have a time limit of its own, in seconds."""
        patience = self._patience
        if timeout_s is None:
            return patience
        patience = replace(patience, timeout_s=timeout_s)
        return replace(patience, total_s=max(timeout_s, patience.total_s))

    async def aclose(self) -> None:
        """Close the connections; sessions stay open."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
