"""`sluice evaluate` before anything is measured: what cannot be, is said at once, and by its exit code."""

import socket
from pathlib import Path

import pytest

from sluice.cli.errors import NOT_REACHABLE, WRONG_USAGE, CommandError
from sluice.cli.evaluate.command import Where, run
from sluice.cli.evaluate.request import Flags


def refused(url: str, *fail_if: str) -> CommandError:
    flags = Flags(data=Path("rows.npz"), task="regression", fail_if=fail_if)
    with pytest.raises(CommandError) as caught:
        run("plain", flags, Where(url=url), ())
    return caught.value


def test_a_gateway_that_is_not_there_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    error = refused(f"http://127.0.0.1:{port}")
    assert error.code == NOT_REACHABLE
    assert "expected a gateway there" in str(error)


def test_what_is_no_url_is_wrong_usage() -> None:
    error = refused("nonsense")
    assert error.code == WRONG_USAGE
    assert "expected the gateway's HTTP port" in str(error)


def test_what_is_no_condition_is_wrong_usage_and_not_a_condition_that_holds() -> None:
    error = refused("http://127.0.0.1:1", "accuracy < 1 or so")
    assert error.code == WRONG_USAGE
    assert "A condition of `fail_if` is" in str(error)
