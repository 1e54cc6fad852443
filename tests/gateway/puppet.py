"""A model server on strings: it speaks TensorFlow Serving's wire and does what a test tells it, fault by fault.

Its model `sum` adds up what a session sends: output `total` and state `h` are state + x. Its model `plain` has no
contract and doubles rows; it alone takes examples. `halves` is `sum` in bfloat16, without a scan; `words` numbers the
words that a session sends; `wide` has a large state. `spans` adds up sequences, `strides` does so in chunks, and
`texts` finds the largest byte of each. Order, loss and mix-ups show in the sums. `sides` recognizes on which side a
point lies, and how strange it is; `guard` is its detector.
"""

import asyncio
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import ml_dtypes
import numpy as np

from sluice.wire.messages.tf.v1 import tensorflow_pb2 as tf
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.tensors import read_tensor, write_tensor

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


def _sequences(inputs: dict[str, Any], outputs: dict[str, Any], axis: str) -> dict[str, Any]:
    default = {"kind": "sequences", "calls": "sequences", "inputs": inputs, "outputs": outputs}
    default |= {"lengths": {axis: "lengths"}, "buckets": {axis: [2, 4, 8]}}
    return {"schema": 1, "signatures": {"serving_default": default}}


_SPAN = {"name": "time", "ragged": True}
SPANS = _sequences(
    {"x": _tensor(_BATCH, _SPAN, _FEATURE, pad=-1.0)},
    {"total": _tensor(_BATCH, _FEATURE), "running": _tensor(_BATCH, _TIME, _FEATURE)},
    "time",
)
STRIDES = {
    "schema": 1,
    "signatures": {
        "serving_default": SPANS["signatures"]["serving_default"]
        | {"buckets": {"time": [64]}, "scan": {"signature": "scan", "chunk": 4}},
        "scan": {
            "kind": "scan",
            "inputs": {"x": _tensor(_BATCH, _TIME, _FEATURE)},
            "outputs": {"total": _tensor(_BATCH, _FEATURE), "running": _tensor(_BATCH, _TIME, _FEATURE)},
            "states": _STATES,
            "lengths": "lengths",
        },
    },
}
_BYTE = {"name": "byte", "ragged": True, "least": 0}
TEXTS = _sequences(
    {"x": {"dtype": "int32", "text": "utf-8", "axes": [_BATCH, _BYTE]}},
    {"largest": {"dtype": "int32", "axes": [_BATCH]}},
    "byte",
)


