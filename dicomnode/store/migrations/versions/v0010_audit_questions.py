"""Indexes for every question to the audit log, and the position of its copy at an audit record repository.

They are of rows that reception does not write, but for one entry at the end of a transfer. The SQL is spelled out, as a
migration must not change with the code.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None

_RARE = {"model": "model", "weights": "weights_sha256", "outcome": "outcome", "user": "user"}
_PEER_AT = """coalesce(nullif(instr(body, '"peer":"'), 0) + 8, nullif(instr(body, '"CallingAETitle":"'), 0) + 18)"""
_OF_PEER = "kind NOT IN ('instance stored', 'instance repeated', 'begin transferring', 'instances transferred')"
_OF_SENDER = "kind = 'instances transferred'"


def upgrade() -> None:
    """Add indexes and a table; rows and triggers stay as they are."""
    for name, keyword in _RARE.items():
        value = _cut(f"""nullif(instr(body, '"{keyword}":"'), 0) + {len(keyword) + 4}""")
        holds = sa.text(f"""instr(body, '"{keyword}":"') > 0""")
        op.create_index(f"ix_audit_{name}", "audit", [sa.text(value)], sqlite_where=holds)
    for name, rows in {"ix_audit_sender": _OF_SENDER, "ix_audit_peer": _OF_PEER}.items():
        op.create_index(name, "audit", [sa.text(_cut(_PEER_AT))], sqlite_where=sa.text(rows))
    op.create_table(
        "audit_shipped",
        sa.Column("place", sa.String(length=300), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("shipped_at", sa.Double(), nullable=True),
        sa.Column("failed_since", sa.Double(), nullable=True),
        sa.Column("alerted", sa.Boolean(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("place", name=op.f("pk_audit_shipped")),
    )


def _cut(start: str) -> str:
    rest = f"substr(body, {start})"
    return f"substr({rest}, 1, instr({rest}, '\"') - 1)"
