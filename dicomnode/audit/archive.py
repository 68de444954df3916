"""The oldest rows leave the table for a signed archive, and the chain goes on from where they end.

In this order: the files are written and proved; one transaction adds the anchor and the row that records it; then the
rows go, a part at a time. A crash leaves rows that an anchor covers: they are still good, and the next run removes
them. The delete trigger is dropped and made again within each transaction that removes rows, so nobody else ever sees
the table without it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

import dicomnode
from dicomnode.audit.anchor import Anchor, anchors
from dicomnode.audit.archive_files import Line, check_files, write_files
from dicomnode.audit.chain import GENESIS, append
from dicomnode.audit.checkpoint import Checkpoint
from dicomnode.audit.events import Event
from dicomnode.audit.signing import SigningKey
from dicomnode.audit.verification import Progress, verify
from dicomnode.errors import ConfigError, DicomNodeError, Permanent, Transient
from dicomnode.store.audit_sql import TRIGGERS
from dicomnode.store.engine import Store
from dicomnode.store.schema import wrong_triggers
from dicomnode.store.spool import sync_folder
from dicomnode.store.tables import AuditArchiveRow, AuditRow

AT_ONCE = 10_000
"""Rows removed in one transaction: reception waits that long."""
_ROWS = text(
    "SELECT seq, ts, kind, body, lower(hex(prev)), lower(hex(hash)) FROM audit WHERE seq <= :last ORDER BY seq"
)
_NO_DELETE = "audit_no_delete"


@dataclass(frozen=True, slots=True)
class Archived:
    """What was done: rows ``first`` to ``last`` are in ``folder``; ``removed`` rows left the table, leftovers too."""

    folder: Path | None
    first: int
    last: int
    removed: int


def archive(
    store: Store,
    folder: Path,
    before: datetime,
    *,
    retention_days: int,
    origin: str,
    key: SigningKey,
    user: Mapping[str, str],
    progress: Progress | None = None,
) -> Archived:
    """Move the rows of before ``before`` to the new ``folder``; ``folder`` is None in the answer when there are none.

    ``user``: who asked, for the row. Raises Permanent when rows younger than ``retention_days`` would go or the chain
    is not good, ConfigError when ``folder`` is not new, Transient when the disk or the database fails.
    """
    removed = remove_archived(store)
    with store.read() as session:
        _refuse_too_young(session, before, retention_days)
        verdict = verify(session, progress)
        if not verdict.ok:
            raise Permanent(f"the log is not as it was written, and stays as it is: {verdict.reason}")
        first, last = verdict.archived + 1, _last_before(session, before)
        if last < first:
            return Archived(None, first, verdict.archived, removed)
        checkpoint = _checkpoint(session, last, origin).signed(key)
        facts = _facts(session, first, checkpoint, before, retention_days)
        manifest = _written(folder, session, last, facts, checkpoint, key)
    body = {"first": first, "last": last, "head": checkpoint.hash.hex(), "manifest_sha256": manifest}
    body |= {"before": before.isoformat(), "folder": str(folder), "checkpoint": checkpoint.line(), **user}
    with store.write() as session:
        _anchor(session, Anchor(last, checkpoint.hash, manifest), body)
    return Archived(folder, first, last, removed + remove_archived(store))


def remove_archived(store: Store) -> int:
    """Remove the rows that an anchor covers, ``AT_ONCE`` at a time; returns how many. Raises Transient."""
    removed = 0
    while True:
        with store.write() as session:
            found = anchors(session)
            part = _remove(session, found[-1].seq) if found else 0
        removed += part
        if not part:
            return removed


def _remove(session: Session, last: int) -> int:
    lowest = session.scalar(select(func.min(AuditRow.seq)))
    if lowest is None or lowest > last:
        return 0
    end = min(last, lowest + AT_ONCE - 1)
    session.execute(text(f"DROP TRIGGER {_NO_DELETE}"))
    session.execute(text("DELETE FROM audit WHERE seq <= :end"), {"end": end})
    session.execute(text(TRIGGERS[_NO_DELETE].replace(":", "\\:")))
    wrong = wrong_triggers(session)
    if wrong:
        raise Permanent(f"the audit log is not protected: triggers wrong: {', '.join(wrong)}")
    return int(end - lowest + 1)


def _anchor(session: Session, anchor: Anchor, body: dict[str, Any]) -> None:
    """The anchor, and the row that confirms it, in the caller's transaction."""
    if _hash_of(session, anchor.seq) != anchor.hash:
        raise Permanent(f"row {anchor.seq} of the audit log is not the one that was archived")
    made = {"archived_at": datetime.now(UTC).isoformat(), "manifest_sha256": anchor.manifest_sha256}
    session.add(AuditArchiveRow(seq=anchor.seq, hash=anchor.hash, **made))
    append(session, Event.AUDIT_ARCHIVED, body)


