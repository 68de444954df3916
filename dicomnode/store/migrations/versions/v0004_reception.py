"""Associations know which process holds them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Rows that are there belong to nobody: their process is gone."""
    op.add_column("association", sa.Column("owner", sa.String(length=100), nullable=False, server_default=""))
    op.create_index(op.f("ix_instance_association_id"), "instance", ["association_id"], unique=False)
