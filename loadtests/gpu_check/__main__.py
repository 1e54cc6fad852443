"""`python -m loadtests.gpu_check`: compares a model server's answers with the CPU's, and finds batch sizes for it."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from loadtests.gpu_check.asked import Refused, Server, Version
from loadtests.gpu_check.check import SIZES, Found, allowed, allowed_by_all, check
from loadtests.processes import Child, Failed, python
from sluice.signals import exits_when_told
from sluice_models import train

_WRONG, _WRONG_USAGE, _NOT_REACHABLE = 1, 2, 3
_START_S = 120.0
_COLUMNS = 150  # of tables that do not go to a terminal


def main(
    backend: Annotated[
        str, typer.Option(help="The model server to check, HOST:PORT or unix:PATH. Default: the CPU's, against itself.")
    ] = "",
    models: Annotated[Path, typer.Option(help="The trained models, as the CPU is to run them.")] = Path("var/models"),
    only: Annotated[str, typer.Option(metavar="MODEL[,…]", help="Models to check; default: all.")] = "",
    sizes: Annotated[str, typer.Option(help="Batch sizes to try.")] = ",".join(map(str, SIZES)),
    seconds: Annotated[float, typer.Option(min=0, help="How long each batch size is timed.")] = 0.3,
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="The largest difference, relative above 1; a GPU's TF32 needs as much."),
    ] = 1e-3,
) -> None:
    """Compare a model server's answers with the CPU's, one row alone and unpadded, at several batch sizes and lengths.

    Batches have padded rows, masks and filler of length 1, as a gateway sends them. The table shows milliseconds of a
    batch by its size. Exit codes: 1 an answer differs or did not come; 2 wrong usage; 3 there is no model server.
    """
    names, tried = _names(models, only), _sizes(sizes)
    console = Console(width=None if os.isatty(1) else _COLUMNS)
    found: list[Found] = []
    skipped: dict[str, str] = {}
    try:
        with exits_when_told(), _servers(models, backend) as (cpu, server):
            for name in names:
                try:
                    found.extend(check(cpu, server, Version(name, _newest(models / name)), tried, seconds))
                except Refused as refused:
                    skipped[name] = str(refused)
    except (Refused, Failed) as error:
        _exit(str(error), _NOT_REACHABLE)
    console.print(table(found, tried, tolerance))
    for name, why in skipped.items():
        console.print(f"{name}: not checked: {why}", soft_wrap=True)
    if best := allowed_by_all(found, tolerance):
        console.print(f"Set: --allowed-batch-sizes {','.join(map(str, best))}", soft_wrap=True)
    if not backend:
        console.print("This was the CPU against itself; name a model server on a GPU with --backend.", soft_wrap=True)
    raise typer.Exit(_WRONG if skipped or any(each.wrong(tolerance) for each in found) else 0)


def table(found: Sequence[Found], sizes: Sequence[int], tolerance: float) -> Table:
    """A line for each signature and length."""
    shown = Table(
        "model", "signature", "length", "difference", *(f"{size} row{'s' * (size > 1)}" for size in sizes), "allow"
    )
    for each in found:
        lengths = ", ".join(map(str, each.bounds.values())) or "-"
        wrong = each.wrong(tolerance)
        worst = f"{max(each.differences.values(), default=float('nan')):.1e}" + " !" * bool(wrong)
        times = [_cell(each, size, tolerance) for size in sizes]
        best = allowed({size: taken for size, taken in each.batch_s.items() if size not in wrong})
        shown.add_row(each.version.model, each.signature, lengths, worst, *times, ",".join(map(str, best)))
    return shown


def _cell(found: Found, size: int, tolerance: float) -> str:
    if size in found.refused:
        return f"refused: {found.refused[size]:.60}"
    mark = " !" if found.differences[size] > tolerance else ""
    return f"{found.batch_s[size] * 1000:.3g} ms{mark}"


def _names(models: Path, only: str) -> list[str]:
    there = sorted(each.name for each in models.iterdir() if each.is_dir()) if models.is_dir() else []
    chosen = [name for name in only.split(",") if name] or there
    if missing := [name for name in chosen if name not in there]:
        _exit(f"{models} has no {', '.join(missing)}; build it: sluice models build {' '.join(missing)}", _WRONG_USAGE)
    if not chosen:
        every = " ".join(train.EXAMPLES)
        _exit(f"expected trained models in {models}, got none; build them: sluice models build {every}", _WRONG_USAGE)
    return chosen


def _newest(folder: Path) -> int:
    return max((int(each.name) for each in folder.iterdir() if each.name.isdecimal()), default=0)


def _sizes(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        _exit(f"--sizes: expected batch sizes such as 1,8,64; got {text!r}", _WRONG_USAGE)
    return sorted({*map(int, parts)})


@contextmanager
def _servers(models: Path, backend: str) -> Iterator[tuple[Server, Server]]:
    """The CPU's model server, a child that sees no GPU, and the one that is checked.

    Raises:
        Refused, Failed: one of them cannot be reached.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "cpu.sock"
        flags = [f"--models={models.absolute()}", "--port=0", f"--grpc_socket_path={socket}", "--stop_with_parent=true"]
        child = Child(python("sluice.model_server", *flags), Path(folder) / "cpu.log")
        cpu = Server(f"unix:{socket}")
        server = Server(backend or cpu.address)
        try:
            server_s = 10.0 if backend else _START_S
            server.reach(server_s)
            cpu.reach(_START_S)
            child.check()
            yield cpu, server
        finally:
            cpu.close()
            server.close()
            child.stop()


def _exit(sentence: str, code: int) -> None:
    typer.echo(f"gpu-check: {sentence}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(main)
