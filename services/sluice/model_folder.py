"""What lies in a folder of models: NAME/VERSION/saved_model.pb, and what is served only once it has been moved.

It does not know what a model server makes of it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from sluice.missing import no_folder

LAYOUT = "NAME/VERSION/saved_model.pb"
_MODEL = "saved_model.pb"
_VERSION = re.compile(r"[0-9]{1,18}")
_KERAS = (".keras", ".h5", ".hdf5")
_NOT_YET = (".", "exporting-")  # how the names of folders begin that are still being written


@dataclass(frozen=True, slots=True)
class Found:
    """The names of the models in a folder; and by name what is none, though it looks like one: why, and what to do."""

    path: Path
    models: Sequence[str] = ()
    unserved: Mapping[str, str] = field(default_factory=dict)

    @property
    def nothing(self) -> str:
        """What to say when there is no model."""
        return f"there is no model to serve in {self.path}" + (
            "" if self.unserved else f": it takes {LAYOUT}, VERSION a whole number"
        )


def look(folder: Path) -> Found:
    """What lies in a folder of models now."""
    models, unserved = list[str](), dict[str, str]()
    try:
        for each in sorted(folder.iterdir()):
            if _is_text(each.name) and (reason := _reason(each)) is not None:
                unserved[_stem(each)] = reason
            elif _is_text(each.name):
                models.append(each.name)
        if not models and (reason := _as_one(folder)):
            unserved = {_model_of(folder): reason}
    except FileNotFoundError:
        unserved[_model_of(folder)] = no_folder(folder)
    except OSError as error:
        unserved[_model_of(folder)] = _unreadable(folder, error)
    return Found(folder, models, {name: reason for name, reason in unserved.items() if reason and name not in models})


def versions_in(folder: Path) -> dict[int, Path]:
    """The versions in a model's folder, by number, whatever is in them.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """
    return {int(each.name): each for each in folder.iterdir() if _VERSION.fullmatch(each.name) and each.is_dir()}


def is_model(folder: Path) -> bool:
    """Whether a version that can be served lies in it.

    Raises:
        OSError: it cannot be read.
    """
    return folder.is_dir() and any(map(_is_saved_model, versions_in(folder).values()))


def _reason(path: Path) -> str | None:
    """Why something in a folder of models is no model, and what to do.

    None: it is one; empty: it does not look like one.
    """
    try:
        if is_model(path):
            return None
        return "" if path.name.startswith(_NOT_YET) else _told(path)
    except FileNotFoundError:  # gone meanwhile
        return ""
    except OSError as error:
        return _unreadable(path, error)


def _told(path: Path) -> str:
    if path.suffix in _KERAS and path.is_file():
        return _export(path, path.with_suffix("") / "1")
    if not path.is_dir():
        return ""
    if _is_saved_model(path):
        return f"{path} has no version folder: move what is in it to {path / '1'}"
    below = sorted(each for each in path.iterdir() if not each.name.startswith(_NOT_YET))
    if misnamed := next(filter(_is_saved_model, below), None):
        better = path / _number(misnamed.name)
        return f"{misnamed} is no version, whose name is a whole number: rename it to {better}"
    if versions := versions_in(path):
        newest = max(versions)
        keras = _keras_in(versions[newest])
        next_ = path / str(newest + 1)  # what an exporter writes must not be there yet
        return _export(keras, next_) if keras else f"{versions[newest]} has no {_MODEL}: export the model to {next_}"
    keras = _keras_in(path)
    return _export(keras, path / "1") if keras else ""


def _as_one(folder: Path) -> str:
    """Why a folder that is no folder of models cannot be served as one, if it is a model itself."""
    whole = folder.absolute()
    if _VERSION.fullmatch(whole.name) and _is_saved_model(folder):
        return f"{folder} is one version of a model: name the folder of all models, --models {whole.parent.parent}"
    if _is_saved_model(folder):
        return f"{folder} is one model: move what is in it to {folder / '1'}, and give --models {whole.parent}"
    if is_model(folder):
        return f"{folder} is one model: name the folder of all models, --models {whole.parent}"
    return ""


def _model_of(folder: Path) -> str:
    """The name of the model that a folder is, or is a version of."""
    whole = folder.absolute()
    return whole.parent.name if _VERSION.fullmatch(whole.name) else whole.name


def _stem(path: Path) -> str:
    """The name of the model that something in a folder of models would be."""
    return path.stem if path.suffix in _KERAS else path.name


def _keras_in(folder: Path) -> Path | None:
    return next((each for each in sorted(folder.iterdir()) if each.suffix in _KERAS), None)


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read: {error.strerror}"


def _number(name: str) -> str:
    """The version that a folder's name may mean, such as `v2`."""
    digits = _VERSION.search(name)
    return str(int(digits[0])) if digits else "1"


def _export(file: Path, out: Path) -> str:
    return f"{file} is a Keras file: export it, `sluice export {quote(str(file))} --out {quote(str(out))}`"


def _is_saved_model(folder: Path) -> bool:
    return (folder / _MODEL).is_file()


def _is_text(name: str) -> bool:
    """A folder's name may hold bytes that are no text, and then cannot be a model's."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
