"""What lies in a folder of models: each way in which newcomers put a model there, and what they are told."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.model_folder import Found, look


def put(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of models with one that is served."""
    return put(tmp_path / "models", "good/1/saved_model.pb", "good/2/saved_model.pb", "good/v3/saved_model.pb")


@pytest.mark.parametrize(
    ("files", "name", "told"),
    [
        (["a/saved_model.pb", "a/variables/v"], "a", "{0}/a has no version folder: move what is in it to {0}/a/1"),
        (["a/v2/saved_model.pb"], "a", "{0}/a/v2 is no version, whose name is a whole number: rename it to {0}/a/2"),
        (["a/latest/saved_model.pb"], "a", "rename it to {0}/a/1"),
        (["a.keras"], "a", "{0}/a.keras is a Keras file: export it, `sluice export {0}/a.keras --out {0}/a/1`"),
        (["old.v1.h5"], "old.v1", "`sluice export {0}/old.v1.h5 --out {0}/old.v1/1`"),
        (["my a.keras"], "my a", "`sluice export '{0}/my a.keras' --out '{0}/my a/1'`"),
        (["a/model.keras"], "a", "`sluice export {0}/a/model.keras --out {0}/a/1`"),
        (["a/3/model.keras"], "a", "`sluice export {0}/a/3/model.keras --out {0}/a/4`"),
        (["a/3/weights"], "a", "{0}/a/3 has no saved_model.pb: export the model to {0}/a/4"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_where_it_is_served_from_is_told_of_beside_the_others(
    folder: Path, files: list[str], name: str, told: str
) -> None:
    found = look(put(folder, *files))
    assert found.models == ["good"]
    assert found.unserved.keys() == {name}
    assert told.format(folder) in found.unserved[name]


@pytest.mark.parametrize(
    "files",
    [
        ["README.md"],
        ["notes/text"],
        [".cache/1/x.keras"],
        ["good.keras"],  # from which `good` was exported
        ["a/exporting-1/saved_model.pb"],  # which `sluice export` is about to rename
        ["a/.copying/saved_model.pb"],
        ["saved_model.pb"],
    ],
)
def test_what_does_not_look_like_a_model_is_not_told_of(folder: Path, files: list[str]) -> None:
    assert look(put(folder, *files)) == Found(folder, ["good"])


@pytest.mark.parametrize(
    ("file", "given", "told"),
    [
        ("a/1/saved_model.pb", "a", "{0}/a is one model: name the folder of all models, --models {0}"),
        ("a/1/saved_model.pb", "a/1", "{0}/a/1 is one version of a model: name the folder of all models, --models {0}"),
        ("a/saved_model.pb", "a", "{0}/a is one model: move what is in it to {0}/a/1, and give --models {0}"),
    ],
)  # fmt: skip
def test_a_folder_that_is_one_model_is_told_of_by_that_models_name(
    tmp_path: Path, file: str, given: str, told: str
) -> None:
    put(tmp_path, file)
    assert look(tmp_path / given) == Found(tmp_path / given, [], {"a": told.format(tmp_path)})


def test_a_relative_folder_is_named_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(put(tmp_path, "models/a/1/saved_model.pb") / "models" / "a")
    told = f". is one model: name the folder of all models, --models {tmp_path}/models"
    assert look(Path()).unserved == {"a": told}


def test_an_empty_folder_says_what_it_takes_and_one_that_is_gone_that_it_is(tmp_path: Path) -> None:
    told = f"there is no model to serve in {tmp_path}: it takes NAME/VERSION/saved_model.pb, VERSION a whole number"
    assert look(tmp_path).nothing == told
    gone = tmp_path / "gone"
    assert look(gone).unserved == {"gone": f"there is no folder {gone}"}


def test_what_cannot_be_read_is_told_of_and_hides_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, "shut/1/saved_model.pb")
    listed: Callable[[Path], object] = Path.iterdir

    def iterdir(path: Path) -> object:
        if path.name == "shut":
            raise PermissionError(13, os.strerror(13))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found = look(folder)
    assert (found.models, found.unserved) == (["good"], {"shut": f"{folder}/shut cannot be read: Permission denied"})


def test_a_name_that_is_no_text_is_passed_over(folder: Path) -> None:
    os.makedirs(os.fsencode(folder) + b"/\xff/1")
    (folder / os.fsdecode(b"\xff") / "1" / "saved_model.pb").touch()
    assert look(folder) == Found(folder, ["good"])
