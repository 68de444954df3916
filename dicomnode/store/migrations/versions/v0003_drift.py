"""The watch on drift: what each analysis adds, and what was last said of each stratum."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two tables; nothing that is there changes."""
    op.create_table(
        "observation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("assignment_id", sa.Integer(), nullable=False),
        sa.Column("stratum", sa.String(length=16), nullable=False),
        sa.Column("CallingAETitle", sa.String(length=16), nullable=False),
        sa.Column("scanner", sa.String(length=16), nullable=False),
        sa.Column("protocol", sa.String(length=16), nullable=False),
        sa.Column("detector", sa.String(length=100), nullable=False),
        sa.Column("weights_sha256", sa.String(length=64), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("acquisition", sa.Double(), nullable=True),
        sa.Column("histogram", sa.JSON(), nullable=False),
        sa.Column("observed_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignment.id"], name=op.f("fk_observation_assignment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_observation")),
        sa.UniqueConstraint("assignment_id", name=op.f("uq_observation_assignment_id")),
    )
    op.create_index(op.f("ix_observation_stratum_id"), "observation", ["stratum", "id"])
    op.create_table(
        "drift",
        sa.Column("stratum", sa.String(length=16), nullable=False),
        sa.Column("judged_to", sa.Integer(), nullable=False),
        sa.Column("looked_to", sa.Integer(), nullable=False),
        sa.Column("looked_at", sa.Double(), nullable=False),
        sa.Column("alarms", sa.JSON(), nullable=False),
        sa.Column("alarmed_at", sa.Double(), nullable=True),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("stratum", name=op.f("pk_drift")),
    )
