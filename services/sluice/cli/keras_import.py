"""Imports Keras for a command, over TensorFlow whatever else it is set to compute with, or says why that cannot be."""

import os

from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.cli.extras import need
from sluice.log import quiet_import


def import_keras(command: str) -> None:
    """Import Keras ahead of the code that needs it, without TensorFlow's chatter.

    Raises:
        CommandError: Keras or TensorFlow is not installed, or cannot be imported.
    """
    need(command, "export")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with quiet_import():
            import keras  # noqa: F401
    except ImportError as error:
        raise CommandError(
            f'"sluice {command}" needs Keras with TensorFlow, which are installed and cannot be imported: {error}',
            WRONG_USAGE,
        ) from None
