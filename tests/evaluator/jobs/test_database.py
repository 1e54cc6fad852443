"""A database is made by migrations, is one evaluator's alone, and says what is wrong with it."""

import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from sluice.evaluator.jobs.database import CannotUse, opened
from sluice.evaluator.jobs.store import Store
from sluice.evaluator.jobs.tables import Table
from tests.evaluator.jobs.test_store import spec


def test_migrations_make_the_tables_that_the_code_has(database):
    with database.engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_what_is_kept_is_there_at_the_next_start(address):
    with opened(address) as database:
        Store(database).add("a", spec(), 1.0)
    with opened(address) as database:
        assert Store(database).get("a").created_at == 1.0


def test_a_second_evaluator_is_refused_until_the_first_has_ended(address, monkeypatch):
    monkeypatch.setattr("sluice.evaluator.jobs.database.LEFT_MS", 1)
    with opened(address):
        with pytest.raises(CannotUse, match=r"another evaluator uses it\. End that one, or give this one"):
            with opened(address):
                pytest.fail("both have it")
    with opened(address):
        pass


def test_an_evaluator_that_is_killed_leaves_the_database_free(address):
    code = (
        "from sluice.evaluator.jobs.database import opened\n"
        f"with opened({address!r}):\n print('ok', flush=True)\n input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ok\n"
        other.kill()
    with opened(address):
        pass


def test_a_database_of_a_newer_version_is_refused(address):
    with opened(address) as database, database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '999'"))
    with pytest.raises(CannotUse, match=r"another version of Sluice.*999"):
        with opened(address):
            pytest.fail("it was used")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("evaluations.db", "expected sqlite:///FILE or postgresql://.*got 'evaluations.db'"),
        ("sqlite://", "expected sqlite:///FILE"),
        ("sqlite:///:memory:", "expected sqlite:///FILE"),
        ("mysql://me:secret@there/it", r"got 'mysql://me:\*\*\*@there/it'"),
        ("sqlite:////proc/no/evaluations.db", "/proc/no"),
        ("postgresql://me:secret@/it?host=/nowhere", r"me:\*\*\*@.*(No such file|nowhere)"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_of(address, told):
    with pytest.raises(CannotUse, match=told) as refused:
        with opened(address):
            pytest.fail("it was used")
    assert "secret" not in str(refused.value)


def test_a_file_that_is_no_database_is_told_of(tmp_path):
    (tmp_path / "a.db").write_text("x" * 4096)
    with pytest.raises(CannotUse, match="not a database"):
        with opened(f"sqlite:///{tmp_path}/a.db"):
            pytest.fail("it was used")
