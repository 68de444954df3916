"""Retention: when a Study's images were removed, which files are still to go; and the clock of the node that runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add one column and two tables; nothing that is there changes."""
    op.add_column("study", sa.Column("deleted_at", sa.Double(), nullable=True))
    op.create_table(
        "removal",
        sa.Column("path", sa.String(length=200), nullable=False),
        sa.Column("decided_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_removal")),
    )
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Double(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("boot", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock")),
    )
