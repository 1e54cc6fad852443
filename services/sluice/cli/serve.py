"""The command `sluice serve`, without the other commands' framework: importing that would take a third of its start."""

import gc
import os
from collections.abc import Sequence

from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.cli.extras import installed, need
from sluice.log import configure
from sluice.memory import keep_freed_memory


def serve(arguments: Sequence[str]) -> int:
    """Serve until told to stop; the exit code, 1 if the embedded model server cannot be started.

    Raises:
        CommandError: a setting or an address cannot be used, or the embedded model server is wanted and not installed.
    """
    if {"--help", "-h"} & {*arguments} and installed("cli"):
        from sluice.cli.serve_help import show

        show()
    gc.disable()  # until it listens: what is imported stays
    # The gateway forks only to start its children, which need none of gRPC's care for forks.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from pydantic import ValidationError

    from sluice.gateway.server import serve as run
    from sluice.gateway.settings import PREFIX, SettingsError, load
    from sluice.listener import CannotListen
    from sluice.wrong_settings import Given, told

    try:
        settings = load(arguments)
    except SettingsError as error:
        raise CommandError(str(error), WRONG_USAGE) from None
    except ValidationError as error:
        raise CommandError(told(error, Given(arguments, PREFIX)), WRONG_USAGE) from None
    if settings.backend is None:
        need("serve --models", "model-server", otherwise=", or name a model server that runs: --backend HOST:PORT")
    configure(settings.log_format)
    keep_freed_memory()
    try:
        return run(settings)
    except CannotListen as error:
        raise CommandError(str(error)) from None
