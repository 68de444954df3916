"""Checkpoints: size and head of the chain, written to a second place, so that a cut tail or a re-hash is found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dicomnode.audit.chain import GENESIS, canonical
from dicomnode.errors import Permanent, Transient
from dicomnode.store.tables import AuditRow


def write_checkpoint(session: Session, path: Path, origin: str) -> int:
    """Append one line ``{hash, origin, size, time}`` to ``path``, fsynced; returns the size of the log.

    Raises Transient when the file cannot be written.
    """
    newest = select(AuditRow.seq, func.lower(func.hex(AuditRow.hash)).label("hash")).order_by(AuditRow.seq.desc())
    head = session.execute(newest.limit(1)).first()
    size, value = (head.seq, head.hash) if head else (0, GENESIS.hex())
    line = canonical({"hash": value, "origin": origin, "size": size, "time": datetime.now(UTC).isoformat()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Transient(f"audit checkpoint: cannot be written: {error.strerror}") from error
    return int(size)


def check_against(session: Session, lines: Iterable[str]) -> str:
    """Compare the log with the checkpoints in ``lines``; returns what disagrees, or an empty text.

    Raises Permanent when a line is not a checkpoint.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        size, expected = _parsed(line, f"checkpoint line {number}: not a checkpoint")
        if size == 0:
            continue
        found = session.scalar(select(func.hex(AuditRow.hash)).where(AuditRow.seq == size))
        if found is None:
            return f"checkpoint line {number}: the log was cut, row {size} is gone"
        if found != expected.hex().upper():
            return f"checkpoint line {number}: row {size} is not the row that was written"
    return ""


def size_of(line: str) -> int:
    """How many rows the log had at this checkpoint. Raises Permanent when it is none."""
    return _parsed(line, "not a checkpoint")[0]


def _parsed(line: str, fault: str) -> tuple[int, bytes]:
    try:
        entry = json.loads(line)
        return int(entry["size"]), bytes.fromhex(entry["hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise Permanent(fault) from error
