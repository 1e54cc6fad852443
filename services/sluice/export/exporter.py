"""The export from beginning to end: plan, write beside the target, verify, and only then move into place."""

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import keras

from sluice.export.contract import UNDESCRIBED, Description, contract
from sluice.export.errors import ExportError
from sluice.export.imports import import_classes, load
from sluice.export.saved_model import Endpoints, write_saved_model
from sluice.export.signatures import endpoints
from sluice.export.uneven import planned
from sluice.export.verify import TOLERANCE, Call, calls, tolerance, verify

_LOG = logging.getLogger(__name__)

Writer = Callable[[Path], object]


def export(
    model: keras.Model,
    out: Path,
    description: Description = UNDESCRIBED,
    assets: Mapping[str, Writer] | None = None,
    *,
    steps: bool = False,
) -> Path:
    """Export a trained Keras model for serving, with step and scan signatures if it can be run step by step.

    If it is one of sequences and cannot, the log says which layer is why.

    Args:
        model: a built Sequential or functional model; it is not changed.
        out: DIR/NAME/VERSION, TensorFlow Serving's layout; VERSION is a positive whole number.
        description: what the model and its tensors mean to people.
        assets: file name in `assets.extra` → function that writes it to the path it is given.
        steps: whether it must be one that can be run step by step.
    Returns:
        `out`, which appears complete and verified or not at all.

    Raises:
        ExportError: `out` is not a free version folder, the model is not of the supported form, or the exported model
            answers differently from Keras.
        CannotStep: `steps` are asked for, and one of its layers cannot be run one time step at a time.
    """
    out = Path(out)
    _check_free(out)
    plan = planned(model, description, steps)
    document = contract(plan, description)
    with _published(out) as folder:
        write_saved_model(model, endpoints(model, plan), document, folder)
        _write_assets(folder, assets)
        verify(folder, list(calls(model, plan, description)), tolerance(model))
    if plan.limits:
        _LOG.warning(plan.limits)
    return out


def export_endpoints(
    model: keras.Model,
    endpoints: Endpoints,
    contract: Mapping[str, Any],
    out: Path,
    expected: Sequence[Call],
    assets: Mapping[str, Writer] | None = None,
    allowed: float = TOLERANCE,
) -> Path:
    """Export signatures that were written by hand, as an encoder-decoder's are, with the contract that names them.

    Args:
        model: holds every variable, table and layer that the endpoints use.
        endpoints: by signature, the function that runs and the specifications of its inputs.
        contract: the document, as docs/contract.md says.
        out: as in `export`.
        expected: calls of the exported folder and what Keras answers to them.
        assets: as in `export`.
        allowed: the largest difference, relative to max(1, |expected|).

    Raises:
        ExportError: `out` is not a free version folder, or the exported model answers differently.
    """
    out = Path(out)
    _check_free(out)
    with _published(out) as folder:
        write_saved_model(model, endpoints, contract, folder)
        _write_assets(folder, assets)
        verify(folder, expected, allowed)
    return out


def _write_assets(folder: Path, assets: Mapping[str, Writer] | None) -> None:
    for name, write in (assets or {}).items():
        write(folder / "assets.extra" / name)


def export_file(
    keras_file: Path,
    out: Path,
    description: Description = UNDESCRIBED,
    imports: Sequence[str] = (),
    *,
    steps: bool = False,
    safe_mode: bool = True,
) -> Path:
    """Export the model of a Keras file as `export` does; it goes along as `assets.extra/model.keras`.

    Args:
        keras_file: a `.keras` file, or an `.h5` file of earlier versions, which goes along in the form of today.
        out: as in `export`.
        description: as in `export`.
        imports: modules, and paths of .py files, that are imported first: they register the model's own classes
            (`keras.saving.register_keras_serializable`).
        steps: as in `export`.
        safe_mode: whether a file that holds Python code, as a Lambda layer does, is refused.

    Raises:
        ExportError: as `export`; or the file cannot be loaded, a module not imported, a class not found.
    """
    import_classes(imports)
    model = load(keras_file, safe_mode=safe_mode)
    return export(model, out, description, keras_asset(model, keras_file), steps=steps)


def keras_asset(model: keras.Model, file: Path) -> dict[str, Writer]:
    """What writes `model`, which was loaded from `file`, beside an export."""
    return {"model.keras": partial(shutil.copyfile, file) if is_zipfile(file) else model.save}


def _check_free(out: Path) -> None:
    if not (out.name.isascii() and out.name.isdecimal() and int(out.name) > 0):
        raise ExportError(
            f"{out}: expected DIR/NAME/VERSION with a positive whole number as VERSION, got '{out.name}'; "
            f"try {out.with_name('1') if re.fullmatch('v?[0-9]+', out.name, re.ASCII) else out / '1'}"
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ExportError(f"{out}: expected a version that does not exist yet; choose another number or remove it")


@contextmanager
def _published(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that becomes `out` at the end, or vanishes; model servers ignore its name meanwhile."""
    created = [parent for parent in out.parents if not parent.exists()]
    folder = out.with_name(f"exporting-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        if folder.exists():
            raise ExportError(f"{folder}: another export is writing this version, or died; remove the folder") from None
        raise ExportError(f"{out.parent}: expected a folder that can be written to; {error.strerror}") from None
    try:
        yield folder
        folder.replace(out)
    except BaseException:
        shutil.rmtree(folder)
        for parent in created:
            parent.rmdir()
        raise
