"""What is known of a file that is to be written before the work that it is for."""

from pathlib import Path

import pytest

from sluice.cli.errors import CommandError
from sluice.cli.writable import check_writable


def test_a_file_in_folders_that_are_still_to_be_made_can_be_written(tmp_path: Path) -> None:
    check_writable("--report", tmp_path / "a" / "b" / "report.html")
    assert not [*tmp_path.iterdir()]


def test_what_the_file_system_refuses_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"--report: .*a\.html cannot be written; File name too long\. Name another"):
        check_writable("--report", tmp_path / f"{'a' * 300}.html")
