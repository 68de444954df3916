"""The triggers that keep the audit table append-only.

The third one is essential: INSERT OR REPLACE deletes without firing a delete
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
