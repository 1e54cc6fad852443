"""The command `sluice serve`, without the other commands' framework: importing that would take a third of its start."""

import gc
import os
from collections.abc import Sequence

from sluice.cli.errors import CommandError
from sluice.cli.extras import need
from sluice.log import configure
from sluice.memory import keep_freed_memory


def serve(arguments: Sequence[str]) -> int:
    """Serve until told to stop; the exit code, 1 if the embedded model server cannot be started.

    Raises:
        CommandError: a setting or an address cannot be used, or the embedded model server is wanted and not installed.
    """
    gc.disable()  # until it listens: what is imported stays
    # The gateway forks only to start the model server, which needs none of gRPC's care for forks.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from sluice.cli.loading import loaded
    from sluice.gateway.server import serve as run
    from sluice.gateway.settings import load
    from sluice.listener import CannotListen

    settings = loaded(load, arguments)
    if settings.backend is None:
        need("serve --models", "model-server", otherwise=", or name a model server that runs: --backend HOST:PORT")
    configure()
    keep_freed_memory()
    try:
        return run(settings)
    except CannotListen as error:
        raise CommandError(str(error)) from None
