"""A PostgreSQL server of the tests' own, from Debian's package, on a Unix socket in a folder of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_USER = "postgres"
_SETTINGS = ("listen_addresses=", "fsync=off", "shared_buffers=16MB", "max_connections=20", "autovacuum=off")


@contextmanager
def running() -> Iterator[str]:
    """Its URL, until it is stopped again."""
    programs = _programs()
    # It refuses to run as root, and its user cannot look into pytest's own folders.
    user = _USER if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="sluice-pg-") as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user)
        made = subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
            user=user, cwd=folder, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        command = [programs / "postgres", "-D", folder / "data", "-k", folder, *settings]
        with subprocess.Popen(command, user=user, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            said = []
            for line in server.stderr:
                said.append(line)
                if "ready to accept connections" in line:
                    break
            else:
                pytest.fail("".join(said))
            yield f"postgresql://{_USER}@/postgres?host={folder}"
            server.send_signal(signal.SIGQUIT)
            server.communicate(timeout=60)


def _programs() -> Path:
    found = shutil.which("initdb")
    if found is not None and (Path(found).parent / "postgres").exists():
        return Path(found).parent
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    missing = "PostgreSQL is missing; install the package `postgresql`, or run `make system-packages`"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
