"""Reports: everything that a document holds is there, and nothing that came from data is markup."""

import re
from html.parser import HTMLParser

import pytest

from sluice.evaluator.document import (
    Bars,
    BatchSize,
    Comparison,
    DataFacts,
    Document,
    Gate,
    Lines,
    Matrix,
    Metric,
    Run,
    Table,
)
from sluice.evaluator.report import html, markdown
from sluice.evaluator.report.numbers import change, value

HOSTILE = "<img src=x onerror=alert(1)> $x^2$ | `a` & \"b\" 'c' _d_"


def document(**changed: object) -> Document:
    fields = {
        "model": "digits", "version": 2, "summary": "Six digits.", "task": "open_set",
        "data": DataFacts(source="digits.npz", sha256="ab" * 32, rows=1234, bytes=9), "spec": {"level": 0.9},
        "metrics": {
            "accuracy": Metric(value=0.97314, low=0.961, high=0.984, better="higher", share=True),
            "log_loss": Metric(value=0.0931, better="lower", unit="nats"),
            "auroc": Metric(value=None, better="higher", note="there are rows of one kind only"),
        },
        "run": Run(evaluation="e", began_at="2026-11-30T14:00:00Z", seconds=75.2, rows_per_s=812.2),
    }  # fmt: skip
    return Document.model_validate(fields | changed)


SECTIONS = (
    Table(title="Per class", columns=("class", "recall"), rows=(("a", 0.91), (HOSTILE, None))),
    Lines(title="Reliability", x="confidence", y="right", series={HOSTILE: ((0.1, 0.2), (0.9, 0.8))}, diagonal=True),
    Bars(title="Scores", x="bin", y="rows", names=("a", HOSTILE), series={"known": (1, None), HOSTILE: (3, 4)}),
    Matrix(title="Confusion", rows=("a", HOSTILE), columns=("a", HOSTILE), counts=((5, 1), (0, 7))),
)


class Page(HTMLParser):
    """What a browser makes of a page: its elements, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_shows_every_metric_and_section() -> None:
    page = Page(html(document(sections=SECTIONS)))
    for told in (
        "97.31 %",
        "96.1 % … 98.4 %",
        "90 % interval",
        "0.0931 nats",
        "auroc",
        "there are rows of one kind only",
    ):
        assert told in page.text
    for section in SECTIONS:
        assert section.title in page.text
    assert page.elements.count("svg") == 3


def test_what_comes_from_data_or_a_model_is_text_on_the_page() -> None:
    hostile = document(
        model=HOSTILE, summary=HOSTILE, sections=SECTIONS, notes=(HOSTILE,),
        data=DataFacts(source=HOSTILE, sha256="0" * 64, rows=1, bytes=1),
        gates=(Gate(text=HOSTILE, found=HOSTILE, failed=True),),
    )  # fmt: skip
    page = Page(html(hostile))
    assert not {"img", "script", "a", "iframe", "object", "link", "form"} & {*page.elements}
    assert not any(name.startswith("on") or name in ("src", "href", "action") for name, _ in page.attributes)
    assert page.text.count("<img src=x onerror=alert(1)> $x^2$") >= 8


def test_a_page_needs_no_network() -> None:
    addresses = re.findall(r"https?://[^\"' <)]+", html(document(sections=SECTIONS)))
    assert {*addresses} == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names of what SVG is


def test_markdown_shows_every_metric_and_escapes_what_is_markup() -> None:
    text = markdown(document(sections=SECTIONS, summary=HOSTILE))
    assert "| accuracy | 97.31 % | 96.1 % … 98.4 % |" in text
    assert "<img" not in re.sub(r"\\<", "", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (3, 4, 5) for row in rows)


def test_the_same_document_is_the_same_page() -> None:
    assert html(document(sections=SECTIONS)) == html(document(sections=SECTIONS))


def test_a_document_survives_json() -> None:
    whole = document(sections=SECTIONS, gates=(Gate(text="accuracy < 1", found="accuracy is 0.97", failed=True),))
    assert Document.model_validate_json(whole.model_dump_json()) == whole


def test_a_document_holds_no_number_that_json_lacks() -> None:
    with pytest.raises(ValueError, match="finite"):
        Metric(value=float("nan"), better="higher")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "—"),
        (0.0, "0"),
        (12, "12"),
        (1234567, "1,234,567"),
        (0.00001234, "1.23e-05"),
        (12345.678, "12,346"),
        (True, "yes"),
    ],
)
def test_numbers_are_as_long_as_they_say_something(number: float | None, text: str) -> None:
    assert value(number) == text


def test_a_difference_of_shares_is_in_points() -> None:
    assert change(Metric(value=-0.0123, better="higher", share=True)) == "-1.23 pt"


def test_failed_conditions_stand_first() -> None:
    failed = document(gates=(Gate(text="accuracy < 0.98", found="accuracy is 0.9731", failed=True),))
    assert "Failed: accuracy < 0.98 (accuracy is 0.9731)." in Page(html(failed)).text
    assert "**Failed: accuracy \\< 0.98" in markdown(failed)


def test_batch_sizes_are_compared_with_what_they_change_and_what_they_do_not() -> None:
    sizes = tuple(
        BatchSize(batch_size=size, metrics={"accuracy": 0.97314}, largest_difference=2e-7, changed_rows=changed)
        for size, changed in ((1, ()), (32, (7,)))
    )
    run = Run(
        evaluation="e", began_at="x", seconds=1, rows_per_s=1,
        batch_sizes=[{"batch_size": size, "rows_per_s": 10.0 * size, "memory_bytes": None} for size in (1, 32)],
    )  # fmt: skip
    text = markdown(document(batch_sizes=sizes, run=run))
    for line in (
        "| rows in a batch | 1 | 32 |", "| accuracy | 97.314 % | 97.314 % |",
        "| largest difference | 2.00e-07 | 2.00e-07 |",
        "| rows/s | 10 | 320 |", "| memory, MiB | — | — |",
    ):  # fmt: skip
        assert line in text
    assert "nothing but rounding" in text
    assert "The answer flips in row 7." in text


def test_a_comparison_says_which_way_each_metric_went() -> None:
    compared = Comparison(
        version=1, differences={"log_loss": Metric(value=0.01, low=0.001, high=0.02, better="lower")},
        test="McNemar's test:", p_value=0.25,
    )  # fmt: skip
    text = markdown(document(comparison=compared))
    assert "| log loss | +0.01 | 0.001 … 0.02 | worse |" in text
    assert "McNemar's test: p = 0.25" in text
    alike = compared.model_copy(update={"test": "McNemar's test: the versions do not differ.", "p_value": None})
    assert "row by row. McNemar's test: the versions do not differ.\n" in markdown(document(comparison=alike))
