"""The database of one evaluator: SQLite's file or a PostgreSQL server, its tables those of this version.

An evaluator has it to itself: two would run the same evaluations. It does not know what the tables are for.
"""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple, Protocol

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError

UNREACHABLE = (OperationalError, InterfaceError)  # what a database raises that may be mended: gone, locked, full
_BUSY_MS = 10_000  # how long SQLite waits for another program that looks into the file
LEFT_MS = 3000  # how long PostgreSQL may take to notice that an evaluator which had the database was killed
_LOCK = 0x51C1CE  # of PostgreSQL's advisory locks, ours
_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code for a lock that another has
_SILENT_MS = 10_000  # after which a PostgreSQL server that acknowledges nothing counts as gone
_HOW = "expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"


class CannotUse(Exception):
    """The database cannot be used; the sentence says why, and what to do."""


class Hold(Protocol):
    """Keeps other evaluators out of the database."""

    def take(self) -> None:
        """Make sure of it, again if it was lost.

        Raises:
            CannotUse: another evaluator uses the database.
            OSError, DBAPIError: it cannot be used now.
        """

    def is_held(self) -> bool:
        """Whether nobody else can have used the database since it was taken."""

    def close(self) -> None: ...


class Database(NamedTuple):
    engine: Engine
    hold: Hold


@contextmanager
def opened(address: str) -> Iterator[Database]:
    """The database at a URL, which this process has to itself.

    Raises:
        CannotUse: it cannot be reached or written, another evaluator has it, or a newer version made it.
    """
    url = read_url(address)
    shown = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)
    try:
        engine = _sqlite(url) if url.get_backend_name() == "sqlite" else _postgresql(url)
    except ImportError:
        raise CannotUse(f"--database {shown}: PostgreSQL needs psycopg: pip install 'psycopg[binary]'") from None
    taken = f"--database {shown}: another evaluator uses it. End that one, or give this one a database of its own"
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        try:
            hold = _File(url, taken) if url.get_backend_name() == "sqlite" else _Session(engine, taken)
            stack.callback(hold.close)
            hold.take()
            migrate(engine)
        except CommandError as error:
            raise CannotUse(f"--database {shown}: it is of another version of Sluice: {error}") from None
        except (OSError, DBAPIError) as error:
            raise CannotUse(f"--database {shown}: {reason_of(error)}") from None
        yield Database(engine, hold)


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


def _postgresql(url: URL) -> Engine:
    return create_engine(url, pool_pre_ping=True, connect_args={"tcp_user_timeout": _SILENT_MS})


class _File:
    """A lock of a file beside SQLite's, which ends with the process, however that ends."""

    def __init__(self, url: URL, taken: str) -> None:
        self._taken = taken
        Path(f"{url.database}").parent.mkdir(parents=True, exist_ok=True)
        self._file = Path(f"{url.database}.lock").open("w")  # noqa: SIM115 - closed by `close`

    def take(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotUse(self._taken) from None

    def is_held(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()


class _Session:
    """A lock of PostgreSQL's, which ends with its connection: also when the server is restarted."""

    def __init__(self, engine: Engine, taken: str) -> None:
        self._engine, self._taken = engine, taken
        self._connection: Connection | None = None
        self._lock = RLock()  # one thread at a time has the connection

    def take(self) -> None:
        with self._lock:
            if self._connection is not None:
                return
            self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                self._connection.execute(text(f"SET lock_timeout = {LEFT_MS}"))
                self._connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
            except DBAPIError as error:
                self.close()
                if getattr(error.orig, "sqlstate", "") == _LOCK_NOT_AVAILABLE:
                    raise CannotUse(self._taken) from None
                raise

    def is_held(self) -> bool:
        with self._lock:
            try:
                if self._connection is not None:
                    self._connection.execute(text("SELECT 1"))
            except DBAPIError:
                self.close()
            return self._connection is not None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.invalidate()  # or the pool would lend it, lock and all
                self._connection.close()
                self._connection = None