def add_up(x: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    valid = np.arange(x.shape[1]) < lengths[:, np.newaxis]
    assert (x[~valid] == -1).all(), "it is padded with what the contract says"
    totals = np.cumsum(x, 1)
    last = totals[np.arange(len(x)), lengths - 1]
    return {"total": last, "running": np.where(valid[..., np.newaxis], totals, np.nan).astype(np.float32)}


def add_on(x: np.ndarray, h: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    answer = add_up(x, lengths)
    total, running = answer["total"] + h, answer["running"] + h[:, np.newaxis]
    return {"total": total, "running": running, "h": total}


def find_largest(x: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    return {"largest": np.array([max(row[:n], default=-1) for row, n in zip(x, lengths, strict=True)], np.int32)}


ALPHABET = ["", *"abcdefghijklmnopqrstuvwxyz"]  # a token's text; the first one starts and ends
_LETTERS = 16
_WORD = [
    {"name": "word", "input": "word", "output": "word", "dtype": "int32", "shape": [_LETTERS]},
    {"name": "at", "input": "at", "output": "at", "dtype": "int32", "shape": []},
]
SPELLER = {
    "schema": 1,
    "signatures": {
        "encode": {
            "kind": "encode",
            "inputs": {"x": {"dtype": "int32", "text": "utf-8", "axes": [_BATCH, {"name": "byte", "ragged": True}]}},
            "outputs": {},
            "states": _WORD,
            "lengths": {"byte": "lengths"},
            "buckets": {"byte": [4, _LETTERS]},
        },
        "decode": {
            "kind": "decode",
            "inputs": {"token": {"dtype": "int32", "axes": [_BATCH]}},
            "outputs": {"logits": _tensor(_BATCH, {"name": "token", "size": len(ALPHABET)})},
            "states": _WORD,
        },
    },
    "generation": {
        "encode": "encode", "decode": "decode", "input": "token", "logits": "logits", "start": 0, "end": 0,
        "max_steps": _LETTERS + 1, "tokens": ALPHABET,
    },
}  # fmt: skip


def encode_word(x: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    word = np.zeros((len(x), _LETTERS), np.int32)
    word[:, : x.shape[1]] = np.where(np.arange(x.shape[1]) < lengths[:, np.newaxis], x - 96, 0)
    return {"word": word, "at": np.zeros(len(x), np.int32)}


def spell(token: np.ndarray, word: np.ndarray, at: np.ndarray) -> dict[str, np.ndarray]:
    """The word's letter at `at`, if the last token was the one before; everything else is unlikely, `z` least."""
    letters = np.pad(word, ((0, 0), (0, 1)))
    before = np.where(at > 0, letters[np.arange(len(at)), at - 1], 0)
    following = np.where(token == before, letters[np.arange(len(at)), at], ALPHABET.index("x"))
    logits = np.full((len(at), len(ALPHABET)), -5.0, np.float32)
    logits[np.arange(len(at)), following] = 5
    return {"logits": logits, "word": word, "at": at + 1}


_POINTS = {"x": _tensor(_BATCH, _FEATURE)}
SIDES = {
    "schema": 1,
    "signatures": {
        "serving_default": {
            "kind": "rows", "inputs": _POINTS, "outputs": {"logits": _tensor(_BATCH, {"name": "class", "size": 3})}
        },
        "recognize": {
            "kind": "rows",
            "inputs": _POINTS,
            "outputs": {
                "logits": _tensor(_BATCH, {"name": "class", "size": 3}),
                "features": _tensor(_BATCH, _FEATURE),
                "scores/knn": _tensor(_BATCH),
                "scores/vim": _tensor(_BATCH),
            },
        },
    },
    "recognition": {
        "signature": "serving_default", "logits": "logits", "classes": ["left", "right", "middle"],
        "scores_signature": "recognize", "scores": {"knn": "scores/knn", "vim": "scores/vim"},
        "detector": {"model": "guard", "known": 0}, "range": [0.0, 1.0],
    },
}  # fmt: skip
GUARD = {
    "schema": 1,
    "signatures": {
        "serving_default": {
            "kind": "rows", "inputs": _POINTS, "outputs": {"logits": _tensor(_BATCH, {"name": "class", "size": 2})}
        },
    },
    "recognition": {"signature": "serving_default", "logits": "logits", "classes": ["known", "unknown"]},
}  # fmt: skip


def side(x: np.ndarray) -> dict[str, np.ndarray]:
    """Left of the middle or right of it, the farther the surer."""
    return {"logits": np.stack([4 - 4 * x[:, 0], 4 * x[:, 0], np.ones(len(x), np.float32)], axis=1)}


def strangeness(x: np.ndarray) -> dict[str, np.ndarray]:
    return {**side(x), "features": x, "scores/knn": x[:, 1].copy(), "scores/vim": 1 - x[:, 1]}


def guard(x: np.ndarray) -> dict[str, np.ndarray]:
    """Who is stranger than a half is unknown."""
    return {"logits": np.stack([np.zeros(len(x), np.float32), 8 * x[:, 1] - 4], axis=1)}


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
    "spans": {"sequences": add_up, "contract": written(SPANS)},
    "strides": {"sequences": add_up, "scan": add_on, "contract": written(STRIDES)},
    "speller": {"encode": encode_word, "decode": spell, "contract": written(SPELLER)},
    "sides": {"serving_default": side, "recognize": strangeness, "contract": written(SIDES)},
    "guard": {"serving_default": guard, "contract": written(GUARD)},
    "texts": {"sequences": find_largest, "contract": written(TEXTS)},
}


class Puppet:
    """`before` runs ahead of every answer and may wait or raise; `twist` may change the answer's outputs.

    Versions in `ended` are those that it had once. Where `forwarded` is set, it answers every call but those about its
    models' states with these bytes, and `asked` are the messages that came. `traces` are what metadata told of a trace.
    """

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder / 'puppet.sock'}"
        self.versions: dict[str, list[int]] = {name: [1] for name in SIGNATURES}
        self.states: dict[tuple[str, int], tuple[str, str]] = {}  # (model, version) → (state, error), if not AVAILABLE
        self.shapes: dict[str, dict[str, tuple[int, ...] | None]] = {}  # model → x, y → its metadata; None: any rank
        self.ended: dict[str, list[int]] = {}
        self.batches: list[tuple[str, int]] = []  # (signature, rows) of what ran, without contracts
        self.running = 0
        self.before: Callable[[Any], Any] | None = None
        self.twist: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None
        self.forwarded: bytes | None = None
        self.asked: list[tuple[str, bytes]] = []
        self.traces: list[dict[str, str]] = []
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
        methods: dict[str, tuple[Any, Any]] = {
            "PredictionService": {
                "Predict": (self._predict, tfs.PredictRequest),
                "GetModelMetadata": (self._metadata, tfs.GetModelMetadataRequest),
                "Classify": (self._classify, tfs.ClassificationRequest),
                "Regress": (self._regress, tfs.RegressionRequest),
                "MultiInference": (None, None),
            },
            "ModelService": {
                "GetModelStatus": (self._status, tfs.GetModelStatusRequest),
                "HandleReloadConfigRequest": (None, None),
            },
        }[service]
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._raw(f"/tensorflow.serving.{service}/{name}", *method))
            for name, method in methods.items()
        }
        return grpc.method_handlers_generic_handler(f"tensorflow.serving.{service}", handlers)

    def _raw(self, path: str, call: Any, kind: Any) -> Callable[[bytes, Any], Any]:
        async def answer(message: bytes, context: Any) -> bytes:
            if told := {name: text for name, text in context.invocation_metadata() if name.startswith("trace")}:
                self.traces.append(told)
            if self.forwarded is not None and call != self._status:
                self.asked.append((path, message))
                if self.before is not None:
                    await self.before(message)
                return self.forwarded
            if call is None:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "nobody told me to answer")
            return (await call(kind.FromString(message), context)).SerializeToString()  # type: ignore[no-any-return]

        return answer

    async def _predict(self, request: tfs.PredictRequest, context: Any) -> tfs.PredictResponse:
        spec = request.model_spec
        if spec.version.value not in self.versions.get(spec.name, []):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        inputs = {name: read_tensor(tensor) for name, tensor in request.inputs.items()}
        outputs = SIGNATURES[spec.name][spec.signature_name](**inputs)
        if "probe" not in inputs:
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
                    code, text = fault if isinstance(fault, tuple) else (fault, "as the test told me")
                    await context.abort(code, text)
            return self.twist(outputs) if self.twist else outputs
        finally:
            await self._count(-1)

    async def _count(self, change: int) -> None:
        async with self._changed:
            self.running += change
            self._changed.notify_all()

    async def _classify(self, request: tfs.ClassificationRequest, context: Any) -> tfs.ClassificationResponse:
        reply = tfs.ClassificationResponse()
        for _ in range(await self._examples(request, context)):
            reply.result.classifications.add().classes.add(label="sum", score=0.5)
        return reply

    async def _regress(self, request: tfs.RegressionRequest, context: Any) -> tfs.RegressionResponse:
        reply = tfs.RegressionResponse()
        for _ in range(await self._examples(request, context)):
            reply.result.regressions.add(value=0.5)
        return reply

    async def _examples(self, request: Any, context: Any) -> int:
        if request.model_spec.name not in self.versions:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        if request.model_spec.name != "plain":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Expected classification signature method_name")
        given: Any = getattr(request.input, request.input.WhichOneof("kind") or "example_list")
        return len(given.examples)

    async def _metadata(self, request: tfs.GetModelMetadataRequest, context: Any) -> tfs.GetModelMetadataResponse:
        if request.model_spec.name not in self.versions:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        signatures = tfs.SignatureDefMap()
        for name, call in SIGNATURES[request.model_spec.name].items():
            described = signatures.signature_def[name]
            if "probe" in inspect.signature(call).parameters:
                described.inputs["probe"].dtype, described.outputs["contract"].dtype = tf.DT_INT32, tf.DT_STRING
                for info in (described.inputs["probe"], described.outputs["contract"]):
                    info.tensor_shape.dim.add().size = -1
                continue
            shapes = {"x": (-1, FEATURES), "y": (-1, FEATURES)} | self.shapes.get(request.model_spec.name, {})
            for key, info in (("x", described.inputs["x"]), ("y", described.outputs["y"])):
                info.dtype, sizes = tf.DT_FLOAT, shapes[key]
                info.tensor_shape.unknown_rank = sizes is None
                for size in sizes or ():
                    info.tensor_shape.dim.add().size = size
        reply = tfs.GetModelMetadataResponse()
        reply.model_spec.name = request.model_spec.name
        reply.model_spec.version.value = request.model_spec.version.value or 1
        reply.metadata["signature_def"].value = signatures.SerializeToString()
        return reply

    async def _status(self, request: tfs.GetModelStatusRequest, context: Any) -> tfs.GetModelStatusResponse:
        name = request.model_spec.name
        versions, ended = self.versions.get(name, []), self.ended.get(name, [])
        if not versions and not ended:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        reply = tfs.GetModelStatusResponse()
        for version in versions:
            state, error = self.states.get((request.model_spec.name, version), ("AVAILABLE", ""))
            status = reply.model_version_status.add(version=version, state=tfs.ModelVersionStatus.State.Value(state))
            status.status.error_message = error
        for version in ended:
            reply.model_version_status.add(version=version, state=tfs.ModelVersionStatus.END)
        return reply
