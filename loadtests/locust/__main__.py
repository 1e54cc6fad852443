"""`python -m loadtests.locust`: a mixed load on a gateway of its own, headless, and a page of what came of it."""

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.processes import ROOT, python
from loadtests.serving import serving
from sluice.cli.embedded import Embedded
from sluice.cli.errors import NOT_REACHABLE, CommandError
from sluice.cli.model_folders import MODELS
from sluice.client import SluiceError
from sluice.signals import EXIT

OUT = Path("var/loadtest")
CONFIG = Path(__file__).with_name("locust.conf")
_DESCRIPTION = "Send a mixed load to a gateway of its own, check every answer, and write a page of what came of it."
_EPILOG = (
    f"All else goes to Locust, such as --users 50 --run-time 60s --shape spike RowsUser; what is not said stands in "
    f"{CONFIG.relative_to(ROOT)}, and `locust --config` with this file `--help` lists it."
)


def main(arguments: Sequence[str]) -> int:
    """The exit code: that of Locust; 1 if the models cannot be trained, 3 if they cannot be served."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.locust", description=_DESCRIPTION, epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("--models", type=Path, default=MODELS, metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help="the folder for all that it writes, default: %(default)s"
    )
    given, others = parser.parse_known_args(arguments)
    print("Starting a gateway with the example models, which are trained first if need be …", flush=True)  # noqa: T201
    try:
        with serving(given.models, given.out) as gateway:
            return _run(locust(gateway, given.models, given.out, others))
    except (CommandError, SluiceError) as error:
        sys.stderr.write(f"{error}\n")
        return error.code if isinstance(error, CommandError) else NOT_REACHABLE
    except KeyboardInterrupt:  # before there was any load
        return EXIT + signal.SIGINT


def locust(gateway: Embedded, models: Path, out: Path, others: Sequence[str]) -> list[str]:
    """The command that loads a gateway, headless; it writes into `out`, and `others` goes to Locust as it is."""
    options = {
        "config": CONFIG,
        "host": gateway.http,
        "grpc": gateway.grpc,
        "models": models,
        "traffic": out / "traffic",
        "out": out,
        "html": out / "locust.html",
        "csv": out / "locust",
    }
    return python(
        "locust", "--headless", "--only-summary", *(f"--{name}={value}" for name, value in options.items()), *others
    )


def _run(command: Sequence[str]) -> int:
    """Run Locust to its end; Ctrl-C is for it alone, as it writes what it has by then, which takes a moment."""
    with subprocess.Popen(command) as process:  # noqa: S603 - ourselves
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return process.wait()
        finally:  # told to stop by SIGTERM
            signal.signal(signal.SIGINT, before)
            process.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
