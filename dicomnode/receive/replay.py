"""After a power failure: received files that only the intake journal still holds are put back (trust.md R1)."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection
from pathlib import Path

from sqlalchemy import select

from dicomnode.errors import Transient
from dicomnode.store.engine import Store
from dicomnode.store.journal_record import Record, records
from dicomnode.store.spool import Spool
from dicomnode.store.tables import InstanceRow

_log = logging.getLogger(__name__)


def replay(store: Store, spool: Spool, alive: Collection[str]) -> int:
    """Put back what the journals of processes that are not ``alive`` hold, then remove them; returns how many files.

    Only files that a row names: others were never acknowledged. A record is whole when its content ends in a data set
    of the SHA-256 of the row. Raises Transient when a file cannot be written; its journal stays.
    """
    restored = 0
    for journal in sorted(spool.journal.iterdir()):
        if journal.stem not in alive:
            restored += _replay_file(store, spool, journal)
            journal.unlink(missing_ok=True)
    if restored:
        _log.warning("received files were restored from the journal", extra={"files": restored})
    return restored


def row_of(store: Store, path: str) -> tuple[int, str] | None:
    """Size in bytes and SHA-256 of the data set whose row names the spool file ``path``, or None.

    Its name tells the Association, whose rows have an index. A repeat that replaced a lost file is found by looking at
    every row, which only files that no row names cost otherwise.
    """
    owner = path.rpartition("/")[2].split("-")[1:2]
    about = select(InstanceRow.size, InstanceRow.sha256).where(InstanceRow.path == path)
    with store.read() as session:
        row = None
        if owner and owner[0].isdigit():
            row = session.execute(about.where(InstanceRow.association_id == int(owner[0]))).first()
        row = row or session.execute(about).first()
    return None if row is None else (int(row.size), str(row.sha256))


def _replay_file(store: Store, spool: Spool, journal: Path) -> int:
    try:
        descriptor = os.open(journal, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # another receiving process that starts now has put its files back
        return 0
    except OSError as error:
        raise Transient(f"spool: disk error {error.errno}") from error
    try:
        return sum(_restore(store, spool, descriptor, record) for record in records(descriptor))
    except OSError as error:
        raise Transient(f"spool: disk error {error.errno}") from error
    finally:
        os.close(descriptor)


def _restore(store: Store, spool: Spool, descriptor: int, record: Record) -> bool:
    named = row_of(store, record.path)
    if named is None or _is_whole(_read(spool.absolute(record.path), record.size + 1), *named):
        return False
    content = os.pread(descriptor, record.size, record.content_offset)
    if not _is_whole(content, *named):
        return False
    area, _, name = record.path.split("/")
    spool.store((content,), area, name)
    return True


def _read(file: Path, limit: int) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(limit)
    except FileNotFoundError:
        return b""


def _is_whole(content: bytes, size: int, sha256: str) -> bool:
    return len(content) >= size and hashlib.sha256(content[len(content) - size :]).hexdigest() == sha256
