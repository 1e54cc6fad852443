"""The history of load tests: what was appended is read again, and nothing else is taken for it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from loadtests.report.history import Entry, HistoryRefused, append, elsewhere, read, ready

ENTRY = Entry(
    program="loadtest", setting='20 users, "mixed"\nfor 60 s', scenario="step over HTTP", requests=1200, failures=3,
    wrong_answers=0, rate_per_s=20.123, p50_ms=4.0, p99_ms=31.5, max_ms=80.25,
    began_at=datetime(2026, 11, 30, 17, 0, tzinfo=UTC), commit="0123456789ab-dirty", cpus=2,
)  # fmt: skip
NOTHING = Entry("soak", "1 h", "all", 0, 0, 0, 0.0, None, None, None, ENTRY.began_at, "unknown", 1)


def test_runs_are_read_in_the_order_in_which_they_were_appended(tmp_path: Path) -> None:
    file = tmp_path / "new" / "HISTORY.csv"
    assert read(file) == []
    append(file, [ENTRY])
    append(file, [NOTHING, ENTRY])
    assert read(file) == [ENTRY, NOTHING, ENTRY]
    assert file.read_text(encoding="utf-8").count("program,setting") == 1


def test_times_are_in_utc(tmp_path: Path) -> None:
    file = tmp_path / "HISTORY.csv"
    here = ENTRY.began_at.astimezone(timezone(timedelta(hours=5)))
    append(file, [replace(ENTRY, began_at=here)])
    assert "2026-11-30T17:00:00+00:00" in file.read_text(encoding="utf-8")
    assert read(file) == [ENTRY]


@pytest.mark.parametrize("text", ["name,value\na,1\n", "program,setting\n", "no history"])
def test_a_file_with_other_columns_is_neither_read_nor_changed(tmp_path: Path, text: str) -> None:
    file = tmp_path / "HISTORY.csv"
    file.write_text(text, encoding="utf-8")
    for use in (lambda: read(file), lambda: append(file, [ENTRY])):
        with pytest.raises(HistoryRefused, match=rf"^{file}: no history of load tests \(expected the columns"):
            use()
    assert file.read_text(encoding="utf-8") == text


def test_a_line_that_is_no_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "HISTORY.csv"
    append(file, [ENTRY])
    with file.open("a", encoding="utf-8") as out:
        out.write("loadtest,20 users,all,many\n")
    with pytest.raises(
        HistoryRefused, match=r"HISTORY.csv: no history of load tests \(line 4: .*move it away to begin"
    ):
        read(file)


def test_a_line_that_is_too_long_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "HISTORY.csv"
    append(file, [ENTRY])
    for more in (b"1,2,3,4,5,6,7,8,9,10,11,12,13,14\n", b"\xff"):
        with file.open("ab") as out:
            out.write(more)
        with pytest.raises(HistoryRefused, match="no history of load tests"):
            read(file)


def test_what_cannot_be_written_is_known_before_a_run(tmp_path: Path) -> None:
    ready(tmp_path / "new" / "HISTORY.csv")
    assert not [*(tmp_path / "new").iterdir()]
    (tmp_path / "file").touch()
    with pytest.raises(HistoryRefused, match=r"file: expected a folder that can be written to \(File exists\)"):
        ready(tmp_path / "file" / "HISTORY.csv")
    (tmp_path / "new" / "HISTORY.csv").write_text("name,value\n")
    with pytest.raises(HistoryRefused, match="expected the columns"):
        ready(tmp_path / "new" / "HISTORY.csv")


def test_an_empty_file_is_begun(tmp_path: Path) -> None:
    file = tmp_path / "HISTORY.csv"
    file.touch()
    append(file, [ENTRY])
    assert read(file) == [ENTRY]


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("http://127.0.0.1:50691", ""), ("http://localhost", ""), ("http://[::1]:8080", ""),
        ("http://10.0.0.7:8080", "at http://10.0.0.7:8080"), ("http://gateway", "at http://gateway"),
    ],
)  # fmt: skip
def test_runs_against_a_gateway_of_another_machine_have_a_setting_of_their_own(url: str, where: str) -> None:
    assert elsewhere(url) == where