def _refuse_too_young(session: Session, before: datetime, retention_days: int) -> None:
    """By the clock of the newest row where this machine's runs ahead of it."""
    newest = session.scalar(select(AuditRow.ts).order_by(AuditRow.seq.desc()).limit(1))
    now = min(datetime.now(UTC), datetime.fromisoformat(newest)) if newest else datetime.now(UTC)
    limit = now - timedelta(days=retention_days)
    if before > limit:
        days = f"audit.retention_days = {retention_days}"
        raise Permanent(f"refused: rows since {limit:%Y-%m-%d %H:%M} UTC have to stay ({days})")


def _last_before(session: Session, before: datetime) -> int:
    """The last row of those that all come before the first one of ``before`` or later; the newest row always stays."""
    since = before.astimezone(UTC).isoformat(timespec="microseconds")
    kept = session.scalar(select(func.min(AuditRow.seq)).where(AuditRow.ts >= since))
    newest = session.scalar(select(func.max(AuditRow.seq))) or 0
    return int(newest if kept is None else kept) - 1


def _checkpoint(session: Session, seq: int, origin: str) -> Checkpoint:
    return Checkpoint(origin, seq, _hash_of(session, seq), datetime.now(UTC).isoformat())


def _hash_of(session: Session, seq: int) -> bytes:
    return bytes(session.scalar(select(AuditRow.hash).where(AuditRow.seq == seq)) or b"")


def _facts(
    session: Session, first: int, checkpoint: Checkpoint, before: datetime, retention_days: int
) -> dict[str, Any]:
    found = anchors(session)
    return {
        "origin": checkpoint.origin,
        "first": first,
        "last": checkpoint.size,
        "prev": (found[-1].hash if found else GENESIS).hex(),
        "head": checkpoint.hash.hex(),
        "before": before.isoformat(),
        "made_at": checkpoint.time,
        "retention_days": retention_days,
        "software_version": dicomnode.__version__,
    }


def _written(
    folder: Path, session: Session, last: int, facts: dict[str, Any], checkpoint: Checkpoint, key: SigningKey
) -> str:
    """Write the files beside their place, prove them by reading, and give the folder its name."""
    part = folder.with_name(f"{folder.name}.part")
    if folder.exists() or part.exists():
        raise ConfigError(f"{folder if folder.exists() else part}: it is there already; nothing is written over")
    try:
        part.mkdir(mode=0o700, parents=True)
        manifest = write_files(part, _rows(session, last), facts, checkpoint, key)
        check_files(part, [key.public])
        part.rename(folder)
        sync_folder(folder.parent)
    except (OSError, DicomNodeError) as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError):
            raise Transient(f"{folder}: {error.strerror}") from error
        raise
    return manifest


def _rows(session: Session, last: int) -> Iterator[Line]:
    for row in session.execute(_ROWS.execution_options(yield_per=1000), {"last": last}):
        yield (row[0], row[1], row[2], row[3], row[4], row[5])
