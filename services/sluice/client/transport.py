"""What a client asks of a transport. One call is one attempt: transports wait and repeat nothing."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from sluice.client.values import (
    Answer,
    Array,
    Call,
    Ended,
    GenerateCall,
    Kind,
    ManyCall,
    ModelSpec,
    Opened,
    Opening,
    Page,
    PredictCall,
    RecognizeCall,
    Recognized,
    Results,
    SessionView,
    Token,
)
from sluice.policy.contract import Signature
from sluice.policy.errors import SluiceError


class Lane(Protocol):
    """A way for many steps that stays open; it opens itself, and again after it was cut."""

    async def step(self, call: Call, timeout_s: float) -> Answer: ...

    async def aclose(self) -> None: ...


class Transport(Protocol):
    """Every call takes its time limit in seconds.

    Raises:
        SluiceError: what the gateway answered, or `NoAnswer`.
    """

    async def open(self, opening: Opening, timeout_s: float) -> Opened: ...

    async def view(self, session: str, timeout_s: float) -> SessionView: ...

    async def list(self, model: str, limit: int, after: str, timeout_s: float) -> Page: ...

    async def run(self, kind: Kind, call: Call, timeout_s: float) -> Answer: ...

    async def step_many(self, call: ManyCall, timeout_s: float) -> Sequence[Answer | SluiceError]: ...

    async def fork(self, session: str, fork: str | None, timeout_s: float) -> Opened: ...

    async def renew(self, session: str, ttl_s: float | None, timeout_s: float) -> SessionView: ...

    async def get_state(self, session: str, timeout_s: float) -> bytes: ...

    async def put_state(self, session: str, envelope: bytes, timeout_s: float) -> Opened: ...

    async def close(self, session: str, timeout_s: float) -> None: ...

    async def answer(self, method: str, path: str, timeout_s: float) -> bytes:
        """The body of a call of the gateway's HTTP API that takes none itself.

        Raises:
            ValueError: the transport is not HTTP.
        """

    async def signatures(self, spec: ModelSpec, timeout_s: float) -> Mapping[str, Signature]: ...

    async def predict(self, call: PredictCall, timeout_s: float) -> dict[str, Array]:
        """The outputs by name: those that the call names, and others where the transport cannot leave them out."""

    async def recognize(self, call: RecognizeCall, timeout_s: float) -> Recognized: ...

    async def generate(self, call: GenerateCall, timeout_s: float) -> Results:
        """Each instance's sequences, the best first; the first instance that fails fails them all."""

    def generate_stream(self, call: GenerateCall, timeout_s: float) -> AsyncGenerator[Token | Ended]:
        """Tokens as they come, and one `Ended` for each instance; closing it frees what still runs."""

    def lane(self, timeout_s: float) -> Lane:
        """A way for steps that may each take `timeout_s` seconds."""

    async def aclose(self) -> None: ...
