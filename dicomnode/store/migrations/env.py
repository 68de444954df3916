"""Alembic's entry: runs on the connection that ``migrate`` hands in."""

from __future__ import annotations

from alembic import context

from dicomnode.store.tables import Row

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
