"""A child process that cannot be started, or not kept alive, such as the model server."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sluice.gateway.upstream import child as children
from sluice.gateway.upstream.child import Child
from tests.end_to_end.serving import finding, sluice
from tests.gateway.here import PATIENCE_S

FREE = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")


def test_a_model_server_that_ends_three_times_for_the_same_reason_ends_the_start_with_it(tmp_path: Path) -> None:
    reason = "libtensorflow_cc.so.2: cannot open shared object file"
    (tmp_path / "tensorflow.py").write_text(f"raise ImportError({reason!r})")
    done = sluice("serve", "--models", str(tmp_path), *FREE, env=finding(tmp_path))
    assert done.returncode == 1
    assert len(re.findall(r"\bstarted\b.*embedded model server", done.stderr)) == 3
    *_, last = done.stderr.splitlines()
    assert "cannot serve" in last
    assert f"ended with code 1: sluice model-server: cannot start: {reason}, 3 times in a row" in last
    assert "Traceback" not in done.stderr


class Told:
    """What a child tells whoever started it."""

    def __init__(self) -> None:
        self.died: list[str] = []
        self.hopeless = asyncio.get_running_loop().create_future()


Keep = Callable[[list[str], bool], Told]


@pytest.fixture
async def keep(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Keep]:
    """Keeps a child that ends as the first argument says, one end after another; whether it was reached once."""
    started: list[Child] = []

    def begin(ends: list[str], reached: bool) -> Told:
        left = iter(ends)

        async def run(_: Child) -> str:
            if (end := next(left, "")) == "":
                await asyncio.Event().wait()
            return end

        monkeypatch.setattr(children, "_BACKOFF_S", (0.0,))
        monkeypatch.setattr(Child, "_run", run)
        told = Told()
        child = Child(
            "toaster", lambda _: (), reached=lambda: reached, died=told.died.append, hopeless=told.hopeless.set_result
        )
        started.append(child)
        child.start()
        return told

    yield begin
    for child in started:
        await child.stop()


async def test_three_equal_ends_in_a_row_are_hopeless(keep: Keep) -> None:
    told = keep(["a", "b", "b", "a", "a", "a", "a"], False)
    reason = await asyncio.wait_for(told.hopeless, PATIENCE_S)
    assert reason == "the toaster a, 3 times in a row"
    assert [each.split()[2] for each in told.died] == ["a;", "b;", "b;", "a;", "a;"]


async def test_a_child_that_has_been_reached_is_restarted_however_often_it_ends(keep: Keep) -> None:
    told = keep(["a"] * 9, True)
    async with asyncio.timeout(PATIENCE_S):
        while len(told.died) < 9:
            await asyncio.sleep(0)
    assert not told.hopeless.done()
