"""Files that are damaged, that lie about their size, or that hold something else: each is told, and none is trusted."""

import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from numpy.lib import format as npy
from pyarrow import parquet

from sluice.data import bounds, files_of, look
from sluice.policy.contract import Axis, Tensor
from sluice.policy.errors import BadRequest
from tests.data.written import FORMATS
from tests.size import size

BATCH = Axis("batch")
X = {"x": Tensor("x", "float32", (BATCH, Axis("axis", 2)))}
AGE = {"age": Tensor("age", "int32", (BATCH,))}
ARRAYS = "expected arrays, as `numpy.savez` writes them"


def refused(file: Path, inputs: dict[str, Tensor], reason: str) -> None:
    """The file is refused for this reason, under its name."""
    with pytest.raises(BadRequest, match=reason) as error:
        look(files_of(file), inputs)
    assert error.value.message.startswith(str(file))


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    stream = BytesIO()
    npy.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def archive(file: Path, kind: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(file, "w", kind) as made:
        for name, content in members.items():
            made.writestr(f"{name}.npy", content)
    return file


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_that_is_cut_or_changed_anywhere_is_refused(tmp_path: Path, save: Callable[..., None]) -> None:
    file = tmp_path / "rows.npz"
    save(file, x=np.random.default_rng(0).normal(size=(300, 2)))
    whole = file.read_bytes()
    for end in (0, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:end])
        refused(file, X, ARRAYS)
    for place in (200, 300, 1000, len(whole) // 2):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        refused(file, X, rf"{ARRAYS}|expected 'x'")


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header((4, 2)) + bytes(31), "as large as its header says, .* got 31 bytes"),
        (header((4, 2)) + bytes(33), "as large as its header says, .* got 33 bytes"),
        (header((10**15, 2)) + bytes(32), "as large as its header says"),
        (header((-4, -2)) + bytes(32), "an array with a value for each row"),
        (header(()) + bytes(4), r"an array with a value for each row; got one of shape \[\]"),
        (header((1, 2**60), "<U0"), "Input 'x' takes float32 .*; a value of shape"),
        (b"\x93NUMPY\x01\x00", ARRAYS),
        (b"\x93NUMPY\x03\x00" + bytes(20), "numbers or text; got an array of another kind"),
        (b"PK\x03\x04", ARRAYS),
    ],
)
def test_an_array_is_what_its_header_says(tmp_path: Path, kind: int, content: bytes, reason: str) -> None:
    refused(archive(tmp_path / "rows.npz", kind, x=content), X, reason)


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    np.savez(tmp_path / "rows.npz", x=np.array([Trap()], object))
    refused(
        tmp_path / "rows.npz",
        X,
        "numbers or text; got Python objects or records, which are not read. .* `.astype.str.`",
    )
    with zipfile.ZipFile(tmp_path / "rows.npz") as made:
        forged = header((1, 2)) + made.read("x.npy").partition(b"\n")[2]
    refused(archive(tmp_path / "rows.npz", x=forged), X, "as large as its header says")
    archive(tmp_path / "rows.npz", x=pickle.dumps(Trap()))
    refused(tmp_path / "rows.npz", X, ARRAYS)
    assert not (tmp_path / "sprung").exists()


def test_a_record_is_no_row(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros(3, [("a", "f4"), ("b", "f4")]))
    refused(tmp_path / "rows.npz", X, "got Python objects or records")


@pytest.mark.parametrize("odd", [np.zeros(2, "V3"), np.zeros(2, "M8[s]"), np.ones(2, "c8")])
@pytest.mark.parametrize("name", ["x", "label", "weight", "group", "session"])
def test_arrays_of_odd_kinds_are_refused(tmp_path: Path, odd: np.ndarray, name: str) -> None:
    np.savez(tmp_path / "rows.npz", **{"x": np.zeros((2, 2)), name: odd})
    refused(tmp_path / "rows.npz", X, "expected|takes")


def test_a_zip_bomb_is_refused_before_it_expands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_ALWAYS_BYTES", 1 << 20)
    bomb = archive(tmp_path / "rows.npz", x=header((1 << 18, 2)) + bytes(8 << 18))
    refused(bomb, X, r"x expand to 2,097,\d+ bytes from a file of .*, far more than rows do")
    archive(bomb, zipfile.ZIP_STORED, x=header((1 << 18, 2)) + bytes(8 << 18))
    with look(files_of(bomb), X) as data_set:  # what is as large as it says is no bomb
        assert data_set.rows == 1 << 18


