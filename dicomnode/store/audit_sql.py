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

ARCHIVE_TRIGGERS = {
    "audit_archive_no_update": (
        "CREATE TRIGGER audit_archive_no_update BEFORE UPDATE ON audit_archive "
        "BEGIN SELECT RAISE(ABORT, 'anchors of the audit log are append-only'); END"
    ),
    "audit_archive_no_delete": (
        "CREATE TRIGGER audit_archive_no_delete BEFORE DELETE ON audit_archive "
        "BEGIN SELECT RAISE(ABORT, 'anchors of the audit log are append-only'); END"
    ),
    "audit_archive_anchor": (
        "CREATE TRIGGER audit_archive_anchor BEFORE INSERT ON audit_archive "
        "WHEN NEW.seq <= COALESCE((SELECT MAX(seq) FROM audit_archive), 0) "
        "OR length(NEW.hash) != 32 "
        "BEGIN SELECT RAISE(ABORT, 'an anchor lies beyond the last one'); END"
    ),
}
"""An anchor says where the archived part of the log ends. It must not name the table ``audit``: SQLite could rename
nothing to that name then, and a migration that rebuilds the table does."""

PROTECTED = {"audit": TRIGGERS, "audit_archive": ARCHIVE_TRIGGERS}

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


def value_sql(keyword: str) -> str:
    """A text value of a row's body up to its first quote, NULL where there is none.

    Rows of one value lie in the order of ``seq`` in an index of this, so the newest of many are its first.
    """
    return _cut(f"""nullif(instr(body, '"{keyword}":"'), 0) + {len(keyword) + 4}""")


def holds_sql(keyword: str) -> str:
    """That a row's body has a text value of ``keyword``."""
    return f"""instr(body, '"{keyword}":"') > 0"""


def _cut(start: str) -> str:
    rest = f"substr(body, {start})"
    return f"substr({rest}, 1, instr({rest}, '\"') - 1)"


RARE = {
    "model": "ix_audit_model",
    "weights_sha256": "ix_audit_weights",
    "outcome": "ix_audit_outcome",
    "user": "ix_audit_user",
}
"""Keywords that rows of reception never have: each has an index of the rows that have it, and of no other."""

_TITLE_SQL = """nullif(instr(body, '"CallingAETitle":"'), 0) + 18"""
PEER_SQL = _cut(f"""coalesce(nullif(instr(body, '"peer":"'), 0) + 8, {_TITLE_SQL})""")
"""The peer of a row: its name, or the AE title of one that has no name here."""
ONE_PER_IMAGE = ("instance stored", "instance repeated", "begin transferring")
"""Kinds that no index of peers has; the end of the transfer of their Study leads to them."""
END_OF_TRANSFER = "instances transferred"
PEER_INDEXES = {
    "ix_audit_sender": f"kind = '{END_OF_TRANSFER}'",
    "ix_audit_peer": f"kind NOT IN ({', '.join(repr(kind) for kind in (*ONE_PER_IMAGE, END_OF_TRANSFER))})",
}
"""Index of peers to the rows that it holds: a row is in one of them at most."""
