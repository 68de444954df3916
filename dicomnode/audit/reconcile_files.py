"""The spool against the rows that name its files: none is missing, none is nobody's (A2)."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.store.spool import Spool
from dicomnode.store.tables import DerivedRow, InstanceRow, RemovalRow

GRACE_S = 900.0
"""A file is written before the row that names it."""


def missing_files(session: Session, spool: Spool, since: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Files that a row names since ``since`` and that are gone, or not as long as they were."""
    for row, at in ((InstanceRow, InstanceRow.received_at), (DerivedRow, DerivedRow.created_at)):
        query = select(row.path, row.size, row.SOPInstanceUID).where(at >= since, row.path != "")
        for path, size, uid in session.execute(query.execution_options(yield_per=1000)):
            try:
                length = spool.absolute(path).stat().st_size
            except OSError:
                yield "file missing", {"SOPInstanceUID": uid, "path": path}
                continue
            if length < size:
                yield "file cut off", {"SOPInstanceUID": uid, "path": path, "bytes": length, "expected": size}


def foreign_files(session: Session, spool: Spool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Files of the spool that no row names, and that are older than ``GRACE_S``."""
    before = time.time() - GRACE_S
    known: set[str] = set()
    for row in (InstanceRow, DerivedRow, RemovalRow):
        known.update(session.scalars(select(row.path).execution_options(yield_per=1000)))
    for area in ("received", "derived"):
        for file in (spool.root / area).rglob("*"):
            path = str(file.relative_to(spool.root))
            if path not in known and _is_old(file, before):
                yield "file without a row", {"path": path}


def _is_old(file: Path, before: float) -> bool:
    """A file, not a folder, that has not changed since ``before``; one that goes at this moment is none."""
    try:
        found = file.lstat()
    except OSError:
        return False
    return not stat.S_ISDIR(found.st_mode) and found.st_mtime < before