def test_rows_without_bytes_are_not_endless(tmp_path: Path) -> None:
    nothing = {"x": Tensor("x", "float32", (BATCH, Axis("axis")))}
    archive(tmp_path / "rows.npz", x=header((1 << 40, 0)))
    refused(tmp_path / "rows.npz", nothing, "x expand to 1,099,511,627,776 bytes")


def test_a_row_has_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "ROW_BYTES", 100)
    monkeypatch.setattr(bounds, "LINE_BYTES", 100)
    wide = {"x": Tensor("x", "float32", (BATCH, Axis("axis")))}
    np.savez(tmp_path / "rows.npz", x=np.zeros((2, 13)))
    refused(tmp_path / "rows.npz", wide, "expected 'x' to be an array with rows of at most 100 bytes each; got 104")
    (tmp_path / "rows.jsonl").write_text('{"x": [1]}\n{"x": [' + "1," * 60 + "1]}")
    refused(tmp_path / "rows.jsonl", wide, "line 2: expected rows of at most 100 bytes")
    (tmp_path / "rows.csv").write_text("age\n" + "1\n" * 100 + '"' + "a\n" * 60 + '"\n')
    refused(tmp_path / "rows.csv", AGE, "line 151: expected rows of at most 100 bytes")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path: Path, method: int) -> None:
    archive(tmp_path / "rows.npz", method, x=header((1, 2)) + bytes(8))
    refused(tmp_path / "rows.npz", X, "stored or deflated, as numpy does; got another compression")


def test_a_long_list_of_arrays_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "DIRECTORY_BYTES", 1 << 16)
    np.savez(tmp_path / "rows.npz", **{f"array_{number}": np.zeros(1) for number in range(1500)})
    refused(tmp_path / "rows.npz", X, "the list of its arrays is too long")


def test_a_large_compressed_array_lies_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "COLUMN_ORDER_BYTES", 1000)
    np.savez_compressed(tmp_path / "rows.npz", x=np.asfortranarray(np.ones((200, 2))))
    refused(
        tmp_path / "rows.npz", X, "expected 'x' to be in C order, as it is compressed; got Fortran order. Save it by"
    )


def test_a_stored_array_is_compared_with_its_checksum(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros((5, 2)), other=np.zeros((5, 2)))
    content = (tmp_path / "rows.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "rows.npz") as made:
        crc = struct.pack("<I", made.getinfo("x.npy").CRC)
    (tmp_path / "rows.npz").write_bytes(content.replace(crc, struct.pack("<I", zlib.crc32(b"another"))))
    refused(tmp_path / "rows.npz", X, f"{ARRAYS}; Bad CRC-32 for file 'x.npy'")


def test_a_parquet_file_that_is_cut_or_changed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    table = pa.table({"age": pa.array(range(5000), pa.int32())})
    parquet.write_table(table, file, write_page_checksum=True, compression="snappy")
    whole = file.read_bytes()
    for changed in (b"", whole[:100], whole[:-1], whole[:500] + bytes(200) + whole[700:]):
        file.write_bytes(changed)
        refused(file, AGE, "expected a Parquet file")


def test_a_parquet_file_is_read_or_refused_whichever_byte_is_changed(tmp_path: Path) -> None:
    """Where pyarrow is asked for more of a damaged footer than it must be, it ends the process."""
    file = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"age": pa.array([1, 2], pa.int32()), "label": ["a", "b"]}), file, store_schema=False)
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        read_or_refused(file)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_read_or_refused_whatever_is_changed(tmp_path: Path, name: str) -> None:
    suffix, write = FORMATS[name]
    random, file = Random(name), tmp_path / f"rows{suffix}"
    write(file, [{"age": row, "label": "a", "weight": 1, "session": f"s{row % 3}"} for row in range(20)])
    whole = file.read_bytes()
    for _ in range(size(40, 2000)):
        content = bytearray(whole)
        for _ in range(random.randint(1, 5)):
            begin = random.randrange(len(content))
            content[begin : begin + random.choice([0, 1, 1, 9])] = random.randbytes(random.choice([0, 1, 1, 5]))
        file.write_bytes(content)
        read_or_refused(file)


def read_or_refused(file: Path) -> None:
    try:
        with look(files_of(file), AGE) as data_set:
            data_set.read_rows([data_set.rows - 1, 0])
    except BadRequest as error:
        assert error.message.startswith(str(file))


def test_a_parquet_file_of_one_value_over_and_over_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_ALWAYS_BYTES", 1 << 20)
    parquet.write_table(pa.table({"age": pa.array(np.zeros(1 << 19, np.int32))}), tmp_path / "rows.parquet")
    refused(tmp_path / "rows.parquet", AGE, "they expand to 2,\\d+,\\d+ bytes or more from a file of")


