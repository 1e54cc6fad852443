"""Prints what the doctor finds, line by line, and ends with what it comes to."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import structlog
import typer

from sluice.cli.doctor.checks import examine
from sluice.cli.doctor.finding import Finding
from sluice.cli.errors import FAILED, NOT_REACHABLE, WRONG_USAGE, CommandError
from sluice.cli.model_folders import versions_of
from sluice.listener import check_address
from sluice.missing import no_folder
from sluice.model_folder import LAYOUT, look
from sluice.policy.errors import BackendUnavailable


def run(backend: str, models: Path | None, names: Sequence[str], rest: str | None) -> None:
    """Examine the model server at `backend`.

    Raises:
        CommandError: it cannot be reached, or something must be mended.
    """
    for flag, address in (("--backend", backend), ("--rest", rest)):
        try:
            check_address(address or "127.0.0.1:1", least=1, unix=flag == "--backend")
        except ValueError as error:
            raise CommandError(f"{flag}: {error}", WRONG_USAGE) from None
    if models is not None and not models.is_dir():
        raise CommandError(f"--models: expected the folder of models, {LAYOUT}; {no_folder(models)}", WRONG_USAGE)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    folders = {each.name for each in models.iterdir() if versions_of(each)} if models else set[str]()
    unserved = look(models).unserved if models else {}
    try:
        failed = asyncio.run(_printed(backend, sorted({*folders, *names}), rest))
    except BackendUnavailable as error:
        told = f"{error} Give the gRPC port of a model server that runs, HOST:PORT."
        raise CommandError(told, NOT_REACHABLE) from None
    for name in sorted(unserved.keys() - folders):
        typer.echo(Finding("warn", name, unserved[name]))
    if failed:
        raise CommandError(f"{failed} of these must be mended before traffic comes", FAILED)


async def _printed(backend: str, names: Sequence[str], rest: str | None) -> int:
    """How many findings must be mended."""
    failed = 0
    async for finding in examine(backend, names, rest):
        typer.echo(finding)
        failed += finding.level == "FAIL"
    return failed
