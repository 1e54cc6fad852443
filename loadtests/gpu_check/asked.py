"""A model server that is asked over gRPC, one batch at a time, as the gateway asks it."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray

from sluice.policy.contract import Contract
from sluice.policy.contract_document import parse_contract
from sluice.wire.predict_frames import PredictRequest, read_outputs, write_request

Array = NDArray[Any]

_ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_CALL_S = 120.0  # a GPU compiles kernels at the first batch of a shape


class Refused(Exception):
    """The model server did not answer; the sentence says what it said."""


class Version(NamedTuple):
    """A version of a model."""

    model: str
    number: int


class Server:
    """One model server at HOST:PORT or unix:PATH."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = grpc.insecure_channel(address, options=_ANY_SIZE)
        self._predict = self._channel.unary_unary(_PREDICT)

    def reach(self, limit_s: float) -> None:
        """Raises: Refused: there is no connection to it in time."""
        try:
            grpc.channel_ready_future(self._channel).result(limit_s)
        except grpc.FutureTimeoutError:
            raise Refused(f"there is no model server at {self.address}") from None

    def predict(self, version: Version, signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Raises: Refused."""
        request = write_request(PredictRequest(version.model, signature, inputs, version.number))
        try:
            reply = self._predict(request, timeout=_CALL_S)
        except grpc.RpcError as error:
            raise Refused(f"{error.code().name}: {(error.details() or '').splitlines()[0]:.200}") from None
        return {name: np.asarray(array) for name, array in read_outputs(reply).items()}

    def contract(self, version: Version) -> Contract:
        """Raises: Refused: it does not serve the model, or that has no contract."""
        answer = self.predict(version, "contract", {"probe": np.zeros(1, np.int32)})
        return parse_contract(json.loads(answer["contract"].flat[0]))

    def close(self) -> None:
        self._channel.close()
