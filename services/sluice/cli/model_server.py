"""The command `sluice model-server`: the embedded model server alone, without the other commands' framework."""

from collections.abc import Sequence

from sluice.log import configure
from sluice.memory import keep_freed_memory


def model_server(arguments: Sequence[str]) -> int:
    """Serve until told to stop, with TensorFlow Serving's flags; the exit code."""
    configure()
    keep_freed_memory()
    from sluice.model_server.main import main

    return main(arguments)
