"""A line that says how a run goes, where Locust's own tables are off (`--headless --only-summary`)."""

import sys
import time

import gevent
from locust.runners import Runner
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


def show(runner: Runner, length_s: float | None) -> gevent.Greenlet:
    """Begin to show it, on standard error; killing what is returned ends it."""
    greenlet: gevent.Greenlet = gevent.spawn(_follow, runner, length_s)
    return greenlet


def _follow(runner: Runner, length_s: float | None) -> None:
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    began = time.monotonic()
    with Progress(*columns, console=Console(file=sys.stderr), auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=length_s)
        while True:
            total = runner.stats.total
            progress.update(
                task,
                completed=time.monotonic() - began,
                description=f"{runner.user_count} users, {total.num_requests:,} requests, "
                f"{total.current_rps:,.0f} a second, {total.num_failures:,} failed",
                refresh=True,
            )
            gevent.sleep(1)
