"""Loads a Keras file, and imports the code that its own layers come from before, so that Keras knows them."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from zipfile import is_zipfile

import keras

from sluice.export.errors import ExportError, reason

# How Keras says that it cannot find the code of a layer, cell or function; the second is that of .h5 files.
_MISSING = re.compile(r"(?:Could not locate (class|function)|Unknown [a-z ]+:) '([^']+)'")
_SUFFIX, _OLDER = ".keras", (".h5", ".hdf5")
_HDF5 = b"\x89HDF\r\n\x1a\n"  # how a file of the older kind begins
_UNSAFE = "safe_mode=False"  # what Keras says may be passed for code


def load(file: Path, classes: Mapping[str, type] | None = None, *, safe_mode: bool = True) -> keras.Model:
    """The model of a `.keras` file, without what it was compiled with.

    Args:
        file: the file.
        classes: classes of its own that need not be registered, by name.
        safe_mode: whether a file that holds Python code is refused.

    Raises:
        ExportError: no such file, another kind of file, or code in it; or a class or function that Keras does not know.
    """
    try:
        wrong = _no_model_file(file)
    except OSError as error:
        wrong = f"it cannot be read: {error.strerror}"
    if wrong:
        raise ExportError(f"{file}: expected a Keras model file, .keras or .h5, as `model.save` writes it; {wrong}")
    try:
        return keras.models.load_model(file, classes, compile=False, safe_mode=safe_mode)
    except Exception as error:  # what a damaged file makes Keras, zipfile and h5py raise is not said anywhere
        if safe_mode and _UNSAFE in str(error):
            raise ExportError(
                f"{file.name}: expected a file without Python code, got a Lambda layer's, which runs with the model; "
                "if you trust whoever made it, load it with --no-safe-mode (in Python: safe_mode=False)"
            ) from error
        missing = _MISSING.search(str(error))
        if missing is None:
            told = reason(error)
            raise ExportError(f"{file}: expected a Keras model file, as `model.save` writes it; {told}") from error
        if missing[2] in {operation.__name__ for operation in keras.Operation.__subclasses__()}:
            raise ExportError(
                f"{file.name}: a .h5 file does not say how '{missing[2]}' is called, an operation that is no layer; "
                "save the model as a .keras file"
            ) from error
        raise ExportError(
            f"{file.name}: {missing[1] or 'class'} '{missing[2]}' is not known to Keras; decorate it with "
            "@keras.saving.register_keras_serializable() and name its module or file: --import MODULE_OR_FILE.py"
        ) from error


def _no_model_file(file: Path) -> str:
    """Why this can be no Keras model file, by its name and its first bytes, and what to do; empty if it may be one."""
    if not file.exists():
        return "there is no such file"
    if file.is_dir():
        return "" if (file / "config.json").is_file() else "this is a folder"
    if file.suffix == ".py":
        return "this is Python code. Let it end in model.save('NAME.keras'), run it, and give that file"
    if file.suffix not in {_SUFFIX, *_OLDER}:
        return f"its name ends in {file.suffix!r}. Load the model in Python, and save it as NAME.keras"
    with file.open("rb") as opened:
        begins_as_hdf5 = opened.read(len(_HDF5)) == _HDF5
    if file.suffix == _SUFFIX and not is_zipfile(file):
        return f"this is none, or was cut off{'. It is an older file: rename it to .h5' if begins_as_hdf5 else ''}"
    return "" if file.suffix == _SUFFIX or begins_as_hdf5 else "this is none, or was cut off"


def import_classes(names: Sequence[str]) -> None:
    """Import modules and .py files, in order, for the classes that they register with Keras.

    Args:
        names: importable names, also from the current folder, or paths that end in .py.

    Raises:
        ExportError: there is no such module or file, or it fails when it is imported.
    """
    for name in names:
        try:
            _import_file(Path(name)) if name.endswith(".py") else _import_module(name)
        except Exception as error:
            raise ExportError(
                f"--import {name}: expected a module or a .py file that can be imported, got {error!r}"
            ) from error


def _import_module(name: str) -> ModuleType:
    _searched(Path.cwd())
    return importlib.import_module(name)


def _import_file(file: Path) -> ModuleType:
    """The file as a module of its own; what stands beside it can be imported by it, as when Python runs it."""
    _searched(file.resolve().parent)
    name = file.stem if file.stem not in sys.modules else f"imported_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does: classes are looked up in their module
    spec.loader.exec_module(module)
    return module


def _searched(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
