"""The same client for programs without an event loop: each call runs in a loop of the client's own thread."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Generator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

from numpy.typing import ArrayLike

from sluice.client.client import AsyncClient
from sluice.client.errors import NoAnswer
from sluice.client.session import AsyncSession
from sluice.client.stream import AsyncStream
from sluice.client.values import (
    Array,
    Buckets,
    CalibrationFile,
    Columns,
    Ended,
    IfExists,
    Page,
    Recognized,
    Results,
    ServedModel,
    SessionView,
    Token,
    Values,
)
from sluice.policy.contract import Contract, Signature
from sluice.policy.generation import Beam, Sampling

T = TypeVar("T")

_END = object()


class ClientOptions(TypedDict, total=False):
    """The options of `AsyncClient`."""

    attempts: int
    timeout_s: float
    total_s: float
    headers: Mapping[str, str]
    sleep: Callable[[float], Awaitable[None]]
    clock: Callable[[], float]


class PredictOptions(TypedDict, total=False):
    """The options of `AsyncClient.predict`."""

    signature: str
    version: int | str | None
    label: str | None
    timeout_s: float | None


class RecognizeOptions(TypedDict, total=False):
    """The options of `AsyncClient.recognize`."""

    method: str | None
    level: float | None
    top_k: int | None
    sets: bool
    version: int | str | None
    label: str | None
    timeout_s: float | None


class GenerateOptions(TypedDict, total=False):
    """The options of `AsyncClient.generate`."""

    max_steps: int | None
    beam: Beam | None
    sampling: Sampling | None
    version: int | str | None
    label: str | None
    timeout_s: float | None


class OpenOptions(TypedDict, total=False):
    """The options of `AsyncClient.open`."""

    version: int | str | None
    label: str | None
    state: Mapping[str, ArrayLike] | None
    ttl_s: float | None
    if_exists: IfExists
    numbered: bool


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sluice-client", daemon=True)
        self._thread.start()
        self._running = set[Future[Any]]()
        self._closed = False
        # So that nothing begins behind the end, where nobody would run it. A signal handler, and a generator that is
        # dropped, may come into the middle of it in the same thread.
        self._beginning = threading.RLock()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine; if the caller is interrupted, it is cancelled.

        Raises:
            NoAnswer: the loop is closed, or was before there was a result.
        """
        with self._beginning:
            if self._closed:
                coroutine.close()
                raise NoAnswer("The client is closed: make another one.")
            running = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._running.add(running)
        try:
            return running.result()
        except CancelledError:
            raise NoAnswer("The client was closed before an answer came.") from None
        except BaseException:
            running.cancel()
            raise
        finally:
            self._running.discard(running)

    def each(self, values: AsyncGenerator[T]) -> Generator[T]:
        """The values of a generator; it is closed when they are not wanted any more."""
        asked = set[asyncio.Task[Any]]()  # for a value; after an interrupt it may still run
        try:
            while (value := self.run(_next(values, asked))) is not _END:
                yield value
        finally:
            self.finish(_close(values, asked))

    def finish(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run what closes something, unless the loop is closed, which has closed it."""
        try:
            self.run(coroutine)
        except NoAnswer:
            if not self._closed:
                raise

    def close(self, last: Callable[[], Awaitable[None]] | None = None) -> None:
        """End what runs, and then run `last`; closing again does nothing."""
        with self._beginning:
            if self._closed:
                return
            self._closed = True
            for running in list(self._running):
                running.cancel()
            end = asyncio.run_coroutine_threadsafe(_end(last), self._loop)
        end.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Session:
    """As `AsyncSession`; threads may share it, and their calls run one after another."""

    def __init__(self, loop: Loop, inner: AsyncSession) -> None:
        self._loop = loop
        self.inner = inner

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def model(self) -> str:
        return self.inner.model

    @property
    def version(self) -> str:
        return self.inner.version

    @property
    def steps_done(self) -> int:
        return self.inner.steps_done

    @property
    def replayed(self) -> bool:
        return self.inner.replayed

    def step(self, values: Values, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        return self._loop.run(self.inner.step(values, outputs))

    def scan(self, values: Values, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        return self._loop.run(self.inner.scan(values, outputs))

    def fork(self, id: str | None = None) -> "Session":
        return Session(self._loop, self._loop.run(self.inner.fork(id)))

    def renew(self, ttl_s: float | None = None) -> SessionView:
        return self._loop.run(self.inner.renew(ttl_s))

    def view(self) -> SessionView:
        return self._loop.run(self.inner.view())

    def state(self) -> bytes:
        return self._loop.run(self.inner.state())

    def put_state(self, envelope: bytes) -> None:
        self._loop.run(self.inner.put_state(envelope))

    def close(self) -> None:
        self._loop.run(self.inner.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self.inner.__aexit__(kind, error, trace))


class Stream:
    """As `AsyncStream`; steps of different sessions run at the same time if threads ask for them."""

    def __init__(self, loop: Loop, inner: AsyncStream) -> None:
        self._loop = loop
        self._inner = inner

    def step(self, session: Session, values: Values, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        return self._loop.run(self._inner.step(_inner(session), values, outputs))

    def close(self) -> None:
        self._loop.finish(self._inner.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Client:
    """As `AsyncClient`, with the same options; threads may share it. `with` closes its connections at the end."""

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        _check("Client", options, ClientOptions)
        self._loop = Loop()
        try:
            self._inner = self._loop.run(_made(url, options))
        except BaseException:
            self._loop.close()
            raise

    def predict(
        self, model: str, values: Values, outputs: Sequence[str] | None = None, **options: Unpack[PredictOptions]
    ) -> dict[str, Array]:
        """As `AsyncClient.predict`, with the same options."""
        _check("Client.predict", options, PredictOptions)
        return self._loop.run(self._inner.predict(model, values, outputs, **options))

    def recognize(self, model: str, rows: Values, **options: Unpack[RecognizeOptions]) -> Recognized:
        """As `AsyncClient.recognize`, with the same options."""
        _check("Client.recognize", options, RecognizeOptions)
        return self._loop.run(self._inner.recognize(model, rows, **options))

    def generate(self, model: str, instances: Values, **options: Unpack[GenerateOptions]) -> Results:
        """As `AsyncClient.generate`, with the same options."""
        _check("Client.generate", options, GenerateOptions)
        return self._loop.run(self._inner.generate(model, instances, **options))

    def generate_stream(
        self, model: str, instances: Values, **options: Unpack[GenerateOptions]
    ) -> Generator[Token | Ended]:
        """As `AsyncClient.generate_stream`, with the same options; leaving the iterator frees what still runs."""
        _check("Client.generate_stream", options, GenerateOptions)
        return self._loop.each(self._inner.generate_stream(model, instances, **options))

    def models(self) -> list[ServedModel]:
        return self._loop.run(self._inner.models())

    def contract(self, model: str, version: int | str | None = None) -> Contract | None:
        return self._loop.run(self._inner.contract(model, version))

    def buckets(self, model: str, version: int | str | None = None) -> Buckets:
        return self._loop.run(self._inner.buckets(model, version))

    def ready(self) -> None:
        self._loop.run(self._inner.ready())

    def metrics(self) -> str:
        return self._loop.run(self._inner.metrics())

    def reload_calibrations(self) -> list[CalibrationFile]:
        return self._loop.run(self._inner.reload_calibrations())

    def signatures(
        self, model: str, *, version: int | str | None = None, label: str | None = None
    ) -> Mapping[str, Signature]:
        return self._loop.run(self._inner.signatures(model, version=version, label=label))

    def open(self, model: str, session: str | None = None, **options: Unpack[OpenOptions]) -> Session:
        """As `AsyncClient.open`, with the same options."""
        _check("Client.open", options, OpenOptions)
        return Session(self._loop, self._loop.run(self._inner.open(model, session, **options)))

    def session(self, id: str, *, numbered: bool = True) -> Session:
        return Session(self._loop, self._loop.run(self._inner.session(id, numbered=numbered)))

    def restore(self, id: str, envelope: bytes, *, numbered: bool = True) -> Session:
        return Session(self._loop, self._loop.run(self._inner.restore(id, envelope, numbered=numbered)))

    def list(self, model: str, *, limit: int = 100, after: str = "") -> Page:
        return self._loop.run(self._inner.list(model, limit=limit, after=after))

    def step_many(
        self, model: str, sessions: Sequence[Session], values: Values, outputs: Sequence[str] | None = None
    ) -> Columns:
        inner: Any = [*map(_inner, sessions)] if isinstance(sessions, Collection) else sessions
        return self._loop.run(self._inner.step_many(model, inner, values, outputs))

    def stream(self, model: str) -> Stream:
        return Stream(self._loop, self._inner.stream(model))

    def close(self) -> None:
        """Close the connections; sessions stay open. Calls that still run, and later ones, raise `NoAnswer`."""
        self._loop.close(self._inner.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _inner(session: Any) -> Any:
    """The asynchronous session; what is none is refused there."""
    return session.inner if isinstance(session, Session) else session


def _check(call: str, options: Mapping[str, Any], known: type[Any]) -> None:
    """Raises: TypeError: an option is none of those that are `known`."""
    if unknown := [name for name in options if name not in known.__annotations__]:
        listed = ", ".join(known.__annotations__)
        raise TypeError(f"{call} has no option {', '.join(map(repr, unknown))}; it has {listed}.")


async def _next(values: AsyncGenerator[T], asked: set[asyncio.Task[Any]]) -> T | Any:
    task = asyncio.current_task()
    assert task is not None
    asked.add(task)
    try:
        return await anext(values, _END)
    finally:
        asked.discard(task)


async def _close(values: AsyncGenerator[T], asked: set[asyncio.Task[Any]]) -> None:
    """Close a generator that may be running: an interrupt can come before its caller knows what to cancel."""
    for task in asked:
        if not task.cancelling():  # a second cancellation would break off what the first has it clean up
            task.cancel()
    if asked:
        await asyncio.wait(asked)
    await values.aclose()


async def _end(last: Callable[[], Awaitable[None]] | None) -> None:
    """Wait for what is cancelled, which cancels tasks of its own in its own order; cancel the rest, and run `last`."""
    while cancelled := {task for task in asyncio.all_tasks() if task.cancelling()}:
        await asyncio.wait(cancelled)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    if last is not None:
        await last()


async def _made(url: str, options: ClientOptions) -> AsyncClient:
    """A client that belongs to the loop in which this runs."""
    return AsyncClient(url, **options)
