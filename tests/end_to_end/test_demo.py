"""The demo as a newcomer runs it."""

from pathlib import Path

from tests.end_to_end.serving import sluice


def test_the_demo_equals_keras_and_leaves_a_picture(temperature_dir: Path, tmp_path: Path) -> None:
    done = sluice("demo", "--clients", "40", "--models", str(temperature_dir), "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "largest difference from Keras alone" in done.stdout
    picture = (tmp_path / "forecast.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000
