"""A puppet that batches, too, as TensorFlow Serving does with --enable_batching."""

import asyncio

import grpc

from sluice.wire.tensors import read_tensor
from tests.gateway.puppet import Puppet

TEXT = (
    "Tensors with name 'x:0' from different tasks have different shapes and padding is turned off.Set "
    "pad_variable_length_inputs to true, or ensure that all tensors with the same namehave equal dimensions starting "
    "with the first dim."
)


class BatchingServer:
    """Refuses calls of one signature whose shapes differ and that were there at one time, as TensorFlow Serving does.

    The first `meeting` calls wait for each other. Calls of more than `largest` rows are refused, too.
    """

    def __init__(self, puppet: Puppet, meeting: int = 0, largest: int = 1000) -> None:
        self.refused = 0
        self._largest = largest
        self._puppet = puppet
        self._meeting = meeting
        self._there: list[tuple[str, object, set[object]]] = []
        puppet.before = self._met

    async def _met(self, request):
        rows = max(read_tensor(each).shape[0] for each in request.inputs.values())
        if rows > self._largest:
            self.refused += 1
            said = f"Task size {rows} is larger than maximum input batch size {self._largest}"
            return grpc.StatusCode.INVALID_ARGUMENT, said
        called = f"{request.model_spec.name}/{request.model_spec.signature_name}"
        shape = tuple((name, read_tensor(each).shape[1:]) for name, each in sorted(request.inputs.items()))
        mates = [shapes for other, _, shapes in self._there if other == called]
        mine = (called, shape, {shape, *(other for call, other, _ in self._there if call == called)})
        for shapes in mates:
            shapes.add(shape)
        self._there.append(mine)
        if self._meeting:
            self._meeting -= 1
            await self._puppet.until_running(2)
        for _ in range(20):  # turns in which others may come
            await asyncio.sleep(0)
        self._there.remove(mine)
        if len(mine[2]) == 1:
            return None
        self.refused += 1
        return grpc.StatusCode.FAILED_PRECONDITION, TEXT
