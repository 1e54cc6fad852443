"""The Open Inference Protocol v2: a request's tensors and parameters out of JSON, bytes or messages, and answers back.

It does not know HTTP, models or sessions; the formats are the protocol's, with the binary tensor data extension.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from sluice.policy.contract import BFLOAT16, Axis, Tensor, numpy_dtype
from sluice.policy.errors import BadRequest, DtypeMismatch, MissingInput, ShapeMismatch, UnsupportedByModel
from sluice.policy.tensors import read_tensor
from sluice.wire.binary_tensors import DATATYPES, DTYPES, Raw, from_raw, raw_bytes
from sluice.wire.messages.oip.v1 import inference_pb2 as messages
from sluice.wire.rest import mixes_words, parse_json
from sluice.wire.shown import as_json
from sluice.wire.tensors import dtype_name

Array = NDArray[Any]

_ELEMENTS_LIMIT = 1 << 55
_AXES_LIMIT = 32
_SEQUENCE_LIMIT = 128  # bytes of a sequence's id, as in Triton
# Where values lie in a message that are not raw.
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SequencePart:
    """Which sequence of requests one belongs to, and whether it is the first or the last of it."""

    id: str
    start: bool
    end: bool


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request as sent: input name → array, names of the `outputs` wanted (none: all), and parameters.

    `binary`: of JSON requests, output name → whether it is wanted as bytes; "" stands for those not named.
    `timeout_s` is None where the request says nothing. `priority` counts from 1, the highest; 0: it says nothing.
    """

    id: str
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...] = ()
    signature: str = ""
    sequence: SequencePart | None = None
    timeout_s: float | None = None
    priority: int = 0
    binary: Mapping[str, bool] = field(default_factory=dict)


def parse_infer(body: bytes, header_length: int | None = None) -> InferRequest:
    """A request's JSON, of which `header_length` is the size in bytes where binary tensor data follow.

    Raises:
        BadRequest, MissingInput, ShapeMismatch, DtypeMismatch: what is wrong with it.
    """
    size = len(body) if header_length is None else header_length
    if not 0 <= size <= len(body):
        raise BadRequest(f"Inference-Header-Content-Length is {size}, and the body has {len(body)} bytes.")
    fields = parse_json(body[:size] if size < len(body) else body)
    if not isinstance(fields, dict):
        raise BadRequest('The body is an object with "inputs", a list of tensors.')
    id = _typed(fields, "id", str, "")
    parameters = _typed(fields, "parameters", dict, {})
    raw = Raw(memoryview(body)[size:])
    inputs = _by_name((_input(each, raw) for each in _objects(fields, "inputs")), "input")
    if not inputs:
        raise MissingInput('The request has no "inputs"; send a tensor for each input of the model.')
    if raw.left:
        raise BadRequest(f"The body has {raw.left} bytes more than its inputs' binary_data_size say.")
    wanted = _by_name((_wanted(each) for each in _objects(fields, "outputs")), "output")
    whole = {"": _flag(parameters, "binary_data_output")} | {
        name: each for name, each in wanted.items() if each is not None
    }
    return InferRequest(id, inputs, tuple(wanted), binary=whole, **_options(parameters))


