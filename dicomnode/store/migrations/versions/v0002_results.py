"""More kinds of results: gates, Series Numbers, stand-ins, storage commitment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what the results of every kind need; nothing that is there changes."""
    op.add_column("assignment", sa.Column("gate", sa.String(length=20), nullable=True))
    op.add_column("derived", sa.Column("SeriesNumber", sa.Integer(), nullable=True))
    op.add_column("delivery", sa.Column("committed_at", sa.Double(), nullable=True))
    op.create_table(
        "commitment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("TransactionUID", sa.String(length=64), nullable=False),
        sa.Column("assignment_id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("instances", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.Column("requested_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignment.id"], name=op.f("fk_commitment_assignment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment")),
        sa.UniqueConstraint("TransactionUID", name=op.f("uq_commitment_TransactionUID")),
    )
    op.create_index(op.f("ix_commitment_assignment_id"), "commitment", ["assignment_id"])
    op.create_index(op.f("ix_commitment_state"), "commitment", ["state"])
