"""What a start finds of an earlier run that did not end: open Associations, unfinished files, files without rows."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select

from dicomnode.receive.associations import lose_open
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from dicomnode.store.tables import InstanceRow

CLOCK_SLACK_S = 60.0
_log = logging.getLogger(__name__)


def recover(store: Store, spool: Spool, now: float) -> int:
    """Close open Associations as lost, remove what was never acknowledged; returns how many files went.

    Only one receiving process may run on a spool. A file without a row can only come from an Association that was
    open when the node died, so folders and files older than the oldest of those are not looked at.
    Raises Transient when the database is not available.
    """
    removed = spool.clear_incoming()
    with store.write() as session:
        since = lose_open(session, now)
    if since is not None:
        orphans = [path for path in _files_since(spool, since - CLOCK_SLACK_S) if not _has_row(store, path)]
        for path in orphans:
            spool.remove(path)
        removed += len(orphans)
        _log.warning("an earlier run was lost", extra={"files_removed": removed})
    return removed


def _files_since(spool: Spool, since: float) -> Iterator[str]:
    """Paths within the spool; a rename changes the time of its folder, so old folders hold nothing new."""
    for folder in _entries(spool.root / "received"):
        if folder.is_dir() and folder.stat().st_mtime >= since:
            for file in _entries(Path(folder.path)):
                if file.stat().st_mtime >= since:
                    yield f"received/{folder.name}/{file.name}"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries


def _has_row(store: Store, path: str) -> bool:
    sha256 = path.rsplit("/", 1)[1].partition("-")[0]
    return (
        store.scalar(select(InstanceRow.id).where(InstanceRow.sha256 == sha256, InstanceRow.path == path)) is not None
    )