def test_a_column_too_many_is_refused_with_the_names_of_those_beside_inputs(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a,b,labels\n1,2,0\n")
    refused(file, X, "got 3: a, b, labels. Columns that are no inputs are named label, weight, group, session$")


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
@pytest.mark.parametrize("inputs", [X, AGE])
def test_columns_that_no_comma_separates_are_refused_with_that_advice(
    tmp_path: Path, inputs: dict[str, Tensor], separator: str, word: str
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("x.0,x.1\n1,2\n".replace(",", separator))
    refused(file, inputs, f"expected columns with commas between them; got 'x.0.*x.1', which .* by {word}. Write comm")


def test_a_column_may_be_called_as_if_it_were_several(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a;b\n1\n")
    with look(files_of(tmp_path / "rows.csv"), {"a;b": Tensor("a;b", "int32", (BATCH,))}) as data_set:
        assert data_set.read(0, 1).inputs["a;b"].tolist() == [1]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"age\n1\n\xff\n", "line 3: expected text in UTF-8; 'utf-8' codec can't decode byte 0xff"),
        ("a.jsonl", b'{"x": 1}\n{"x": "\xc3"}\n', "line 2: expected text in UTF-8"),
        ("a.csv", "age\n1\n".encode("utf-16"), "line 1: expected text in UTF-8"),
        ("a.csv", b'age,b\n1,2\n"3,4\n5,6\n', "line 4: expected a CSV file; unexpected end of data"),
        ("a.csv", b'age,b\n1,2\n3,"4', "line 3: expected a CSV file; unexpected end of data"),
        ("a.csv", b"age,b\n1,2\n3", "line 3: expected 2 values, as in line 1; got 1"),
        ("a.csv", b"age\n1\n\nx\n", "line 4: expected numbers for the input age; invalid literal .* 'x'"),
        ("a.csv", b"age\n1\n1_0\n", "line 3: expected numbers for the input age; '1_0' has an underscore"),
        ("a.csv", b"age,weight\n1,1_0\n", "line 2: expected 'weight' to hold .* '1_0' has an underscore"),
        ("a.csv", b"age,label.0,label.1\n1,1_0,2\n", "line 2: expected numbers for the label; '1_0' has an"),
        ("a.csv", b"age\n1\n99999999999\n", "line 3: expected numbers for the input age"),
        ("a.csv", b"age,\n1,2\n", "line 1: expected the columns' names, all different"),
        ("a.jsonl", b'{"x": 1}\n{"x": 2}\n{"x', "line 3: expected an object in JSON"),
        ("a.jsonl", b'{"x": 1}\n\n{"x": 2, "y": 1}', "line 3: expected an object with the fields of line 1"),
        (
            "a.jsonl",
            b'{"x": 1}\n\n{"x": 2.5}',
            "line 3: Input 'age' takes int32 .*; floating-point numbers came|line 3",
        ),
        (
            "a.jsonl",
            b'{"x": 1, "label": null}',
            "line 1: expected 'label' to hold a name, a number, or a list .* got null",
        ),
        ("a.jsonl", b'{"x": 1, "label": NaN}', "line 1: expected 'label' to hold finite numbers; got NaN"),
        (
            "a.jsonl",
            b'{"x": 1, "label": [1]}\n{"x": 1, "label": [[1], 2]}',
            "line 2: expected 'label' to hold lists of",
        ),
        ("a.jsonl", b'{"x": 1, "label": "a"}\n{"x": 1, "label": 0.5}', "expected labels of one kind in all rows"),
        ("a.jsonl", b'{"x": 1, "label": "\\ud800"}', "line 1: expected 'label' to hold text in UTF-8"),
        ("a.jsonl", b'{"x": 1, "weight": 1}\n{"x": 1, "weight": -1}', "line 2: expected 'weight' to hold .* got -1"),
        (
            "a.jsonl",
            b'{"x": 1, "weight": Infinity}',
            "line 1: expected 'weight' to hold a number of 0 or more .* got inf",
        ),
        ("a.csv", b"age,weight\n1,1e308\n", r"line 2: expected 'weight' to hold .* up to 1e\+100; got 1e\+308"),
        ("a.csv", b"age,weight\n1,much\n", "line 2: expected 'weight' to hold .* could not convert"),
        ("a.jsonl", b'{"x": 1, "weight": [1]}', "line 1: expected 'weight' to hold .* got a list"),
        ("a.jsonl", b'{"x": 1, "group": 0.5}', "line 1: expected 'group' to hold a name or a whole number .* got 0.5"),
        ("a.jsonl", b'{"x": 1, "session": null}', "line 1: expected 'session' to hold .* got null"),
        (
            "a.csv",
            b"age,group\n1,a\n1," + b"g" * 256,
            "line 3: expected 'group' to hold names of at most 255 .* of 256",
        ),
        ("a.jsonl", b'{"x": 1, "session": %d}' % 10**256, "line 1: expected 'session' to hold names of at most 255"),
    ],
)
def test_a_row_that_is_wrong_is_told_by_its_line(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, AGE, reason)


