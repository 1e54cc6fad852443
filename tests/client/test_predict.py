"""Rows that go through the client, over HTTP or gRPC, come back as the model alone answers them."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from sluice.client import AsyncClient, BadRequest, NotFound
from sluice.policy.errors import (
    DtypeMismatch,
    MissingInput,
    ModelNotFound,
    ShapeMismatch,
    SignatureNotFound,
    UnknownInput,
    VersionNotFound,
)
from tests.client.conftest import Urls
from tests.end_to_end.serving import serving
from tests.model_server import zoo
from tests.model_server.conftest import Server

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "rows": ("serving_default", {"x": [[1, 2, 3], [0.1, -0.2, 0.3]]}),
    "rows of another dtype": ("serving_default", {"x": np.eye(3, dtype=np.float64)}),
    "an array in another order": ("serving_default", {"x": np.arange(12, dtype=np.float32).reshape(3, 4).T[:, :3]}),
    "named inputs and outputs": ("multi", {"a": [[0.5, 1.5]], "b": np.array([[2**31 - 1, -(2**31)]])}),
    "an output without rows": ("nobatch", {"x": [1, 2, 3.5]}),
    "a scalar": ("scalar", {"x": 21}),
    "any shape": ("anyrank", {"x": np.ones((1, 2, 1, 2))}),
    "a fixed shape": ("fixed", {"x": [[1, 2, 3], [4, 5, 6]]}),
    "not finite": ("log", {"x": [0, -1, 1, np.inf, np.nan]}),
    "text": ("echo", {"s": ["one", "zwölf", ""]}),
    "text in two axes": ("echo2", {"s": np.array([["a", "b"], ["c", "d"]])}),
    "a text": ("echo_one", {"s": "one"}),
    "bytes": ("echo_bytes", {"s_bytes": [b"\x00\xff\x00", b"", "text".encode("utf-16")]}),
    "bytes beside text": ("echo_bytes", {"s_bytes": [b"\xff", "ä"]}),
    "float64": ("id_f64", {"x": [0.1, 1e300, -5e-324]}),
    "int8": ("id_i8", {"x": [-128, 127]}),
    "uint8": ("id_u8", {"x": [0, 255]}),
    "int16": ("id_i16", {"x": [-(2**15), 2**15 - 1]}),
    "int32": ("id_i32", {"x": [-(2**31), 2**31 - 1]}),
    "uint32": ("id_u32", {"x": [0, 2**32 - 1]}),
    "int64": ("id_i64", {"x": [-(2**63), 2**63 - 1]}),
    "uint64": ("id_u64", {"x": [0, 2**63 + 1, 2**64 - 1]}),
    "bool": ("id_bool", {"x": [True, False]}),
}
ONLY_GRPC: dict[str, tuple[str, dict[str, Any]]] = {
    "float16": ("id_f16", {"x": [0.1, 65504]}),
    "bfloat16": ("id_bf16", {"x": [0.1, -3e38]}),
    "uint16": ("id_u16", {"x": [0, 2**16 - 1]}),
    "complex64": ("id_c64", {"x": [1 + 2j, 3]}),
}
ROWS = [[1.0, 2.0, 3.0]]
FLAWS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "model": ({"model": "nothing"}, ModelNotFound, "nothing"),
    "hostile model": ({"model": "../zoo\0"}, (BadRequest, NotFound), "zoo"),
    "version": ({"version": 9}, VersionNotFound, "9"),
    "version that is none": ({"version": "newest"}, ValueError, "whole number .*'newest'"),
    "version too large": ({"version": 2**63}, ValueError, "63 bits"),
    "version below 0": ({"version": -1}, ValueError, "-1"),
    "version and label": ({"version": 1, "label": "first"}, ValueError, "a version or a label"),
    "label": ({"label": "last"}, BadRequest, "'last'"),
    "signature": ({"signature": "nope"}, SignatureNotFound, "'nope'; it has .*'multi'"),
    "output": ({"outputs": ["z"]}, BadRequest, "no output 'z'; the signature has 'y'"),
    "input": ({"values": {"y": ROWS}}, UnknownInput, "no input 'y'; the signature has 'x'"),
    "no input": ({"values": {}}, MissingInput, "'x'"),
    "bare value": ({"values": ROWS, "signature": "multi"}, MissingInput, "2 inputs, 'a', 'b': name them"),
    "shape": ({"values": [[1, 2]]}, ShapeMismatch, r"axis 1=3\]; a value of shape \[1, 2\] came"),
    "ragged lists": ({"values": [[1, 2, 3], [1]]}, ShapeMismatch, "row 1 has 1 value where row 0 has 3 values"),
    "text": ({"values": [["a", "b", b"c"]]}, DtypeMismatch, "takes float32 .*; text came"),
    "numbers": ({"values": [1, 2], "signature": "echo"}, DtypeMismatch, "takes string .* text"),
    "fractions": ({"values": [1.5], "signature": "id_i32"}, DtypeMismatch, "takes int32 .*; fractions came"),
    "too large": ({"values": [300], "signature": "id_i8"}, DtypeMismatch, "int8 cannot hold"),
    "value": ({"values": [1, -1], "signature": "positive"}, BadRequest, "positive"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    folder = tmp_path_factory.mktemp("zoo") / "zoo"
    zoo.save(folder / "1", lambda: {"serving_default": zoo.zoo(1)["serving_default"]})
    zoo.save(folder / "2", lambda: zoo.zoo(2))
    return folder


@pytest.fixture(scope="module")
def gateway(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Urls]:
    folder = tmp_path_factory.mktemp("server")
    config = folder / "models.config"
    config.write_text(
        f"model_config_list {{ config {{ name: 'zoo' base_path: '{models}' model_platform: 'tensorflow' "
        "model_version_policy { all {} } version_labels { key: 'first' value: 1 } } }"
    )
    flag = "--allow_version_labels_for_unavailable_models"
    server = Server(folder, f"--model_config_file={config}", flag)
    with serving(models.parent, folder, "--backend", f"unix:{server.socket}") as running:
        yield Urls(running.url, running.grpc_url)
    server.close()


@pytest.fixture(scope="module")
def alone(models: Path) -> Any:
    """The signatures of version 2, in this process."""
    return tf.saved_model.load(str(models / "2")).signatures


@pytest.fixture(params=["http", "grpc"])
async def client(request: pytest.FixtureRequest, gateway: Urls) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(getattr(gateway, request.param), timeout_s=30) as client:
        yield client


@pytest.mark.parametrize("name", CALLS)
async def test_the_answer_is_the_models_own(client: AsyncClient, alone: Any, name: str) -> None:
    signature, values = CALLS[name]
    agree(await client.predict("zoo", values, signature=signature), answered(alone[signature], values))


@pytest.mark.parametrize("name", ONLY_GRPC)
async def test_dtypes_without_json_go_over_grpc(gateway: Urls, alone: Any, name: str) -> None:
    signature, values = ONLY_GRPC[name]
    async with AsyncClient(gateway.grpc) as client:
        agree(await client.predict("zoo", values, signature=signature), answered(alone[signature], values))
    async with AsyncClient(gateway.http) as client:
        with pytest.raises(DtypeMismatch, match=rf"takes {name}.*(grpc://|gRPC)"):
            await client.predict("zoo", values, signature=signature)


async def test_float32_comes_back_bit_by_bit(client: AsyncClient) -> None:
    bits = np.random.default_rng(7).integers(0, 1 << 32, 4000, np.uint32)
    floats = bits.view(np.float32)
    numbers = np.append(floats[~np.isnan(floats)], np.float32([0, -0.0, np.inf, -np.inf, 1e-45]))
    answer = (await client.predict("zoo", numbers, signature="ident"))["y"]
    assert answer.view(np.uint32).tolist() == numbers.view(np.uint32).tolist()


async def test_the_only_input_needs_no_name_and_answers_can_be_written_to(client: AsyncClient) -> None:
    y = (await client.predict("zoo", ROWS))["y"]
    assert y.tolist() == [[44, 56]]
    y += 1


async def test_versions_and_labels_choose_who_answers(client: AsyncClient) -> None:
    chosen: list[dict[str, Any]] = [{}, {"version": 2}, {"version": "1"}, {"label": "first"}]
    answers = [await client.predict("zoo", ROWS, **which) for which in chosen]
    assert [answer["y"].tolist() for answer in answers] == [[[44, 56]]] * 2 + [[[22, 28]]] * 2


async def test_only_the_outputs_that_are_wanted_come(client: AsyncClient) -> None:
    values = {"a": [[1, 2]], "b": [[3, 4]]}
    answer = await client.predict("zoo", values, ["big", "sum"], signature="multi")
    assert {name: array.tolist() for name, array in answer.items()} == {"big": [[3e12, 4e12]], "sum": [[4, 6]]}


async def test_many_calls_at_the_same_time_get_their_own_answers(client: AsyncClient) -> None:
    rows = [np.full((1 + each % 3, 3), each, np.float32) for each in range(300)]
    answers = await asyncio.gather(*(client.predict("zoo", row) for row in rows))
    for row, answer in zip(rows, answers, strict=True):
        assert answer["y"].tolist() == [[18 * row[0, 0], 24 * row[0, 0]]] * len(row)


@pytest.mark.parametrize("name", FLAWS)
async def test_what_is_wrong_with_a_call_is_told(client: AsyncClient, name: str) -> None:
    given, kind, sentence = FLAWS[name]
    with pytest.raises(kind, match=sentence):
        await client.predict(**{"model": "zoo", "values": {"x": ROWS}} | given)
    assert (await client.predict("zoo", ROWS))["y"].shape == (1, 2)


def answered(signature: Any, values: dict[str, Any]) -> dict[str, Any]:
    """What the model answers to values in its own dtypes."""
    specs = signature.structured_input_signature[1]
    inputs = {name: tf.constant(value, specs[name].dtype) for name, value in values.items()}
    return {name: output.numpy() for name, output in signature(**inputs).items()}


def agree(outputs: dict[str, Any], own: dict[str, Any]) -> None:
    assert outputs.keys() == own.keys()
    for name, value in own.items():
        expected = np.asarray(value, object if isinstance(value, bytes) else None)
        assert (outputs[name].dtype, outputs[name].shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(outputs[name], expected)
