"""A model server on strings: it speaks TensorFlow Serving's wire and does what a test tells it, fault by fault.

Its model `sum` adds up what a session sends: output `total` and state `h` are state + x. Its model `plain` has no
contract and doubles rows. `halves` is `sum` in bfloat16, without a scan; `words` numbers the words that a session
sends; `wide` has a large state. Order, loss and mix-ups show in the sums.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import ml_dtypes
import numpy as np

from services.wire.sluice.tfs.v1 import serving_pb2 as tfs
from services.wire.tensors import read_tensor, write_tensor

FEATURES = 2
WIDTH = 1024  # of a state that fills a page of memory
_BATCH, _TIME, _FEATURE = {"name": "batch"}, {"name": "time"}, {"name": "feature", "size": FEATURES}


def _tensor(*axes: dict[str, Any], **about: str) -> dict[str, Any]:
    return {"dtype": "float32", "axes": list(axes), **about}


_STATES = [{"name": "h", "input": "h", "output": "h", "dtype": "float32", "shape": [FEATURES], "initial": 0.0}]
CONTRACT = {
    "schema": 1,
    "summary": "Adds up what a session sends.",
    "signatures": {
        "step": {
            "kind": "step",
            "inputs": {"x": _tensor(_BATCH, _FEATURE, meaning="what to add")},
            "outputs": {"total": _tensor(_BATCH, _FEATURE), "doubled": _tensor(_BATCH, _FEATURE)},
            "states": _STATES,
        },
        "scan": {
            "kind": "scan",
            "inputs": {"x": _tensor(_BATCH, _TIME, _FEATURE, meaning="what to add")},
            "outputs": {"total": _tensor(_BATCH, _TIME, _FEATURE), "doubled": _tensor(_BATCH, _TIME, _FEATURE)},
            "states": _STATES,
            "lengths": "lengths",
        },
        "serving_default": {
            "kind": "rows",
            "inputs": {"x": _tensor(_BATCH, _TIME, _FEATURE)},
            "outputs": {"total": _tensor(_BATCH, _TIME, _FEATURE)},
        },
    },
}


def _only_step(dtype: str, axes: list[dict[str, Any]], output: str, state: dict[str, Any]) -> dict[str, Any]:
    tensor = {"dtype": dtype, "axes": [_BATCH, *axes]}
    states = [{"name": "h", "input": "h", "output": "h", **state}]
    step = {"kind": "step", "inputs": {"x": tensor}, "outputs": {output: tensor}, "states": states}
    return {"schema": 1, "signatures": {"step": step}}


HALVES = _only_step("bfloat16", [_FEATURE], "total", {"dtype": "bfloat16", "shape": [FEATURES], "initial": 0.0})
WORDS = _only_step("string", [], "said", {"dtype": "int64", "shape": [], "initial": 0})


WIDE = _only_step("float32", [_FEATURE], "total", {"dtype": "float32", "shape": [WIDTH], "initial": 0.0})


def step(x: np.ndarray, h: np.ndarray) -> dict[str, np.ndarray]:
    return {"total": x + h, "doubled": 2 * (x + h), "h": x + h}


def scan(x: np.ndarray, h: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    totals = np.cumsum(np.concatenate([h[:, None], x], axis=1), axis=1)
    return {
        "total": totals[:, 1:],
        "doubled": 2 * totals[:, 1:],
        "h": np.stack([total[length] for total, length in zip(totals, lengths, strict=True)]),
    }


def written(document: dict[str, Any]) -> Callable[..., dict[str, np.ndarray]]:
    """A contract signature."""
    return lambda probe: {"contract": np.array([json.dumps(document).encode()] * len(probe), dtype=object)}


def half_step(x: np.ndarray, h: np.ndarray) -> dict[str, np.ndarray]:
    total = (x.astype(np.float32) + h.astype(np.float32)).astype(ml_dtypes.bfloat16)
    return {"total": total, "h": total}


def say(x: np.ndarray, h: np.ndarray) -> dict[str, np.ndarray]:
    said = np.empty(len(x), object)
    said[:] = [b"%d %s" % (number, word) for number, word in zip(h.tolist(), x.tolist(), strict=True)]
    return {"said": said, "h": h + 1}


def wide_step(x: np.ndarray, h: np.ndarray) -> dict[str, np.ndarray]:
    h = h + x[:, :1]
    return {"total": h[:, :FEATURES], "h": h}


def double(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"y": 2 * x}


SIGNATURES: dict[str, dict[str, Callable[..., dict[str, np.ndarray]]]] = {
    "sum": {
        "step": step,
        "scan": scan,
        "contract": written(CONTRACT),
        "serving_default": lambda x: {"total": np.cumsum(x, 1)},
    },
    "plain": {"serving_default": double},
    "halves": {"step": half_step, "contract": written(HALVES)},
    "words": {"step": say, "contract": written(WORDS)},
    "wide": {"step": wide_step, "contract": written(WIDE)},
}


class Puppet:
    """`before` runs ahead of every answer and may wait or raise; `twist` may change the answer's outputs."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder / 'puppet.sock'}"
        self.versions: dict[str, list[int]] = {name: [1] for name in SIGNATURES}
        self.batches: list[tuple[str, int]] = []  # (signature, rows) of what ran, without contracts
        self.running = 0
        self.before: Callable[[tfs.PredictRequest], Any] | None = None
        self.twist: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None
        self._server: grpc.aio.Server | None = None
        self._changed = asyncio.Condition()

    async def start(self) -> None:
        self._server = grpc.aio.server()
        self._server.add_insecure_port(self.address)
        self._server.add_generic_rpc_handlers((self._handlers("PredictionService"), self._handlers("ModelService")))
        await self._server.start()

    async def stop(self) -> None:
        """Go away at once, in mid-batch too."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(None)

    async def until_running(self, batches: int) -> None:
        """Wait until this many batches have come and not been answered."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: self.running >= batches), 10)

    def _handlers(self, service: str) -> grpc.GenericRpcHandler:
        methods = {
            "PredictionService": {
                "Predict": (self._predict, tfs.PredictRequest),
                "GetModelMetadata": (self._metadata, tfs.GetModelMetadataRequest),
            },
            "ModelService": {"GetModelStatus": (self._status, tfs.GetModelStatusRequest)},
        }[service]
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(call, request.FromString, lambda reply: reply.SerializeToString())
            for name, (call, request) in methods.items()
        }
        return grpc.method_handlers_generic_handler(f"tensorflow.serving.{service}", handlers)

    async def _predict(self, request: tfs.PredictRequest, context: Any) -> tfs.PredictResponse:
        spec = request.model_spec
        if spec.version.value not in self.versions.get(spec.name, []):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        inputs = {name: read_tensor(tensor) for name, tensor in request.inputs.items()}
        outputs = SIGNATURES[spec.name][spec.signature_name](**inputs)
        if spec.signature_name != "contract":
            outputs = await self._played(request, inputs, outputs, context)
        reply = tfs.PredictResponse()
        for name, array in outputs.items():
            write_tensor(reply.outputs[name], np.ascontiguousarray(array))
        return reply

    async def _played(self, request: Any, inputs: Any, outputs: Any, context: Any) -> Any:
        await self._count(1)
        try:
            self.batches.append((request.model_spec.signature_name, len(next(iter(inputs.values())))))
            if self.before is not None:
                fault = await self.before(request)
                if fault is not None:
                    await context.abort(fault, "as the test told me")
            return self.twist(outputs) if self.twist else outputs
        finally:
            await self._count(-1)

    async def _count(self, change: int) -> None:
        async with self._changed:
            self.running += change
            self._changed.notify_all()

    async def _metadata(self, request: tfs.GetModelMetadataRequest, _: Any) -> tfs.GetModelMetadataResponse:
        signatures = tfs.SignatureDefMap()
        for name in SIGNATURES[request.model_spec.name]:
            info = signatures.signature_def[name].inputs["x"]
            info.dtype = tfs.DT_FLOAT
            for size in (-1, FEATURES):
                info.tensor_shape.dim.add().size = size
        reply = tfs.GetModelMetadataResponse()
        reply.metadata["signature_def"].value = signatures.SerializeToString()
        return reply

    async def _status(self, request: tfs.GetModelStatusRequest, context: Any) -> tfs.GetModelStatusResponse:
        versions = self.versions.get(request.model_spec.name)
        if not versions:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        reply = tfs.GetModelStatusResponse()
        for version in versions or []:
            reply.model_version_status.add(version=version, state=tfs.ModelVersionStatus.AVAILABLE)
        return reply