def test_names_and_fractions_are_not_labels_of_one_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "AT_ONCE_ROWS", 1)
    (tmp_path / "a.jsonl").write_text('{"x": 1, "label": "a"}\n{"x": 1, "label": 0.5}')
    refused(tmp_path / "a.jsonl", AGE, "expected labels of one kind in all rows; got names, and lists or fractions")


def test_an_array_that_holds_a_wrong_row_names_it(tmp_path: Path) -> None:
    x = np.zeros((5, 2))
    x[3, 1] = np.nan
    np.savez(tmp_path / "rows.npz", x=x)
    refused(tmp_path / "rows.npz", X, "row 3: Input 'x' takes finite numbers")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"x": [[1, 2], [3]]}', "line 2: Input 's' takes float32 .*; part 1 has 1 value where part 0 has 2"),
        ('{"x": [[1], [2]]}', r"line 2: Input 's' takes float32 \[time≥1, axis=2\]; a value of shape \[2, 1\] came"),
        ('{"x": 3}', r"line 2: Input 's' takes float32"),
        ('{"x": "text"}', r"line 2: Input 's' takes float32"),
    ],
)
def test_a_ragged_row_that_is_wrong_is_told_by_its_line(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"x": [[1, 2]]}\n' + line)
    ragged = {"s": Tensor("s", "float32", (BATCH, Axis("time", ragged=True), Axis("axis", 2)))}
    refused(tmp_path / "rows.jsonl", ragged, reason)


def test_rows_differ_only_along_ragged_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    even = {"s": Tensor("s", "float32", (BATCH, Axis("time")))}
    (tmp_path / "rows.jsonl").write_text('{"x": [1, 2]}\n{"x": [3]}')
    refused(tmp_path / "rows.jsonl", even, "Input 's' takes float32 .*; part 1 has 1 value where part 0 has 2")
    monkeypatch.setattr(bounds, "AT_ONCE_ROWS", 1)
    refused(
        tmp_path / "rows.jsonl", even, r"expected rows of one shape of the input s in all files; got \[\(1,\), \(2,\)\]"
    )


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x": np.zeros((2, 3, 2)), "n": np.array([1, 4])}, "Input 's' has 3 values along its axis 'time'; .* 1 to 4"),
        ({"x": np.zeros((2, 3, 2)), "n": np.array([0.5, 1])}, "holds lengths, whole numbers; float64 came"),
        ({"x": np.zeros((2, 3, 2)), "n": np.array([1])}, "expected as many rows of each array; got 2 of x, 1 of n"),
    ],
)
def test_lengths_fit_what_is_padded(tmp_path: Path, arrays: dict[str, np.ndarray], reason: str) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)
    ragged = {"s": Tensor("s", "float32", (BATCH, Axis("time", ragged=True), Axis("axis", 2)))}
    with pytest.raises(BadRequest, match=reason):
        look(files_of(tmp_path), ragged, {"time": "n"})


def test_rows_that_are_not_padded_have_no_lengths_beside_them(tmp_path: Path) -> None:
    lines = [json.dumps({"x": [[1, 2]] * length, "n": length}) for length in (1, 2)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    ragged = {"s": Tensor("s", "float32", (BATCH, Axis("time", ragged=True), Axis("axis", 2)))}
    with pytest.raises(
        BadRequest, match="that are padded, with n beside them; got rows of different lengths\\. Leave n out"
    ):
        look(files_of(tmp_path), ragged, {"time": "n"})


def test_what_stands_beside_rows_stands_in_all_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", age=np.arange(2), group=np.arange(2))
    np.savez(tmp_path / "b.npz", age=np.arange(2))
    with pytest.raises(BadRequest, match=r"b\.npz: expected groups, as the other files have them; got none"):
        look(files_of(tmp_path), AGE)


def test_a_folder_that_holds_no_rows_is_told(tmp_path: Path) -> None:
    for name, reason in ((".", r"expected a file that ends in \.npz, .*, or a folder of them"), ("no", "no such file")):
        with pytest.raises(BadRequest, match=reason):
            files_of(tmp_path / name)
