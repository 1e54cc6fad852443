"""The command `sluice serve`, without the other commands' framework: importing that would take a third of its start."""

import gc
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sluice.log import configure
from sluice.memory import keep_freed_memory

WRONG_USAGE = 2


def serve(arguments: Sequence[str]) -> int:
    """Serve until told to stop; the exit code: 1 if an address cannot be had, 2 if a setting cannot be used."""
    gc.disable()  # until it listens: what is imported stays
    # The gateway forks only to start the model server, which needs none of gRPC's care for forks.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from pydantic import ValidationError
    from pydantic_settings import SettingsError as Unreadable

    from sluice.gateway.server import serve as run
    from sluice.gateway.settings import SettingsError, load

    try:
        settings = load(arguments)
    except (SettingsError, Unreadable) as error:
        return _wrong(str(error))
    except ValidationError as error:
        return _wrong("; ".join(_told(error.errors())))
    configure()
    keep_freed_memory()
    return run(settings)


def _wrong(reason: str) -> int:
    print(f"sluice: {reason}", file=sys.stderr)  # noqa: T201 - for who typed the command
    return WRONG_USAGE


def _told(wrong: Iterable[Mapping[str, Any]]) -> list[str]:
    return [
        f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg']} (got {each['input']!r:.80})" for each in wrong
    ]
