"""When each stage of a Series ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_STAGES = ("complete", "route", "wait", "load", "inference", "report", "deliver", "total")


def upgrade() -> None:
    """Add two tables; nothing that is there changes."""
    op.create_table(
        "stages",
        sa.Column("assignment_id", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=True) for name in _STAGES),
        sa.ForeignKeyConstraint(
            ["assignment_id"], ["assignment.id"], name=op.f("fk_stages_assignment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("assignment_id", name=op.f("pk_stages")),
    )
    op.create_table(
        "stage_histogram",
        sa.Column("stage", sa.String(length=20), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("buckets", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("stage", name=op.f("pk_stage_histogram")),
    )
