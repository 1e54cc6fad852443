"""Runs `sluice evaluate`: the evaluator's engine in this process, against a gateway that runs or one of its own."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sluice.cli.ask import check_url, telling
from sluice.cli.embedded import Embedded
from sluice.cli.errors import FAILED, WRONG_USAGE, CommandError
from sluice.cli.evaluate.request import Flags, request_of
from sluice.cli.evaluate.show import show
from sluice.cli.model_folders import MODELS
from sluice.cli.own_gateway import own_gateway
from sluice.cli.writable import check_writable
from sluice.data import files_of
from sluice.evaluator import report
from sluice.evaluator.document import Document
from sluice.evaluator.evaluation import Engine, Memory, evaluate, here
from sluice.evaluator.progress import InMemory
from sluice.evaluator.progress import Progress as Done
from sluice.evaluator.spec import Spec
from sluice.policy.errors import BadRequest

_WRITERS: Mapping[str, Callable[[Document], str]] = {
    ".html": report.html,
    ".md": report.markdown,
    ".json": lambda document: document.model_dump_json(indent=2) + "\n",
}
_OTHERWISE = "Without --url, `sluice evaluate` starts one of its own"
_CALIBRATIONS = Path("var/calibrations")


@dataclass(frozen=True, slots=True)
class Where:
    """Where the model is served, and where parts are done: a gateway's URL, or a folder of models; a scheduler."""

    url: str | None = None
    models: Path | None = None
    engine: str = "local"
    scheduler: str | None = None


def run(model: str, flags: Flags, where: Where, reports: Sequence[Path]) -> None:
    """Evaluate a model, print what was found, and write it to files.

    Raises:
        CommandError: it cannot be evaluated, or a condition to fail holds.
    """
    engine = _engine(where)
    for file in reports:
        if file.suffix not in _WRITERS:
            raise CommandError(f"--report: expected a file that ends in {', '.join(_WRITERS)}, got {file}", WRONG_USAGE)
        check_writable("--report", file)
    if where.url is not None and where.models is not None:
        raise CommandError("expected --url or --models, got both; --models is for a gateway of its own", WRONG_USAGE)
    if where.url is not None:
        check_url(where.url)
    with _bad_requests():
        spec, data = request_of(model, flags)
        files_of(data)  # a wrong name is told before anything is started
    calibrated = ("--calibrations", str(_CALIBRATIONS)) if _CALIBRATIONS.is_dir() else ()
    own = own_gateway("evaluate", model, where.models or MODELS, *calibrated) if where.url is None else nullcontext()
    with own as gateway:
        url = gateway.http if gateway else (where.url or "").rstrip("/")
        document = evaluated(spec, data, url, engine, memory_of(gateway) if gateway else None)
    show(document, Console(highlight=False, emoji=False, markup=False))
    for file in reports:
        write(file, document)
    if document.failed:
        raise CommandError("; ".join(f"{gate.text}: {gate.found}" for gate in document.gates if gate.failed), FAILED)


def evaluated(spec: Spec, data: Path, url: str, engine: Engine = here, memory: Memory | None = None) -> Document:
    """What the gateway at `url` answers to the rows in `data`, with a bar on standard error meanwhile.

    Raises:
        CommandError: it cannot be evaluated.
    """
    with _progress() as told, telling(url, _OTHERWISE), _bad_requests():
        evaluation = evaluate(
            spec, files_of(data), url, InMemory(), told, id="", now=time.time, engine=engine, memory=memory
        )
        return asyncio.run(evaluation)


def write(file: Path, document: Document) -> None:
    """Write a report, of the kind that the file's name ends in.

    Raises:
        CommandError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_WRITERS[file.suffix](document), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"--report: {file} cannot be written; {error}") from None
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"Written: {file}")


def _engine(where: Where) -> Engine:
    if where.engine == "local" and where.scheduler is None:
        return here
    if where.engine == "dask" and where.scheduler is not None:
        try:
            from sluice.evaluator.dask import on_cluster
        except ImportError:
            raise CommandError(
                "--engine dask needs the extra dask: pip install 'sluice-serving[dask]'", WRONG_USAGE
            ) from None
        return on_cluster(where.scheduler)
    raise CommandError(
        "expected --engine local, or --engine dask --scheduler tcp://HOST:PORT; got "
        f"--engine {where.engine}{f' --scheduler {where.scheduler}' if where.scheduler else ''}",
        WRONG_USAGE,
    )


def memory_of(gateway: Embedded) -> Memory:
    """The resident memory of a gateway of one's own and its model server, in bytes."""
    first = psutil.Process(gateway.process.pid)

    async def memory() -> int:
        return sum(each.memory_info().rss for each in (first, *first.children(recursive=True)))

    return memory


@contextmanager
def _bad_requests() -> Iterator[None]:
    """What is wrong with the data, or with what is asked of it, nobody has answered."""
    try:
        yield
    except BadRequest as error:
        raise CommandError(error.message) from None


@contextmanager
def _progress() -> Iterator[Callable[[Done], None]]:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("rows through the gateway", total=None)
        yield lambda done: progress.update(task, completed=done.rows_done, total=done.rows)
