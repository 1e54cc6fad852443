"""What a load test can be told beside Locust's own options, on the command line, by environment and in locust.conf."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadtests.locust.shapes import SHAPES
from loadtests.traffic.library import FOLDER
from sluice.cli.model_folders import MODELS

HOST = "http://127.0.0.1:8080"  # where `make serve` listens
USERS, SPAWN_RATE = 20, 10.0
_HTTP_PORT = 80
NO_SHAPE = "none"
LEAVE_OUT, FAIL = "leave-out", "fail"
BUDGETS = str(Path(__file__).with_name("budgets.yaml"))


def add(parser: Any) -> None:
    """Add them to Locust's parser. Those shown in its web UI can be changed there from run to run."""
    parser.add_argument(
        "--shape",
        choices=[NO_SHAPE, *SHAPES],
        default=NO_SHAPE,
        env_var="LOADTEST_SHAPE",
        help="How the number of users changes over --run-time, with --users as the most: "
        + "; ".join(f"{name}: {shape.summary}" for name, shape in SHAPES.items())
        + f"; {NO_SHAPE}, the default: --users all the time",
        include_in_web_ui=False,
    )
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=0.1,
        metavar="SECONDS",
        env_var="LOADTEST_WAIT",
        help="How long a user waits between two requests, on average, default %(default)s; 0: not at all",
    )
    parser.add_argument(
        "--grpc",
        default="",
        metavar="HOST:PORT",
        env_var="LOADTEST_GRPC",
        help="Where the gateway listens for gRPC. Default: one port higher than for HTTP",
        include_in_web_ui=False,
    )
    parser.add_argument(
        "--missing",
        choices=[LEAVE_OUT, FAIL],
        default=LEAVE_OUT,
        env_var="LOADTEST_MISSING",
        help="What to do with scenarios whose model is not served: leave them out (the default), or fail with code 3",
        include_in_web_ui=False,
    )
    for name, default, text in (
        ("models", str(MODELS), "The models as Keras saved them, which say what is right"),
        ("traffic", str(FOLDER), "Where what Keras answers is kept; made if it is missing or stale"),
        ("out", "var/loadtest", "Folder that gets the page of each run, and HISTORY.csv"),
        ("budgets", BUDGETS, "What the run must keep to, in YAML"),
    ):
        parser.add_argument(
            f"--{name}",
            default=default,  # text, as a master sends its options to its workers
            metavar="FILE" if name == "budgets" else "DIR",
            env_var=f"LOADTEST_{name.upper()}",
            help=f"{text}. Default: %(default)s",
            include_in_web_ui=False,
        )


def grpc_address(host: str, grpc: str) -> str:
    """HOST:PORT of the gateway's gRPC, by its URL for HTTP unless `grpc` says it."""
    if grpc:
        return grpc.removeprefix("grpc://")
    parts = urlsplit(host)
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{name}:{(parts.port or _HTTP_PORT) + 1}"


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError
    return seconds