def encode_infer(
    request: InferRequest, model: str, version: int, outputs: Mapping[str, Array]
) -> tuple[bytes, int | None]:
    """The body for an answer, and the size of its JSON where binary tensor data follow.

    Raises:
        UnsupportedByModel: an output's dtype has no form here.
    """
    tensors, raw = [], []
    for name in request.outputs or outputs:
        array = outputs[name]
        told = {"name": name, "datatype": _datatype(name, array), "shape": list(array.shape)}
        if request.binary.get(name, request.binary.get("")):
            raw.append(raw_bytes(array))
            tensors.append(told | {"parameters": {"binary_data_size": len(raw[-1])}})
        else:
            tensors.append(told | {"data": _json_data(array)})
    about = {"id": request.id} if request.id else {}
    head = orjson.dumps(
        {"model_name": model, "model_version": str(version), **about, "outputs": tensors},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    return (b"".join([head, *raw]), len(head)) if raw else (head, None)


def read_infer(message: messages.ModelInferRequest) -> InferRequest:
    """As `parse_infer`, of a message."""
    for given in message.inputs:
        _refuse_extensions("Input", given.name, _plain(given.parameters))
    for wanted in message.outputs:
        _refuse_extensions("Output", wanted.name, _plain(wanted.parameters))
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise BadRequest(
            f"There are {len(message.inputs)} inputs and {len(raw)} raw_input_contents; give one for each."
        )
    read = ((each.name, _from_message(each, raw[i] if raw else None)) for i, each in enumerate(message.inputs))
    inputs = _by_name(read, "input")
    if not inputs:
        raise MissingInput("The request has no inputs; send a tensor for each input of the model.")
    outputs = _by_name(((each.name, None) for each in message.outputs), "output")
    return InferRequest(message.id, inputs, tuple(outputs), **_options(_plain(message.parameters)))


def write_infer(
    request: InferRequest, model: str, version: int, outputs: Mapping[str, Array]
) -> messages.ModelInferResponse:
    """As `encode_infer`, into a message; values are raw."""
    reply = messages.ModelInferResponse(model_name=model, model_version=str(version), id=request.id)
    for name in request.outputs or outputs:
        array = outputs[name]
        reply.outputs.add(name=name, datatype=_datatype(name, array), shape=array.shape)
        reply.raw_output_contents.append(raw_bytes(array))
    return reply


def _input(value: Mapping[str, Any], raw: Raw) -> tuple[str, Array]:
    name = _name(value, "input")
    datatype, shape = _known(name, value.get("datatype")), _shape(name, value.get("shape"))
    parameters = _typed(value, "parameters", dict, {})
    _refuse_extensions("Input", name, parameters)
    size = parameters.get("binary_data_size")
    if size is not None:
        if type(size) is not int or size < 0 or value.get("data") is not None:
            raise BadRequest(f'Input {name!r}: "binary_data_size" is a number of bytes, and stands without "data".')
        return name, from_raw(name, datatype, shape, raw.take(name, size))
    if value.get("data") is None:
        raise MissingInput(f'Input {name!r} has neither "data" nor binary data.')
    return name, _from_json(name, datatype, shape, value["data"])


def _from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Array:
    """Values in one list, or in lists as deep as the shape."""
    dtype = DTYPES[datatype]
    if mixes_words(data):
        raise DtypeMismatch(f"Input {name!r}: its data mix true or false with numbers; send one or the other.")
    try:
        array = np.array(data, object if datatype == "BYTES" else None)
    except (ValueError, OverflowError):
        raise ShapeMismatch(f"Input {name!r}: the lists of its data differ in length, or go too deep.") from None
    if array.size != math.prod(shape) or (array.ndim > 1 and array.shape != shape):
        raise ShapeMismatch(
            f"Input {name!r} is of shape {list(shape)}; its data are of the shape {list(array.shape)}.",
            expected=list(shape), got=list(array.shape),
        )  # fmt: skip
    if not array.size:
        return np.empty(shape, numpy_dtype(dtype))
    values = Tensor(name, dtype, (Axis("values", array.size),))
    try:
        return read_tensor(array.reshape(-1), values, finite=False).reshape(shape)
    except DtypeMismatch as error:  # which knows the model's words, not the protocol's
        came = error.message.removeprefix(f"Input {name!r} takes {values}; ")
        raise DtypeMismatch(f"Input {name!r} is {datatype}; {came}", expected=datatype) from None


def _from_message(tensor: Any, raw: bytes | None) -> Array:
    name = tensor.name
    datatype, shape = _known(name, tensor.datatype), _shape(name, list(tensor.shape))
    if raw is not None:
        if tensor.HasField("contents"):
            raise BadRequest(f"Input {name!r} has contents and raw_input_contents; send one of them.")
        return from_raw(name, datatype, shape, raw)
    if not tensor.HasField("contents") and 0 not in shape:
        raise MissingInput(f"Input {name!r} has neither contents nor raw_input_contents.")
    if datatype not in _CONTENTS:
        raise DtypeMismatch(f"Input {name!r} is {datatype}, which goes into raw_input_contents.")
    filled = {kind.name for kind, _ in tensor.contents.ListFields()} - {_CONTENTS[datatype]}
    if filled:
        raise DtypeMismatch(f"Input {name!r} is {datatype}, whose values go into {_CONTENTS[datatype]}; not {filled}.")
    return _from_json(name, datatype, shape, list(getattr(tensor.contents, _CONTENTS[datatype])))


def _known(name: str, datatype: Any) -> str:
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise DtypeMismatch(f"Input {name!r}: a datatype is one of {', '.join(DTYPES)}; got {as_json(datatype)}.")
    return datatype


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    few = isinstance(shape, list) and len(shape) <= _AXES_LIMIT
    if not (few and all(type(size) is int and 0 <= size < 1 << 63 for size in shape)):
        raise ShapeMismatch(
            f"Input {name!r}: a shape is a list of up to {_AXES_LIMIT} sizes from 0; got {as_json(shape)}."
        )
    if math.prod(max(size, 1) for size in shape) >= _ELEMENTS_LIMIT:  # also of an empty one, as numpy wants it
        raise ShapeMismatch(f"Input {name!r}: a shape of {shape!r:.80} has more elements than fit into memory.")
    return tuple(shape)


def _wanted(value: Mapping[str, Any]) -> tuple[str, bool | None]:
    """An output that is asked for, and whether as bytes; None: it does not say."""
    name, parameters = _name(value, "output"), _typed(value, "parameters", dict, {})
    _refuse_extensions("Output", name, parameters)
    return name, _flag(parameters, "binary_data", None)


def _refuse_extensions(kind: str, name: str, parameters: Mapping[str, Any]) -> None:
    if parameters.get("shared_memory_region") is not None:
        raise BadRequest(f"{kind} {name!r} names a region of shared memory, which is not served: send and get values.")
    if parameters.get("classification"):
        raise BadRequest(f"{kind} {name!r}: the classification extension is not served; ask for the scores themselves.")


def _options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that mean something here; the others are the client's own affair."""
    priority, timeout = _get(parameters, "priority", 0), _get(parameters, "timeout", 0)
    for name, value in (("priority", priority), ("timeout", timeout)):
        if type(value) is not int or value < 0:
            raise BadRequest(f'"{name}" is a whole number from 0; got {as_json(value)}.')
    signature = _get(parameters, "signature_name", "")
    if not isinstance(signature, str):
        raise BadRequest(f'"signature_name" is a name; got {as_json(signature)}.')
    return {
        "signature": signature, "sequence": _sequence(parameters), "timeout_s": timeout / 1e6 if timeout else None,
        "priority": priority,
    }  # fmt: skip


def _sequence(parameters: Mapping[str, Any]) -> SequencePart | None:
    id = _get(parameters, "sequence_id", 0)
    start, end = (_flag(parameters, f"sequence_{name}") for name in ("start", "end"))
    if isinstance(id, bool) or not isinstance(id, int | str):
        raise BadRequest(f'"sequence_id" is a whole number or text; got {as_json(id)}.')
    if not id:
        if start or end:
            raise BadRequest("sequence_start and sequence_end need a sequence_id that is not 0 or empty.")
        return None
    if (size := len(str(id).encode())) > _SEQUENCE_LIMIT:
        raise BadRequest(f'"sequence_id" has up to {_SEQUENCE_LIMIT} bytes as UTF-8; {size} came.')
    return SequencePart(str(id), start, end)


def _flag(parameters: Mapping[str, Any], name: str, default: Any = False) -> Any:
    value = _get(parameters, name, default)
    if value is not default and not isinstance(value, bool):
        raise BadRequest(f'"{name}" is true or false; got {as_json(value)}.')
    return value


def _plain(parameters: Any) -> dict[str, Any]:
    """Name → value of a message's parameters."""
    chosen = ((name, each, each.WhichOneof("parameter_choice")) for name, each in parameters.items())
    return {name: getattr(each, choice) for name, each, choice in chosen if choice}


def _get(fields: Mapping[str, Any], name: str, default: Any) -> Any:
    """A field's value; some clients write null for what they leave out."""
    value = fields.get(name)
    return default if value is None else value


def _typed(fields: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = _get(fields, name, default)
    if not isinstance(value, kind):
        raise BadRequest(f'"{name}" is {_KINDS[kind]}; got {as_json(value)}.')
    return value


_KINDS: Mapping[type, str] = {str: "text", dict: "an object", list: "a list"}


def _objects(fields: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    value = _typed(fields, name, list, [])
    if not all(isinstance(each, dict) for each in value):
        raise BadRequest(f'"{name}" is a list of objects; got {as_json(value)}.')
    return value  # type: ignore[no-any-return]


def _name(value: Mapping[str, Any], what: str) -> str:
    name = value.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest(f'Each {what} has a "name"; got {as_json(name)}.')
    return name


def _by_name(pairs: Iterator[tuple[str, Any]], what: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadRequest(f"The {what} {name!r} is given twice.")
        found[name] = value
    return found


def _datatype(name: str, array: Array) -> str:
    dtype = dtype_name(array.dtype)
    if dtype not in DATATYPES:
        raise UnsupportedByModel(f"Output {name!r} is {dtype}, which this protocol has no datatype for.")
    return DATATYPES[dtype]


def _json_data(array: Array) -> Any:
    flat = array.ravel()
    if flat.dtype.hasobject:
        return [value.decode(errors="replace") for value in flat]
    return flat.astype(np.float32) if flat.dtype == BFLOAT16 else flat
