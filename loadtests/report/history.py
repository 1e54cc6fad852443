"""The figures of earlier runs, one line of a CSV file for each scenario of a run, so that runs can be compared."""

import csv
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from shutil import which
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

from loadtests.processes import ROOT

FILE = "HISTORY.csv"


class HistoryRefused(ValueError):
    """The file is no history, or none can be written; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one scenario of one run came to; only runs of the same program with the same setting can be compared.

    Attributes:
        program: what ran, such as `loadtest`.
        setting: everything that the figures depend on beside the code and the machine, in words.
        scenario: its name, or `all`.
        rate_per_s: requests that were answered in a second; of an open loop those that were offered.
        p50_ms, p99_ms, max_ms: None if nothing was answered.
        began_at: in UTC.
        commit: of this repository; ends in `-dirty` if files had been changed.
        cpus: what the machine has.
    """

    program: str
    setting: str
    scenario: str
    requests: int
    failures: int
    wrong_answers: int
    rate_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    began_at: datetime
    commit: str
    cpus: int


_COLUMNS = [field.name for field in fields(Entry)]
_READ: dict[Any, Any] = {
    str: str, int: int, float: float, datetime: datetime.fromisoformat,
    float | None: lambda text: float(text) if text else None,
}  # fmt: skip


def ready(file: Path) -> None:
    """See, before a run begins, that its entries can be added.

    Raises:
        HistoryRefused: nothing can be written into the folder, or the file is something else.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise HistoryRefused(f"{file.parent}: expected a folder that can be written to ({error.strerror})") from None
    read(file)


def append(file: Path, entries: Sequence[Entry]) -> None:
    """Add the entries of a run.

    Raises:
        HistoryRefused: the file is there, with other columns.
    """
    begun = file.exists() and bool(_lines(file))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
        if not begun:
            writer.writeheader()
        for entry in entries:
            writer.writerow(asdict(entry) | {"began_at": entry.began_at.astimezone(UTC).isoformat(timespec="seconds")})


def read(file: Path) -> list[Entry]:
    """All entries, the oldest first; none if there is no file.

    Raises:
        HistoryRefused: the file is something else.
    """
    if not file.exists():
        return []
    kinds = {field.name: _READ[field.type] for field in fields(Entry)}
    rows = csv.DictReader(_lines(file))
    try:
        return [Entry(**{name: kinds[name](text) for name, text in row.items()}) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(file, f"line {rows.line_num}: {error}") from None


def commit() -> str:
    """What is checked out here; `unknown` outside of a checkout."""
    if git := which("git"):
        command = [git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
        if found.returncode == 0:
            return found.stdout.strip()
    return "unknown"


def cpus() -> int:
    return os.cpu_count() or 1


def elsewhere(url: str) -> str:
    """For a setting, where the gateway is; empty if it is on this machine, at whatever port."""
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return "" if host == "localhost" or ip_address(host).is_loopback else f"at {url}"
    return f"at {url}"


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(file, str(error)) from None
    if lines and lines[0].rstrip() != ",".join(_COLUMNS):
        raise _refused(file, f"expected the columns {', '.join(_COLUMNS)}; got {lines[0].rstrip()!r:.200}")
    return lines


def _refused(file: Path, reason: str) -> HistoryRefused:
    return HistoryRefused(f"{file}: no history of load tests ({reason}); move it away to begin another")
