"""Anchors of archived parts of the audit log. The SQL is spelled out, as a migration must not change with the code."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TRIGGERS = (
    (
        "CREATE TRIGGER audit_archive_no_update BEFORE UPDATE ON audit_archive "
        "BEGIN SELECT RAISE(ABORT, 'anchors of the audit log are append-only'); END"
    ),
    (
        "CREATE TRIGGER audit_archive_no_delete BEFORE DELETE ON audit_archive "
        "BEGIN SELECT RAISE(ABORT, 'anchors of the audit log are append-only'); END"
    ),
    (
        "CREATE TRIGGER audit_archive_anchor BEFORE INSERT ON audit_archive "
        "WHEN NEW.seq <= COALESCE((SELECT MAX(seq) FROM audit_archive), 0) "
        "OR length(NEW.hash) != 32 "
        "BEGIN SELECT RAISE(ABORT, 'an anchor lies beyond the last one'); END"
    ),
)


def upgrade() -> None:
    """Add one table and its triggers; nothing that is there changes."""
    op.create_table(
        "audit_archive",
        sa.Column("seq", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("archived_at", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_archive")),
    )
    for sql in _TRIGGERS:
        op.execute(sql)
