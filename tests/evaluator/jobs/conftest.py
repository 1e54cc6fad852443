"""Both kinds of databases, empty for each test; an evaluator whose engine does what the test tells."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import create_engine, text

from sluice.evaluator.jobs.database import Database, opened, read_url
from sluice.evaluator.jobs.store import Store
from tests.evaluator import postgresql
from tests.evaluator.puppet import Here, running


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    with postgresql.running() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/evaluations.db"
    url: str = request.getfixturevalue("postgresql_url")
    engine = create_engine(read_url(url))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def database(address) -> Iterator[Database]:
    with opened(address) as database:
        yield database


@pytest.fixture
def store(database) -> Store:
    return Store(database)


@pytest.fixture
async def here(tmp_path) -> AsyncIterator[Here]:
    async with running(tmp_path) as here:
        yield here
