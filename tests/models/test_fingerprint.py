"""A model is built again when what it is built from has changed: its code, what that imports, or a library."""

import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sluice_models import fingerprint, train

SOURCES = {
    "__init__.py": "",
    "model.py": '"""Builds."""\n\nimport json\n\nfrom toy import data\nfrom toy.net.layers import deep\n\nEPOCHS = 3\n',
    "data.py": "def load():\n    # as it is\n    import numpy\n    return numpy.zeros(3)\n",
    "net/__init__.py": "from toy.net import layers\n",
    "net/layers.py": 'class Deep:\n    """Deep."""\n\n\ndef deep():\n    """Not shallow."""\n',
    "unused.py": "SIZE = 3\n",
}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a package `toy`."""
    folder = tmp_path / "toy"
    for name, text in SOURCES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def now() -> str:
    for cached in (fingerprint.fingerprint, fingerprint._parsed):
        cached.cache_clear()
    return fingerprint.fingerprint("toy.model")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("model.py", '"""Builds."""', '"""Builds it\n\nwell.\n"""'),
        ("model.py", "EPOCHS = 3", "EPOCHS = (3)  # enough"),
        ("data.py", "# as it is", "# as it was"),
        ("net/layers.py", '    """Not shallow."""', '    """Not at all shallow."""'),
        ("unused.py", "SIZE = 3", "SIZE = 4"),
    ],
)
def test_words_and_what_is_not_imported_change_nothing(toy: Path, name: str, old: str, new: str) -> None:
    before = now()
    (toy / name).write_text(SOURCES[name].replace(old, new), encoding="utf-8")
    assert now() == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("model.py", "EPOCHS = 3", "EPOCHS = 4"),
        ("data.py", "zeros(3)", "zeros(4)"),
        ("__init__.py", "", "import toy.unused\n"),
        ("net/__init__.py", "layers", "layers as other"),
        ("net/layers.py", '"""Not shallow."""', "return 2"),
    ],
)
def test_a_change_of_anything_that_is_imported_tells(toy: Path, name: str, old: str, new: str) -> None:
    before = now()
    (toy / name).write_text(SOURCES[name].replace(old, new), encoding="utf-8")
    assert now() != before


def test_another_version_of_a_library_tells(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = now()
    asked = []
    monkeypatch.setattr(fingerprint, "version", lambda library: asked.append(library) or "99")
    assert now() != before
    assert asked == ["numpy"]


def test_an_example_stands_on_the_exporter_and_on_what_keras_and_its_data_come_from() -> None:
    found = fingerprint._parsed("sluice_models.temperature.model")
    assert found is not None
    assert {"keras", "sluice.export", "sluice_models.fitting", "sluice_models.temperature.data"} <= {*found[1]}
    assert "statsmodels" in {*fingerprint._parsed("sluice_models.temperature.data")[1]}


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that an example `toy` was built in; like the exporter it refuses a folder that is there."""
    built: list[Path] = []

    def build(out: Path) -> None:
        (out / "toy" / "1").mkdir(parents=True)
        built.append(out)

    module = ModuleType("sluice_models.toy.model")
    module.build = build
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(train, "EXAMPLES", ("toy",))
    return built


def test_a_model_is_built_once_and_again_when_its_sources_have_changed(
    builds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not train.is_built(["toy"], tmp_path)
    assert train.build(["toy"], tmp_path) == train.build((), tmp_path) == [tmp_path / "toy" / "1"]
    assert builds == [tmp_path]
    assert capsys.readouterr().out == f"{tmp_path / 'toy' / '1'} is up to date\n"
    assert train.is_built(["toy"], tmp_path)
    fingerprint.keep(tmp_path / "toy" / "1", "of other sources")
    assert not train.is_built(["toy"], tmp_path)
    train.build(["toy"], tmp_path)
    assert builds == [tmp_path] * 2


def test_a_folder_that_was_not_built_here_is_left_alone(builds: list[Path], tmp_path: Path) -> None:
    train.build(["toy"], tmp_path)
    shutil.rmtree(tmp_path / "toy" / "1" / "assets.extra")
    with pytest.raises(FileExistsError):
        train.build(["toy"], tmp_path)
