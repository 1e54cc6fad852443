"""The demo as a newcomer runs it."""

import re
import shutil
from pathlib import Path

import pytest

from sluice.cli.demo.sequences import DATES, lengths
from tests.end_to_end.serving import sluice


@pytest.mark.timeout(900)  # it trains the models, if no other test has
def test_the_demo_equals_keras_and_leaves_pictures(
    temperature_dir: Path, dates_dir: Path, digits_dir: Path, glyphs_dir: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    for folder in (temperature_dir, dates_dir, digits_dir, glyphs_dir):
        shutil.copytree(folder, models, dirs_exist_ok=True)
    done = sluice("demo", "--clients", "40", "--models", str(models), "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "largest difference from Keras alone" in done.stdout
    longest, buckets = (
        int(re.search(way + r": ([\d,]+) months run", done.stdout)[1].replace(",", ""))
        for way in ("padded to the longest", "in the gateway's buckets")
    )
    assert sum(lengths()) <= buckets < longest == len(lengths()) * max(lengths())
    for written, iso in DATES.items():
        assert re.search(f"{re.escape(written)} +│ {iso} +│ right", done.stdout), done.stdout
    answers = re.findall(r"│ (an? [\w ]*\w|the letter \w|noise|black on white) +│ [^│]+│ (\w+) +│", done.stdout)
    strange = ("the letter K", "the letter M", "the letter X", "a scribble", "an empty picture", "black on white")
    stranger = ("a 6", "a 7", "the letter A", "the letter B", "noise", "a photograph")
    assert answers == [
        *((f"a known {letter}", letter) for letter in "ABC"), *((shows, "unknown") for shows in strange),
        *((f"a known {digit}", digit) for digit in "035"), *((shows, "unknown") for shows in stranger),
    ]  # fmt: skip
    assert re.search(r"temperature version 1: forecasting\n.*\n    mae +0\.3563 °C", done.stdout, re.DOTALL), (
        done.stdout
    )
    assert "<h2>Batch size is only a knob</h2>" in (tmp_path / "evaluation.html").read_text()
    for name in ("forecast.png", "sequences.png", "recognized.png"):
        picture = (tmp_path / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000
