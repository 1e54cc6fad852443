"""The demo as a newcomer runs it."""

import re
import shutil
from pathlib import Path

from services.cli.demo_sequences import DATES, lengths
from tests.end_to_end.serving import sluice


def test_the_demo_equals_keras_and_leaves_pictures(temperature_dir: Path, dates_dir: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    for folder in (temperature_dir / "temperature", dates_dir / "dates"):
        shutil.copytree(folder, models / folder.name)
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
    for name in ("forecast.png", "sequences.png"):
        picture = (tmp_path / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000
