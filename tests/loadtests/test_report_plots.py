"""Pictures of load tests' pages: the same axis of time, gaps, and names that fit."""

import re

import pytest

from loadtests.report.plots import by_load, over_time
from sluice.evaluator.report.picture import SERIES, legend_columns


def ticks(svg: str, axis: str) -> list[str]:
    """The places of an axis' ticks."""
    return re.findall(rf'<g id="{axis}tick_\d+">.*?<use xlink:href="#\w+" x="([\d.]+)"', svg, re.DOTALL)


def texts(svg: str) -> list[str]:
    return re.findall(r"<text .*?>(.*?)</text>", svg)


def test_equal_times_stand_above_each_other_whatever_the_values_are() -> None:
    small = over_time("memory", "MiB", {"": [(0, 1.0), (60, 2.0)]}, 60)
    large = over_time("rows", "rows", {"a": [(20, 1e6)], "b": [(30, 5e6)], "c": [], "d": [(1, 1)]}, 60)
    assert ticks(small.svg, "x") == ticks(large.svg, "x")
    assert len(ticks(small.svg, "x")) > 3


def test_a_line_ends_where_there_is_no_value_and_begins_again() -> None:
    def strokes(middle: float | None) -> int:
        svg = over_time("p99", "ms", {"": [(0, 1.0), (1, 2.0), (2, middle), (3, 2.0), (4, 1.0)]}, 4).svg
        colour = SERIES[0]
        drawn = re.search(rf'<path d="([^"]*)"[^>]*stroke: {colour}', svg)
        assert drawn is not None
        return drawn[1].count("M ")

    assert strokes(2.0) == 1
    assert strokes(None) == 2


def test_what_happened_often_is_named_once() -> None:
    svg = over_time("memory", "MiB", {"gateway": [(0, 1.0)]}, 60, marks={"killed": [10, 20, 30]}).svg
    assert texts(svg).count("killed") == 1


def test_a_line_without_values_is_not_named() -> None:
    named = texts(over_time("rows", "rows", {"a": [(0, 1.0)], "b": [(0, None)], "c": [(0, 1.0)]}, 60).svg)
    assert "a" in named
    assert "b" not in named


def test_an_axis_begins_at_zero_unless_it_is_told_not_to() -> None:
    near = {"": [(0, 100.0), (1, 101.0)]}
    assert texts(over_time("memory", "MiB", near, 0.5).svg).count("0") == 2  # of the seconds, too
    assert texts(over_time("memory", "MiB", near, 0.5, zero=False).svg).count("0") == 1


def test_the_limit_is_drawn_and_named_beside_the_latencies() -> None:
    svg = by_load("rows", "requests a second", {"p99": [(10, 3.0), (20, None), (40, 200.0)]}, limit_ms=50).svg
    assert {"p99", "limit, 50 ms", "requests a second", "milliseconds"} <= {*texts(svg)}


@pytest.mark.parametrize(
    ("names", "columns"),
    [(["p50", "p99"], 3), ([""], 3), ([], 3), (["twenty letters or so"], 2), (["some thirty letters of a name"], 1)],
)  # fmt: skip
def test_longer_names_stand_in_fewer_columns(names: list[str], columns: int) -> None:
    assert legend_columns(names) == columns


def test_latencies_within_a_power_of_ten_have_numbers_at_their_axis() -> None:
    written = texts(by_load("rows", "requests a second", {"p99": [(10, 30.0), (20, 90.0), (40, 600.0)]}).svg)
    assert {"50", "100", "200", "500"} <= {*written}
    assert not [text for text in written if "$" in text]
