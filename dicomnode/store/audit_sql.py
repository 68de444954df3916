"""The triggers that keep the audit table append-only, and the indexes that find a subject among its rows.

The third trigger is essential: INSERT OR REPLACE deletes without firing a delete
trigger, by the same seq or by the same hash. A migration that rebuilds the table must create them again; start-up
compares them.
"""

from __future__ import annotations

TRIGGERS = {
    "audit_no_update": (
        "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'audit rows are append-only'); END"
    ),
    "audit_no_delete": (
        "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'audit rows are append-only'); END"
    ),
    "audit_chain": (
        "CREATE TRIGGER audit_chain BEFORE INSERT ON audit "
        "WHEN NEW.seq != COALESCE((SELECT MAX(seq) FROM audit), 0) + 1 "
        "OR NEW.prev != COALESCE((SELECT hash FROM audit ORDER BY seq DESC LIMIT 1), zeroblob(32)) "
        "OR EXISTS (SELECT 1 FROM audit WHERE hash = NEW.hash) "
        "BEGIN SELECT RAISE(ABORT, 'audit rows continue the chain'); END"
    ),
}

SUBJECT_LENGTH = 65
"""A value of 64 characters and the quote behind it; a longer one is found by its beginning."""


def subject_sql(keyword: str) -> str:
    """The text of a row's body from the value of ``keyword`` on, NULL where there is none: what an index holds.

    SQLite refuses its JSON functions in an index while ``trusted_schema`` is off; canonical JSON has each value right
    behind ``"keyword":"``. Whoever asks has to look into the rows that this finds: an inner object may hold it too.
    """
    mark = f'"{keyword}":"'
    return f"substr(body, nullif(instr(body, '{mark}'), 0) + {len(mark)}, {SUBJECT_LENGTH})"


SUBJECTS = {"PatientID": "ix_audit_PatientID", "StudyInstanceUID": "ix_audit_StudyInstanceUID"}
"""Indexed keywords of audit bodies. An index is part of the transaction that adds the row, so it never lags."""
