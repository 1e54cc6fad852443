"""The command `sluice serve`, without the other commands' framework: importing that would take a third of its start."""

import gc
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.cli.extras import need
from sluice.log import configure
from sluice.memory import keep_freed_memory


def serve(arguments: Sequence[str]) -> int:
    """Serve until told to stop; the exit code, 1 if the embedded model server cannot be started.

    Raises:
        CommandError: a setting or an address cannot be used, or the embedded model server is wanted and not installed.
    """
    gc.disable()  # until it listens: what is imported stays
    # The gateway forks only to start its children, which need none of gRPC's care for forks.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from pydantic import ValidationError
    from pydantic_settings import SettingsError as Unreadable

    from sluice.gateway.listener import CannotListen
    from sluice.gateway.server import serve as run
    from sluice.gateway.settings import SettingsError, load

    try:
        settings = load(arguments)
    except (SettingsError, Unreadable) as error:
        raise CommandError(str(error), WRONG_USAGE) from None
    except ValidationError as error:
        raise CommandError("; ".join(_told(error.errors())), WRONG_USAGE) from None
    if settings.backend is None:
        need("serve --models", "model-server", otherwise=", or name a model server that runs: --backend HOST:PORT")
    configure()
    keep_freed_memory()
    try:
        return run(settings)
    except CannotListen as error:
        raise CommandError(str(error)) from None


def _told(wrong: Iterable[Mapping[str, Any]]) -> list[str]:
    """Of each setting what is wrong with it: in our words, which say what came, or in pydantic's."""
    return [
        f"{'.'.join(map(str, each['loc'])) or 'settings'}: "
        + (str(each["ctx"]["error"]) if each["type"] == "value_error" else f"{each['msg']} (got {each['input']!r:.80})")
        for each in wrong
    ]
