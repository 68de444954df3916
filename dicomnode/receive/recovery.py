"""What a start finds of an earlier run that did not end: open Associations, unfinished files, files without rows."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from dicomnode.receive.associations import Lost, living, lose_open, open_ids
from dicomnode.receive.replay import replay, row_of
from dicomnode.store.engine import Store
from dicomnode.store.spool import WHOLE, Spool

CLOCK_SLACK_S = 60.0
ABANDONED_S = 3600.0
_log = logging.getLogger(__name__)


def recover(store: Store, spool: Spool, now: float) -> int:
    """Put back what a power failure took, close the Associations of processes that are gone, remove what was never
    acknowledged; returns how many files were removed.

    Other processes of the node may be receiving meanwhile: the files of their Associations are left alone. A file
    without a row can only come from an Association that was open when its process died, so folders and files older
    than the oldest of those are not looked at. Raises Transient when the database is not available.
    """
    unfinished = spool.unfinished()
    with store.read() as session:
        alive = living(session)
    replay(store, spool, alive)
    with store.write() as session:
        lost, held = lose_open(session, now), open_ids(session)
    leftovers = [name for name in unfinished if _is_leftover(spool, name, held)]
    for name in leftovers:
        spool.drop_unfinished(name)
    orphans = [] if lost is None else [path for path in _files_of(spool, lost) if row_of(store, path) is None]
    for path in orphans:
        spool.remove(path)
    if lost is not None:
        _log.warning("an earlier run was lost", extra={"files_removed": len(leftovers) + len(orphans)})
    return len(leftovers) + len(orphans)


def _is_leftover(spool: Spool, name: str, held: set[int]) -> bool:
    """Is an unfinished file an Instance of an Association that is over, or a whole one that nobody writes any more?"""
    owner = name.partition("-")[0]
    if owner != WHOLE:
        return not (owner[:1] == "a" and owner[1:].isdigit() and int(owner[1:]) in held)
    age = spool.unfinished_age_s(name)
    return age is not None and age > ABANDONED_S


def _files_of(spool: Spool, lost: Lost) -> Iterator[str]:
    for path in _files_since(spool, lost.since - CLOCK_SLACK_S):
        words = path.rsplit("/", 1)[1].split("-")
        if len(words) == 3 and words[1].isdigit() and int(words[1]) in lost.ids:
            yield path


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
