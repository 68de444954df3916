"""Indexes that keep claims and questions fast with a million audit rows and a hundred thousand jobs.

SQLite refuses its JSON functions in an index while ``trusted_schema`` is off; ``audit_sql`` says what stands for them.
Measured: 9 s for a million audit rows. The SQL is spelled out, as a migration must not change with the code.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_PATIENT = """substr(body, nullif(instr(body, '"PatientID":"'), 0) + 13, 65)"""
_STUDY = """substr(body, nullif(instr(body, '"StudyInstanceUID":"'), 0) + 20, 65)"""


def upgrade() -> None:
    """Add indexes and take two away; rows, tables and triggers stay as they are."""
    op.create_index("ix_audit_PatientID", "audit", [sa.text(_PATIENT)])
    op.create_index("ix_audit_StudyInstanceUID", "audit", [sa.text(_STUDY)])
    op.create_index(op.f("ix_audit_ts"), "audit", ["ts"])
    op.drop_index(op.f("ix_job_state_kind_priority_id"), "job")
    op.create_index(op.f("ix_job_state_kind_not_before"), "job", ["state", "kind", "not_before"])
    urgency = sa.text("(priority - created_at / 300.0) DESC")
    ready = sa.text("state = 'ready'")
    op.create_index("ix_job_claim", "job", ["kind", urgency, "id", "not_before", "created_at"], sqlite_where=ready)
    retrying = sa.text("error != '' AND finished_at IS NULL")
    op.create_index("ix_job_retrying", "job", ["id"], sqlite_where=retrying)
    op.drop_index(op.f("ix_delivery_state"), "delivery")
    whole = ["destination", "state", "committed_at"]
    op.create_index(op.f("ix_delivery_destination_state_committed_at"), "delivery", whole)
    op.create_index(op.f("ix_series_association_id"), "series", ["association_id"])
    op.create_index(op.f("ix_series_last_received_at"), "series", ["last_received_at"])
    op.create_index(op.f("ix_series_CallingAETitle_asked_at"), "series", ["CallingAETitle", "asked_at"])
    op.create_index("ix_instance_conflict", "instance", ["id"], sqlite_where=sa.text("conflict = 1"))
