"""Whatever is read of a data set, and in which order, is what a list of its rows would give."""

import hashlib
import os
import pickle
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import fsspec
import numpy as np
import pytest

from sluice.data import Columns, DataSet, File, Rows, bounds, files_of, lines, look, tables
from sluice.policy.contract import Axis, Tensor
from sluice.policy.errors import BadRequest
from tests.data import written
from tests.data.written import FORMATS, Row
from tests.size import size

BATCH = Axis("batch")
INPUTS = {
    "age": Tensor("age", "int32", (BATCH,)),
    "place": Tensor("place", "float32", (BATCH, Axis("axis", 2))),
    "name": Tensor("name", "string", (BATCH,)),
}
STEPS = Axis("time", ragged=True)
RAGGED = {
    "series": Tensor("series", "float32", (BATCH, STEPS, Axis("axis", 2))),
    "marks": Tensor("marks", "int32", (BATCH, STEPS)),
    "text": Tensor("text", "int32", (BATCH, Axis("byte", ragged=True)), text="utf-8"),
}
TEXTS = ["Ada", "Bob, the\nbuilder", 'a "word"', "żółw", "7", "\u2028", "-"]


@pytest.fixture(autouse=True)
def little_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows take all ways that many rows take."""
    monkeypatch.setattr(bounds, "AT_ONCE_ROWS", 7)
    monkeypatch.setattr(bounds, "AT_ONCE_BYTES", 300)
    monkeypatch.setattr(lines, "_EVERY", 5)


def rows_of(random: Random, count: int) -> list[Row]:
    return [
        {
            "age": random.randrange(-1000, 1000),
            "place": [random.choice([0.5, -1, 1e-3, 3e7]), random.gauss(0, 1)],
            "name": random.choice(TEXTS),
            "label": random.choice(["cat", "dog", "żółw"]),
            "weight": random.choice([0, 1, 0.25]),
            "group": random.choice(["a", "b"]),
            "session": f"s{random.randrange(4)}",
        }
        for _ in range(count)
    ]


def check(read: Rows, rows: Sequence[Row], places: Sequence[int]) -> None:
    """What was read are these rows of the list."""
    own = [rows[place] for place in places]
    assert read.places.tolist() == [*places]
    assert read.inputs["age"].tolist() == [row["age"] for row in own]
    np.testing.assert_array_equal(read.inputs["place"], np.array([row["place"] for row in own], np.float32))
    assert [text.decode() for text in read.inputs["name"]] == [row["name"] for row in own]
    assert read.labels == [row["label"] for row in own]
    assert read.weights.tolist() == [row["weight"] for row in own]
    assert (read.groups, read.sessions) == ([row["group"] for row in own], [row["session"] for row in own])


def check_everywhere(data_set: DataSet, rows: Sequence[Row], random: Random) -> None:
    """Forward in parts, then ranges and scattered rows as they come."""
    assert data_set.rows == len(rows)
    at = 0
    while at < len(rows):
        stop = min(len(rows), at + random.randint(1, 12))
        check(data_set.read(at, stop), rows, range(at, stop))
        at = stop
    for _ in range(4):
        start = random.randrange(len(rows))
        stop = random.randint(start + 1, len(rows))
        check(data_set.read(start, stop), rows, range(start, stop))
        places = [random.randrange(len(rows)) for _ in range(random.randint(1, 9))]
        check(data_set.read_rows(places), rows, places)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(size(4, 100)))
def test_any_rows_of_a_file_are_those_that_were_written(tmp_path: Path, name: str, seed: int) -> None:
    random = Random(f"{name} {seed}")
    suffix, write = FORMATS[name]
    rows, file = rows_of(random, random.randint(1, 60)), tmp_path / f"rows{suffix}"
    write(file, rows)
    with look(files_of(file), INPUTS) as data_set:
        assert data_set.given == {"label", "weight", "group", "session"}
        assert data_set.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert data_set.bytes == file.stat().st_size
        names = list(dict.fromkeys(row["session"] for row in rows))
        assert [session.name for session in data_set.sessions] == names
        for session in data_set.sessions:
            assert session.places.tolist() == [
                place for place, row in enumerate(rows) if row["session"] == session.name
            ]
        check_everywhere(data_set, rows, random)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("chunk", [100, 1 << 18])
def test_a_look_is_ended_by_what_it_calls_meanwhile(
    tmp_path: Path, name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_CHUNK", chunk)  # of the file, before or while rows are read
    suffix, write = FORMATS[name]
    write(tmp_path / f"rows{suffix}", rows_of(Random(name), 60))
    called = list[int]()

    def go_on() -> None:
        called.append(1)
        if len(called) == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        look(files_of(tmp_path), INPUTS, go_on=go_on)
    assert len(called) == 4


@pytest.mark.parametrize("name", FORMATS)
def test_threads_that_read_take_turns(tmp_path: Path, name: str) -> None:
    suffix, write = FORMATS[name]
    rows, file = rows_of(Random(name), 60), tmp_path / f"rows{suffix}"
    write(file, rows)
    with look(files_of(file), INPUTS) as data_set, ThreadPoolExecutor(4) as threads:
        own = [threads.submit(check_everywhere, data_set, rows, Random(seed)) for seed in range(8)]
        closed = threads.submit(data_set.close)
        for each in (*own, closed):
            each.result()


@pytest.mark.parametrize("seed", range(size(6, 100)))
def test_files_of_a_folder_are_one_data_set_which_can_be_pickled(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    rows, content = list[Row](), b""
    for number in range(random.randint(2, 11)):
        suffix, write = random.choice([*FORMATS.values()])
        own, file = rows_of(random, random.randint(1, 15)), tmp_path / f"{number:02}{suffix}"
        write(file, own)
        rows += own
        content += file.read_bytes()
    (tmp_path / "notes.txt").write_text("no rows")
    with look(files_of(tmp_path), INPUTS) as data_set:
        data_set.read(0, 1)
        assert data_set.sha256 == hashlib.sha256(content).hexdigest()
        with pickle.loads(pickle.dumps(data_set)) as other:
            check_everywhere(other, rows, random)
        check_everywhere(data_set, rows, random)


@pytest.mark.parametrize("name", ["jsonl", "parquet"])
def test_rows_of_different_lengths_are_lists_of_arrays(tmp_path: Path, name: str) -> None:
    random = Random(name)
    rows = []
    for number in range(40):
        length = 3 if number < 10 else random.randint(1, 6)
        series = [[random.random(), 1.0] for _ in range(length)]
        rows.append(
            {"series": series, "marks": [*range(length)], "text": random.choice(TEXTS), "label": [*range(length)]}
        )
    suffix, write = FORMATS[name]
    write(tmp_path / f"rows{suffix}", rows)
    with look(files_of(tmp_path), RAGGED, {"time": "lengths"}) as data_set:
        assert data_set.read(0, 10).inputs["series"].shape == (10, 3, 2)
        assert data_set.read(0, 10).labels.shape == (10, 3)
        read = data_set.read(5, 40)
    assert isinstance(read.inputs["series"], list)
    for place, row in enumerate(rows[5:]):
        np.testing.assert_array_equal(read.inputs["series"][place], np.array(row["series"], np.float32))
        np.testing.assert_array_equal(read.inputs["marks"][place], np.array(row["marks"], np.int32))
        np.testing.assert_array_equal(read.labels[place], row["label"])
        assert read.inputs["marks"][place].dtype == np.int32
    assert read.inputs["text"].tolist() == [row["text"] for row in rows[5:]]


@pytest.mark.parametrize("write", [written.npz, written.deflated])
def test_padded_arrays_are_cut_to_the_lengths_beside_them(tmp_path: Path, write: Any) -> None:
    random = np.random.default_rng(1)
    lengths = random.integers(1, 6, 30)
    series, marks = random.normal(size=(30, 5, 2)).astype(np.float32), random.integers(0, 9, (30, 5))
    (np.savez if write is written.npz else np.savez_compressed)(
        tmp_path / "rows.npz", series=series, marks=marks, steps=lengths, text=np.array(["a", "bc"] * 15)
    )
    with look(files_of(tmp_path), RAGGED, {"time": "steps"}) as data_set:
        read = data_set.read(3, 30)
    for place, length in enumerate(lengths[3:].tolist(), 3):
        np.testing.assert_array_equal(read.inputs["series"][place - 3], series[place, :length])
        np.testing.assert_array_equal(read.inputs["marks"][place - 3], marks[place, :length])
    assert read.inputs["text"].tolist() == (["a", "bc"] * 15)[3:]
    with look(files_of(tmp_path), RAGGED) as data_set:  # without, they are as long as the arrays
        np.testing.assert_array_equal(data_set.read(0, 30).inputs["series"], series)


def test_columns_may_have_names_of_their_own(tmp_path: Path) -> None:
    rows = [{"years": 3, "at": [1.0, 2.0], "who": "x", "kind": "cat", "label": "y", "weight": 2}]
    own = Columns({"age": "years", "place": "at", "name": "who"}, label="kind", weight=None)
    for suffix, write in FORMATS.values():
        write(tmp_path / f"rows{suffix}", rows)
        with look(files_of(tmp_path / f"rows{suffix}"), INPUTS, columns=own) as data_set:
            read = data_set.read(0, 1)
        assert (read.inputs["age"].tolist(), read.labels, read.weights.tolist()) == ([3], ["cat"], [1])
        with pytest.raises(BadRequest, match="expected the column truth for the label; got years, at"):
            look(files_of(tmp_path / "rows.npz"), INPUTS, columns=Columns(own.inputs, label="truth"))
        with pytest.raises(BadRequest, match=r"expected the column no for the input age, int32 .*; got years"):
            look(files_of(tmp_path / "rows.npz"), INPUTS, columns=Columns({**own.inputs, "age": "no"}))
        with pytest.raises(BadRequest, match="a column is named for the input 'ages'; there is age, place, name"):
            look(files_of(tmp_path / "rows.npz"), INPUTS, columns=Columns({**own.inputs, "ages": "years"}))


def test_an_input_called_weight_is_no_weight(tmp_path: Path) -> None:
    written.csv(tmp_path / "rows.csv", [{"weight": 80, "height": 2}])
    inputs = {name: Tensor(name, "float32", (BATCH,)) for name in ("weight", "height")}
    with look(files_of(tmp_path), inputs) as data_set:
        assert (data_set.given, data_set.read(0, 1).weights.tolist()) == (frozenset(), [1])


LABELS: Mapping[str, tuple[list[Any], Any]] = {
    "whole numbers": ([1, 2, 3], np.array([1, 2, 3])),
    "fractions among whole numbers": ([1, 2.5, 3], np.array([1, 2.5, 3])),
    "vectors": ([[1, 2], [3, 4], [5, 6.5]], np.array([[1, 2], [3, 4], [5, 6.5]])),
    "matrices": ([[[1], [2]]] * 3, np.array([[[1], [2]]] * 3)),
    "names and places": (["cat", 1, 2], ["cat", "1", "2"]),
    "sequences of names": ([["a"], ["b"], ["c"]], np.array([["a"], ["b"], ["c"]])),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_of_one_kind_whichever_rows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(bounds, "AT_ONCE_ROWS", 1)
    labels, wanted = LABELS[name]
    written.jsonl(tmp_path / "rows.jsonl", [{"x": 1, "label": label} for label in labels])
    with look(files_of(tmp_path), {"age": INPUTS["age"]}) as data_set:
        for start, stop in ((0, 3), (0, 1), (1, 3), (2, 3)):
            read = data_set.read(start, stop).labels
            assert type(read) is type(wanted)
            np.testing.assert_array_equal(read, wanted[start:stop])
            assert getattr(read, "dtype", None) == getattr(wanted, "dtype", None)


def test_a_store_is_read_like_a_folder(tmp_path: Path) -> None:
    random, system = Random(7), fsspec.filesystem("memory")
    rows = rows_of(random, 40)
    for number, (suffix, write) in enumerate(FORMATS.values()):
        write(tmp_path / f"{number}{suffix}", rows)
        system.pipe(f"/store/{number}{suffix}", (tmp_path / f"{number}{suffix}").read_bytes())
        file = File(f"rows{suffix}", f"memory://store/{number}{suffix}")
        with look([file], INPUTS) as data_set:
            check_everywhere(data_set, rows, random)
            system.pipe(f"/store/{number}{suffix}", b"other")
            with pickle.loads(pickle.dumps(data_set)) as again, pytest.raises(BadRequest, match="it has changed since"):
                again.read(0, 1)


def test_a_file_that_has_changed_since_it_was_looked_at_is_refused(tmp_path: Path) -> None:
    written.jsonl(tmp_path / "rows.jsonl", [{"x": 1}, {"x": 2}])
    data_set = look(files_of(tmp_path), {"age": INPUTS["age"]})
    (tmp_path / "rows.jsonl").write_text('{"x": 3}\n')
    with pytest.raises(BadRequest, match=r"rows\.jsonl: expected the file as it was .*; it has changed since"):
        data_set.read(0, 2)
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(BadRequest, match=r"rows\.jsonl: expected a file of rows; .*No such file"):
        data_set.read(0, 2)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_changed_while_it_is_open_is_found_out(tmp_path: Path, name: str) -> None:
    suffix, write = FORMATS[name]
    file = tmp_path / f"rows{suffix}"
    write(file, rows_of(Random(3), 40))
    with look(files_of(file), INPUTS) as data_set:
        data_set.read(0, 2)
        data_set.check_unchanged()
        with file.open("r+b") as stream:
            stream.write(stream.read()[::-1])
        os.utime(file, ns=(0, 0))  # clocks of file systems are coarse
        with pytest.raises(BadRequest, match=r"expected the file as it was .*; it has changed since"):
            data_set.check_unchanged()


def test_a_read_begins_and_ends_within_the_data_set(tmp_path: Path) -> None:
    written.npz(tmp_path / "rows.npz", [{"x": 1}, {"x": 2}])
    with look(files_of(tmp_path), {"age": INPUTS["age"]}) as data_set:
        for start, stop in ((0, 3), (1, 1), (-1, 1), (2, 1)):
            with pytest.raises(ValueError, match="expected one row or more from 0 up to 2"):
                data_set.read(start, stop)
