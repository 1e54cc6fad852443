"""Small SavedModels whose answers anyone can work out by hand; written by TensorFlow's own builder, without Keras."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1

# Short names of the dtypes that have a signature `id_NAME`, which gives back what it takes.
IDENTITIES = {
    "f64": tf.float64, "f16": tf.float16, "bf16": tf.bfloat16, "i8": tf.int8, "u8": tf.uint8, "i16": tf.int16,
    "u16": tf.uint16, "i32": tf.int32, "u32": tf.uint32, "i64": tf.int64, "u64": tf.uint64, "bool": tf.bool,
    "c64": tf.complex64,
}  # fmt: skip

Tensors = Mapping[str, Any]
Signatures = dict[str, tuple[Tensors, Tensors]]


def save(folder: Path, signatures: Callable[[], Signatures]) -> Path:
    """Write the SavedModel that `signatures` builds, signature → (inputs, outputs)."""
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        definitions = {name: _definition(name, *tensors) for name, tensors in signatures().items()}
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=definitions)
        builder.save()
    return folder


def zoo(scale: int = 1) -> Signatures:
    """`serving_default`: x [-1, 3] float32 → y = x·[[1, 2], [3, 4], [5, 6]]·scale; many others beside it."""
    return {**_numbers(scale), **_texts(), **_of_examples(), **_shapes(), **_troubles(), **_identities()}


def constant(value: float) -> Signatures:
    """Y is `value` in every row, which tells versions apart."""
    x = _input(tf.float32, [None], "x")
    return {"serving_default": ({"x": x}, {"y": tf.zeros_like(x) + value})}


def nodefault() -> Signatures:
    """Only a signature `only`: y = x + 1."""
    x = _input(tf.float32, [None], "x")
    return {"only": ({"x": x}, {"y": tf.add(x, 1.0)})}


def spinner() -> Signatures:
    """The output y is the input `turns`, after that many turns of a loop: a call that lasts as long as one likes."""
    turns = _input(tf.int64, [None], "turns")
    counted = tf.while_loop(
        lambda i: i < turns[0], lambda i: i + 1, [tf.constant(0, tf.int64)], parallel_iterations=1
    )  # fmt: skip
    return {"serving_default": ({"turns": turns}, {"y": tf.reshape(counted, [1])})}


def _numbers(scale: int) -> Signatures:
    x = _input(tf.float32, [None, 3], "lx")
    weights = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]) * float(scale)
    a, b = _input(tf.float32, [None, 2], "ma"), _input(tf.int32, [None, 2], "mb")
    f = _input(tf.float32, [None], "ff")
    big = tf.cast(b, tf.int64) * tf.constant(10**12, tf.int64)
    return {
        "serving_default": ({"x": x}, {"y": tf.matmul(x, weights, name="ly")}),
        "multi": ({"a": a, "b": b}, {"sum": a + tf.cast(b, tf.float32), "bb": b * 2, "big": big}),
        "ident": ({"x": f}, {"y": tf.identity(f)}),
        "halved": ({"x": f}, {"y": tf.cast(f, tf.float16)}),
        "recip": ({"x": f}, {"y": tf.math.reciprocal(f)}),
        "log": ({"x": f}, {"y": tf.math.log(f)}),
    }


def _texts() -> Signatures:
    s, grid = _input(tf.string, [None], "st"), _input(tf.string, [None, 2], "st2")
    one = _input(tf.string, [], "st0")
    return {
        "echo": ({"s": s}, {"s": tf.identity(s), "n": tf.strings.length(s)}),
        "echo_bytes": ({"s_bytes": s}, {"s_bytes": tf.identity(s)}),
        "echo_bytes_single": ({"image": s}, {"out_bytes": tf.identity(s)}),
        "echo2": ({"s": grid}, {"t": tf.identity(grid)}),
        "echo_one": ({"s": one}, {"s": tf.identity(one)}),
    }


def _of_examples() -> Signatures:
    """Signatures over `tf.Example`: age float, name bytes = "anon", n int64 = 0, tags."""
    serialized = _input(tf.string, [None], "tf_example")
    features = v1.parse_example(
        serialized,
        {
            "age": tf.io.FixedLenFeature([1], tf.float32),
            "name": tf.io.FixedLenFeature([1], tf.string, default_value="anon"),
            "n": tf.io.FixedLenFeature([1], tf.int64, default_value=[0]),
            "tags": tf.io.VarLenFeature(tf.string),
        },
    )
    inputs, age, n = {"inputs": serialized}, features["age"], tf.cast(features["n"], tf.float32)
    old = tf.sigmoid(age / 10.0)
    scores = tf.concat([old, 1 - old], 1)
    classes = tf.tile(tf.constant([["old", "young"]]), [tf.shape(age)[0], 1])
    told: Tensors = {"name": tf.identity(features["name"]), "age": tf.identity(age), "ntags": _count(features)}
    return {
        "classify": (inputs, {"classes": classes, "scores": scores}),
        "classify_scores": (inputs, {"scores": scores}),
        "classify_labels": (inputs, {"classes": classes}),
        "regress": (inputs, {"outputs": age * 2 + n}),
        "regress_wide": (inputs, {"outputs": tf.concat([age, n], 1)}),
        "example_predict": (inputs, told),
    }


def _count(features: Any) -> Any:
    tags = features["tags"]
    ones = tf.SparseTensor(tags.indices, tf.ones_like(tags.values, dtype=tf.float32), tags.dense_shape)
    return tf.sparse.reduce_sum(ones, 1, keepdims=True)


def _shapes() -> Signatures:
    scalar, fixed = _input(tf.float32, [], "sc"), _input(tf.float32, [2, 3], "fx")
    rows, anything = _input(tf.float32, [None], "nb"), _input(tf.float32, None, "ur")
    total = tf.reduce_sum(rows)
    return {
        "scalar": ({"x": scalar}, {"y": scalar * 2.0}),
        "fixed": ({"x": fixed}, {"y": tf.reduce_sum(fixed, 1)}),
        "nobatch": ({"x": rows}, {"y": total}),
        "mixbatch": ({"x": rows}, {"y": tf.identity(rows), "total": tf.reshape(total, [1])}),
        "anyrank": ({"x": anything}, {"y": anything * 1.0}),
    }


def _troubles() -> Signatures:
    x, at = _input(tf.float32, [None], "pos"), _input(tf.int32, [None], "at")
    check = v1.debugging.Assert(tf.reduce_all(x > 0), ["x must be positive:", x])
    with tf.control_dependencies([check]):
        root = tf.sqrt(x)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [10.0]), 0.0)  # never initialised
    return {
        "positive": ({"x": x}, {"y": root}),
        "forgotten": ({"at": at}, {"y": table.lookup(at)}),
        "looked_up": ({"at": at}, {"y": tf.gather(tf.constant([1.0, 2.0]), at)}),
    }


def _identities() -> Signatures:
    made = {}
    for name, dtype in IDENTITIES.items():
        x = _input(dtype, [None], f"p_{name}")
        made[f"id_{name}"] = ({"x": x}, {"y": tf.identity(x)})
    return made


def _input(dtype: Any, shape: list[int | None] | None, name: str) -> Any:
    return v1.placeholder(dtype, shape, name=name)


def _definition(name: str, inputs: Tensors, outputs: Tensors) -> Any:
    method = next((each for each in ("classify", "regress") if name.startswith(each)), "predict")
    described = [
        {name: v1.saved_model.utils.build_tensor_info(tensor) for name, tensor in tensors.items()}
        for tensors in (inputs, outputs)
    ]
    return v1.saved_model.signature_def_utils.build_signature_def(*described, f"tensorflow/serving/{method}")
