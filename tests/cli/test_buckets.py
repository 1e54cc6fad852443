"""`sluice buckets`: lengths from a gateway and from files, against padding that is counted row by row."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from sluice.cli.buckets.padding import MOST_BUCKETS, WORTH, Ragged, grouped, savings, worthwhile
from sluice.gateway.http.rest import BucketsInfo
from tests.cli.conftest import Told, answering
from tests.size import size

Buckets = Callable[..., Told]


def axis(bounds: list[int], lengths: dict[str, float], *, learned: bool = False) -> Any:
    return {"bounds": bounds, "learned": learned, "lengths": lengths}


def answer(model: str, chunk: int = 0, **signatures: Any) -> tuple[int, Any]:
    told = {"model": model, "version": "3", "signatures": signatures, "chunks": dict.fromkeys(signatures, chunk)}
    assert BucketsInfo.model_validate(told).model_dump() == told, "a gateway answers like this"
    return 200, told


SERIES = {"2": 6.0, "3": 1.0, "7": 2.0, "10": 1.0}
ANSWERS: dict[str, tuple[int, Any]] = {
    "series": answer("series", serving_default={"time": axis([4, 8, 12], SERIES)}),
    "faded": answer("faded", serving_default={"time": axis([8, 2048], {"3": 0.5, "5": 12.25}, learned=True)}),
    "pairs": answer(
        "pairs",
        serving_default={"source": axis([16], {"9": 4.0}), "target": axis([8, 16], {})},
        encode={"source": axis([16], {"2": 1.0, "3": 1.0})},
    ),
    "silent": answer("silent", serving_default={"time": axis([4, 8, 12], {})}),
    "chunked": answer(
        "chunked", 8, serving_default={"time": axis([4, 8, 12], {"2": 6.0, "8": 2.0, "11": 1.0, "13": 1})}
    ),
    "rows": answer("rows"),
    "odd": (200, ["another", "service"]),
    "half": (200, {"signatures": {"serving_default": {"time": {"bounds": [3]}}}}),
    "nothing": (404, {"error": "Model 'nothing' is not served.", "code": "model_not_found"}),
    "down": (503, {"error": "The model server does not answer.", "code": "backend_unavailable"}),
    "a model": answer("a model", serving_default={"time": axis([4], {"4": 1.0})}),
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    """What a gateway answers to `/v1/models/{m}/buckets`."""
    paths = {f"/v1/models/{name.replace(' ', '%20')}/buckets": told for name, told in ANSWERS.items()}
    with answering(lambda path, _: paths.get(path, (500, None))) as address:
        yield address


def padded(lengths: list[int], bounds: tuple[int, ...]) -> int:
    """Padding, counted row by row."""
    return sum(min(bound for bound in bounds if bound >= length) - length for length in lengths)


def fewest(lengths: list[int], buckets: int, limit: int) -> int:
    """The least padding of all bounds that there are."""
    return min(
        padded(lengths, (*some, limit)) for n in range(buckets) for some in combinations(range(1, limit), n)
    )  # fmt: skip


def test_the_present_bounds_and_the_best_ones_cost_what_counting_says(gateway: str, buckets: Buckets) -> None:
    told = buckets("series", "--url", f"{gateway}/")
    assert told.code == 0, told.error
    assert told.text.startswith("series, serving_default, axis time: 10 rows, 2 to 10 long\n")
    # 2 → 4 six times, 3 → 4, 7 → 8 twice, 10 → 12: 12 + 1 + 2 + 2 = 17 of padding, 12 + 3 + 14 + 10 = 39 real
    now = "The bounds now, given: 4, 8, 12. Padding is 30.4 % of all elements, 43.6 % of the real ones"
    assert f"{now} (17 of padding, 39 real)." in told.words
    # (12): 120 - 39 = 81; (3, 12): 6 + 3 * 12 - 24 = 18; (2, 7, 12): 4 + 2 = 6; then 3 alone as well, then 10 too
    assert "1 67.5 % 207.7 % 63 161.5 % 12 " in told.words
    assert "2 31.6 % 46.2 % 12 30.8 % 3, 12 " in told.words
    assert "3 13.3 % 15.4 % 4 10.3 % 2, 7, 12 " in told.words
    assert "4 4.9 % 5.1 % 2 5.1 % 2, 3, 7, 12 " in told.words
    assert "5 0.0 % 0.0 % 2, 3, 7, 10, 12 " in told.words
    assert "\n        6 " not in told.text
    assert "With 5 buckets padding is 0.0 % of all elements: every length has its own." in told.words
    assert "The last bound, 12, is the longest sequence accepted; 10 came." in told.words
    assert "\n      bucket_bounds:\n        series:\n          time: [2, 3, 7, 10, 12]\n" in told.text
    assert 'in the signature serving_default, "buckets": {"time": [2, 3, 7, 10, 12]}' in told.words
    assert "only one" not in told.words


def test_lengths_are_drawn_as_bars_as_long_as_they_are_frequent(gateway: str, buckets: Buckets) -> None:
    lines = buckets("series", "--url", gateway).text.splitlines()
    bars = {found[1]: len(found[2]) for line in lines if (found := re.match(r" +(\d+) +\d+  (█*)", line))}
    assert bars == {"2": 40, "3": 6, "7": 13, "10": 6}  # of 40, and a part of a column: 40 / 6 = 6.7
    assert any(re.fullmatch(r" +5 +0", line) for line in lines)


def test_counts_that_fade_and_bounds_that_are_learned(gateway: str, buckets: Buckets) -> None:
    told = buckets("faded", "--url", gateway)
    assert "12.8 rows, 3 to 5 long" in told.words  # 12.75
    # 0.5 * 5 + 12.25 * 3 = 39.25 of padding, 0.5 * 3 + 12.25 * 5 = 62.75 real
    assert "learned from recent lengths: 8, 2048. Padding is 38.5 % of all elements, 62.5 %" in told.words
    assert "With 2 buckets padding is 1.6 % of all elements; one more would save 1.6 % of the real ones" in told.words
    assert "Nothing has to be written: 2 bounds (the setting `buckets`) are learned" in told.words


def test_sequences_that_run_in_chunks_are_padded_to_a_quarter_of_one(gateway: str, buckets: Buckets) -> None:
    told = buckets("chunked", "--url", gateway)
    assert "Sequences run in chunks of 8 now: only the last chunk of each is padded" in told.words
    # 2 and 8 as they are, 11 → 8 + 4; 13 is refused: 1 of padding, 12 + 16 + 11 real
    assert f"Padding is {1 / 40:.1%} of all elements, {1 / 39:.1%} of the real ones.".replace("%", " %") in told.words
    assert "What follows is for sequences that run whole. The bounds now, given: 4, 8, 12." in told.words
    whole = buckets("series", "--url", gateway)
    assert "Sequences run whole now, not in chunks: each is padded to its bound." in whole.words


def test_every_signature_and_axis_has_a_section(gateway: str, buckets: Buckets) -> None:
    told = buckets("pairs", "--url", gateway)
    assert told.code == 0
    titles = [line for line in told.text.splitlines() if line.startswith("pairs")]
    assert titles == [
        "pairs, serving_default, axis source: 4 rows, 9 to 9 long",
        "pairs, serving_default, axis target",
        "pairs, encode, axis source: 2 rows, 2 to 3 long",
    ]
    assert "No lengths were observed here yet; the bounds are 8, 16." in told.words
    assert told.words.count("Each axis is looked at as if it were the only one.") == 2


def test_a_model_may_be_called_anything(gateway: str, buckets: Buckets) -> None:
    told = buckets("a model", "--url", gateway)
    assert "With 1 bucket padding is 0.0 % of all elements: every length has its own." in told.words


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lengths.txt", "2\n" * 6 + "\n3\n 7\n7\n10\n"),
        ("one.csv", "months\n" + "2\n" * 6 + "3\n7\n7\n10\n"),
        ("bare.csv", "2\r\n" * 6 + "3\r\n7\r\n7\r\n10\r\n"),
        ("two.csv", "other,time\n" + "1,2\n" * 6 + "1,3\n1,7\n1,7\n1,10\n"),
        ("arrays.npz", ""),
    ],
)
def test_lengths_of_a_file_meet_the_bounds_of_the_gateway(
    name: str, text: str, tmp_path: Path, gateway: str, buckets: Buckets
) -> None:
    if text:
        (tmp_path / name).write_text(text)
    else:
        np.savez(tmp_path / name, time=np.array([2] * 6 + [3, 7, 7, 10]), other=np.array([4], np.uint8))
    told = buckets("silent", "--url", gateway, "--lengths", tmp_path / name)
    assert told.code == 0, told.error
    assert told.text.replace("silent", "series") == buckets("series", "--url", gateway).text


def test_rows_that_the_last_bound_refuses_are_counted_apart(tmp_path: Path, gateway: str, buckets: Buckets) -> None:
    (tmp_path / "lengths").write_text("3\n12\n13\n40\n")
    told = buckets("silent", "--url", gateway, "--lengths", tmp_path / "lengths")
    assert "(1 of padding, 15 real). 2 rows are longer than 12: they are refused now." in told.words
    assert "1 57.5 % 135.3 %" in told.words  # 160 elements, 68 of them real
    assert "longest sequence accepted" not in told.words


def test_a_file_alone_needs_no_gateway_and_its_columns_are_the_axes(tmp_path: Path, buckets: Buckets) -> None:
    (tmp_path / "lengths.csv").write_text("source,target\n3,4\n0,9\n")
    told = buckets("pairs", "--lengths", tmp_path / "lengths.csv")
    assert told.code == 0
    assert "pairs, axis source: 2 rows, 0 to 3 long" in told.words
    assert "pairs, axis target: 2 rows, 4 to 9 long" in told.words
    assert "The bounds are not known without a gateway: --url URL asks one." in told.words
    assert '"buckets": {"source": [1, 3]}' in told.words  # an empty row is padded to 1
    (tmp_path / "lengths").write_text("3\n")
    assert '"buckets": {"AXIS": [3]}' in buckets("pairs", "--lengths", tmp_path / "lengths").words


def test_only_empty_rows_are_all_padding(tmp_path: Path, buckets: Buckets) -> None:
    (tmp_path / "lengths").write_text("0\n0\n")
    told = buckets("texts", "--lengths", tmp_path / "lengths")
    assert told.code == 0
    assert "1 100.0 % inf %" in told.words


def test_the_best_bounds_leave_as_little_padding_as_any_that_there_are() -> None:
    dice = Random(5)
    for _ in range(60):
        lengths = [dice.randint(0, 9) for _ in range(dice.randint(1, 12))]
        now = (dice.randint(4, 6), dice.randint(7, 9))
        best = Ragged("", "", Counter(lengths), now).best()
        for padding in best:
            assert padding.elements == padded(lengths, padding.bounds)
            assert padding.elements == fewest(lengths, len(padding.bounds), max(*lengths, *now))
            elements = padding.elements + sum(lengths)
            assert padding.share == pytest.approx(padding.elements / elements)
        assert best[-1].elements == lengths.count(0)


def test_one_bucket_more_is_worthwhile_as_long_as_it_saves_2_percent() -> None:
    dice = Random(7)
    for _ in range(20):
        lengths = [round(dice.lognormvariate(3, 1)) + 1 for _ in range(400)]
        best = Ragged("", "", Counter(lengths)).best()
        assert len(best) == MOST_BUCKETS + 1
        saved = savings(best)
        assert saved == sorted(saved, reverse=True)
        chosen = len(worthwhile(best).bounds)
        assert all(each >= WORTH * sum(lengths) for each in saved[: chosen - 1])
        assert chosen == MOST_BUCKETS or saved[chosen - 1] < WORTH * sum(lengths)


def test_every_row_is_in_one_of_at_most_20_ranges() -> None:
    dice = Random(9)
    for _ in range(size(40, 1000)):
        scale = dice.choice((0.5, 3, 8))
        counts = Counter(round(dice.lognormvariate(scale, 1)) for _ in range(dice.randint(1, 300)))
        ranges = grouped(counts)
        assert 1 <= len(ranges) <= 20
        assert sum(rows for _, _, rows in ranges) == counts.total()
        assert all(left[1] + 1 == right[0] for left, right in pairwise(ranges))
        assert len({high - low for low, high, _ in ranges[1:-1]}) <= 1


def test_a_picture_is_drawn_where_it_is_wanted(tmp_path: Path, gateway: str, buckets: Buckets) -> None:
    for name, begins in {"a/lengths.png": b"\x89PNG", "lengths.SVG": b"<?xml"}.items():
        told = buckets("pairs", "--url", gateway, "--plot", tmp_path / name)
        assert told.code == 0, told.error
        assert (tmp_path / name).read_bytes().startswith(begins)
    assert "target" not in (tmp_path / "lengths.SVG").read_text()
    told = buckets("series", "--url", gateway, "--plot", tmp_path / "lengths.SVG" / "no.png")
    assert told.code == 1
    assert "cannot be written" in told.reason


def test_neither_tensorflow_nor_matplotlib_is_imported(gateway: str) -> None:
    code = (
        "import sys; from sluice.cli.main import app; "
        f"app(['buckets', 'series', '--url', {gateway!r}], standalone_mode=False); "
        "sys.exit(bool({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_it_fits_80_columns_except_for_what_is_pasted(gateway: str, buckets: Buckets) -> None:
    for name in ("series", "faded", "pairs"):
        text = buckets(name, "--url", gateway).text
        assert "\x1b" not in text
        assert not [line for line in text.splitlines() if len(line) > 80 or line != line.rstrip()]


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("silent", 1, "silent: nothing was observed yet"),
        ("rows", 1, "no signature of its contract names a ragged axis"),
        ("odd", 3, "did not answer as a gateway does: expected a JSON object"),
        ("half", 3, "did not answer as a gateway does: expected the fields that a gateway writes"),
        ("nothing", 1, "404: Model 'nothing' is not served. GET /v1/models lists"),
        ("down", 3, "503: The model server does not answer."),
    ],
)
def test_what_a_gateway_does_not_tell_is_an_error(
    gateway: str, buckets: Buckets, name: str, code: int, reason: str
) -> None:
    told = buckets(name, "--url", gateway)
    assert told.code == code
    assert reason in told.reason
    assert told.text == ""


def test_a_gateway_that_is_not_there_cannot_be_reached(buckets: Buckets) -> None:
    told = buckets("series", "--url", "http://127.0.0.1:1")
    assert told.code == 3
    assert "expected a gateway there. " in told.reason
    assert "--lengths FILE" in told.reason


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.txt", None, "missing.txt: expected a file of lengths; "),
        ("empty.txt", b"\n\n", "empty.txt: expected one length or more; got none"),
        ("empty.csv", b"", "empty.csv: expected one length or more; got none"),
        ("head.csv", b"time\n", "head.csv: expected one length or more; got none"),
        ("binary.txt", b"\xff\xfe\x00", "binary.txt: expected a file of lengths; 'utf-8' codec"),
        (
            "words.txt",
            b"3\nthree\n",
            "words.txt, line 2: expected a length, a whole number from 0 to 2147483647; got 't",
        ),
        ("half.txt", b"3.5\n", "line 1: expected a length, a whole number from 0 to 2147483647; got '3.5'"),
        ("minus.txt", b"-1\n", "got '-1'"),
        ("huge.txt", b"2147483648\n", "got '2147483648'"),
        ("roman.txt", "٣\n".encode(), "line 1: expected a length"),
        ("text.csv", b"time,text\n3,hello\n", "text.csv, line 2, column text: expected a length"),
        ("text.csv", b"time,text\n3,hello\n", "all of its columns are lengths"),
        ("short.csv", b"a,b\n1,2\n3\n", "short.csv, line 3: expected 2 values, as in line 1; got 1"),
        ("bare.csv", b"3,4\n5,6\n", "bare.csv, line 1: expected the columns' names, all different; got ['3', '4']"),
        ("twice.csv", b"a,a\n5,6\n", "expected the columns' names, all different"),
        ("text.npz", b"hello", "text.npz: expected arrays, as `numpy.savez` writes them"),
        ("zip.npz", b"PK\x03\x04", "zip.npz: expected arrays, as `numpy.savez` writes them"),
        ("none.npz", {}, "none.npz: expected one length or more; got none"),
        ("empty.npz", {"a": np.array([], int)}, "empty.npz: expected one length or more; got none"),
        ("float.npz", {"a": np.ones(2)}, "float.npz, array a: expected whole numbers in one axis"),
        ("block.npz", {"a": np.ones((2, 3), int)}, "got int64 of shape [2, 3]"),
        ("minus.npz", {"a": np.array([3, -2])}, "minus.npz, array a: expected lengths from 0 to 2147483647; got -2"),
        ("object.npz", {"a": np.array([None])}, "object.npz: expected arrays"),
        ("array.npz", np.arange(3), "array.npz: expected arrays"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(
    name: str, content: Any, reason: str, tmp_path: Path, buckets: Buckets
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif isinstance(content, dict):
        np.savez(tmp_path / name, **content)
    elif content is not None:
        with (tmp_path / name).open("wb") as file:
            np.save(file, content)
    told = buckets("series", "--lengths", tmp_path / name)
    assert told.code == 1, told.error
    assert reason in told.reason
    assert told.text == ""


def test_columns_that_fit_no_axis_are_told(tmp_path: Path, gateway: str, buckets: Buckets) -> None:
    (tmp_path / "lengths.csv").write_text("source\n3\n")
    told = buckets("pairs", "--url", gateway, "--lengths", tmp_path / "lengths.csv")
    assert told.code == 1
    assert "expected a column for each ragged axis of the model, source, target; got source" in told.reason
    (tmp_path / "lengths.txt").write_text("3\n")
    told = buckets("pairs", "--url", gateway, "--lengths", tmp_path / "lengths.txt")
    assert "source, target; got one without a name" in told.reason


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "Missing argument"),
        (
            ["series", "--url", "somewhere"],
            "--url: expected the gateway's HTTP port, http://HOST:PORT, got 'somewhere'",
        ),
        (["series", "--plot", "lengths.gif"], "--plot: expected a file that ends in .png or .svg, got lengths.gif"),
        (["series", "--buckets", "3"], "No such option"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], reason: str, buckets: Buckets) -> None:
    told = buckets(*arguments)
    assert told.code == 2
    assert reason in told.reason
