"""Runs migrations on the connection that `sluice.evaluator.jobs.database` gives."""

from alembic import context

from sluice.evaluator.jobs.tables import Table

context.configure(connection=context.config.attributes["connection"], target_metadata=Table.metadata)
with context.begin_transaction():
    context.run_migrations()
