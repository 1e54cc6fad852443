"""Imports Keras for a command, over TensorFlow whatever else it is set to compute with, or says why that cannot be."""

import os
from pathlib import Path

from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.cli.extras import need
from sluice.log import quiet_import


def import_keras(command: str, file: Path | None = None) -> None:
    """Import Keras ahead of the code that needs it, without TensorFlow's chatter.

    That takes seconds, before which it is told that the `file` it is needed for is not there.

    Raises:
        CommandError: there is no such file; or Keras or TensorFlow is not installed, or cannot be imported.
    """
    need(command, "export")
    if file is not None and not file.exists():
        where = "" if file.is_absolute() else f" in {Path.cwd()}"
        raise CommandError(f"{file}: expected a Keras model file, .keras or .h5; there is no such file{where}")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with quiet_import():
            import keras  # noqa: F401
    except ImportError as error:
        raise CommandError(
            f'"sluice {command}" needs Keras with TensorFlow, which are installed and cannot be imported: {error}',
            WRONG_USAGE,
        ) from None
