"""The database of one evaluator: SQLite's file or a PostgreSQL server, its tables those of this version.

An evaluator has it to itself: two would run the same evaluations. It does not know what the tables are for.
"""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError

UNREACHABLE = (OperationalError, InterfaceError)  # what a database raises that may be mended: gone, locked, full
_BUSY_MS = 10_000  # how long SQLite waits for another program that looks into the file
LEFT_MS = 3000  # how long PostgreSQL may take to notice that an evaluator which had the database was killed
_LOCK = 0x51C1CE  # of PostgreSQL's advisory locks, ours
_HOW = "expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"


class CannotUse(Exception):
    """The database cannot be used; the sentence says why, and what to do."""


@contextmanager
def opened(address: str) -> Iterator[Engine]:
    """The database at a URL for as long as this process has it to itself.

    Raises:
        CannotUse: it cannot be reached or written, another evaluator has it, or a newer version made it.
    """
    url = read_url(address)
    shown = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)
    try:
        engine = _sqlite(url) if url.get_backend_name() == "sqlite" else create_engine(url, pool_pre_ping=True)
    except ImportError:
        raise CannotUse(f"--database {shown}: PostgreSQL needs psycopg: pip install 'psycopg[binary]'") from None
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        try:
            stack.enter_context(_alone(engine, url, shown))
            migrate(engine)
        except CommandError as error:
            raise CannotUse(f"--database {shown}: it is of another version of Sluice: {error}") from None
        except (OSError, DBAPIError) as error:
            raise CannotUse(f"--database {shown}: {reason_of(error)}") from None
        yield engine


def read_url(address: str) -> URL:
    """Raises: CannotUse: it is no URL of a database that can be used."""
    try:
        url = make_url(address)
        backend = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        raise CannotUse(f"--database: {_HOW}, got {address!r:.80}") from None
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or not url.database or url.database == ":memory:":
        raise CannotUse(f"--database: {_HOW}, got {url.render_as_string(hide_password=True)!r:.80}")
    return url


def migrate(engine: Engine) -> None:
    """Make the tables those of this version."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def reason_of(error: OSError | DBAPIError) -> str:
    """Why a file or a database cannot be used, in a few words."""
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror or error}"
    return " ".join(str(error.orig).split())


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin below, and not when Python's module sees fit
        for pragma in (f"busy_timeout={_BUSY_MS}", "journal_mode=WAL", "foreign_keys=ON", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        # One that reads first and then writes cannot wait for another writer: SQLite refuses it at once.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def _alone(engine: Engine, url: URL, shown: str) -> Iterator[None]:
    """Meanwhile no other evaluator uses the database; the lock ends with the process, however that ends."""
    taken = CannotUse(
        f"--database {shown}: another evaluator uses it. End that one, or give this one a database of its own"
    )
    if url.get_backend_name() == "sqlite":
        Path(f"{url.database}").parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{url.database}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise taken from None
            yield
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"SET lock_timeout = {LEFT_MS}"))
        try:
            connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        except OperationalError:
            raise taken from None
        yield
