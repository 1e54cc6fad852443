"""Files of Keras models: what goes along with an export, and what is said of a file that is none."""

import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from sluice.export import ExportError, export_file
from sluice.export.imports import load


def counter() -> keras.Model:
    return keras.Sequential([keras.Input((4, 2), name="events"), layers.GRU(3, name="count")])


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_file_of_an_earlier_version_goes_along_in_the_form_of_today(tmp_path, quick_verification):
    model = counter()
    model.save(file := tmp_path / "counter.h5")
    out = export_file(file, tmp_path / "counter" / "1")
    again = load(out / "assets.extra" / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(again(x)), np.asarray(model(x)))


def not_a_zip(file: Path) -> None:
    file.write_text("not a model")


def cut_off(file: Path) -> None:
    counter().save(file)
    file.write_bytes(file.read_bytes()[:-200])


def a_zip_of_something_else(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")


def broken_configuration(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", '{"module": "keras", "class_name": "Sequential", "config": [')
        archive.writestr("model.weights.h5", b"")


def no_weights(file: Path) -> None:
    counter().save(whole := file.with_suffix(".whole.keras"))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(file, "w") as archive:
        for name in ("metadata.json", "config.json"):
            archive.writestr(name, source.read(name))


@pytest.mark.parametrize("write", [not_a_zip, cut_off, a_zip_of_something_else, broken_configuration, no_weights])
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_whatever_a_file_contains_the_refusal_is_one_line_that_names_it(write, ending, tmp_path):
    write(file := tmp_path / "model.keras")
    file = file.rename(file.with_suffix(ending))
    with pytest.raises(ExportError, match="expected a Keras model file") as refused:
        export_file(file, tmp_path / "model" / "1")
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def nothing(file: Path) -> None:
    pass


def a_folder(file: Path) -> None:
    file.mkdir()


def code(file: Path) -> None:
    file.write_text("import keras\n")


def an_older_file(file: Path) -> None:
    file.write_bytes(b"\x89HDF\r\n\x1a\n and so on")


@pytest.mark.parametrize(
    ("name", "write", "told"),
    [
        ("nothere.keras", nothing, "there is no such file"),
        ("icu.keras", a_folder, "this is a folder"),
        ("icu.py", code, "this is Python code. Let it end in model.save('NAME.keras'), run it, and give that file"),
        ("icu.pt", code, "its name ends in '.pt'. Load the model in Python, and save it as NAME.keras"),
        ("icu.keras", an_older_file, "this is none, or was cut off. It is an older file: rename it to .h5"),
        ("junk.keras", not_a_zip, "this is none, or was cut off"),
        ("junk.h5", not_a_zip, "this is none, or was cut off"),
    ],
)
def test_of_what_is_no_keras_file_it_is_told_what_it_is_and_what_to_do(tmp_path, name, write, told):
    write(file := tmp_path / name)
    with pytest.raises(ExportError) as refused:
        load(file)
    expected = f"{file}: expected a Keras model file, .keras or .h5, as `model.save` writes it; "
    assert str(refused.value) == expected + told
