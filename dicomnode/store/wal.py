"""The write-ahead log of the database: emptied by a timer, so that neither commits nor the disk pay for it.

SQLite moves the log into the database inside a commit when it has grown by ``wal_autocheckpoint`` pages, and that
commit, which a peer waits for, is slow. With several processes there is always a reader, so that the file could also
grow for ever. The timer moves it in small pieces while others write, and cuts the file when it is long.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass

from dicomnode.errors import Transient
from dicomnode.store.engine import Store

LONG_BYTES = 64 * 1024 * 1024
"""From here on the file is cut. Commits wait for that, but not longer than ``CUT_WAIT_S``."""
CUT_WAIT_S = 0.25

ROOM_BYTES = 24 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Relief:
    """What one look did: ``size`` of the file before in bytes, pages in it, pages ``moved`` into the database."""

    size: int
    pages: int
    moved: int
    cut: bool


def relieve(store: Store, long_bytes: int = LONG_BYTES) -> Relief:
    """Move the log into the database without waiting for anybody; cut its file when it is longer than ``long_bytes``.

    A reader that keeps an old snapshot bounds what can be moved; the next tick goes on, and nobody waits for a cut that
    could not be made. Raises Transient.
    """
    path = store.path.with_name(f"{store.path.name}-wal")
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return Relief(0, 0, 0, cut=False)
    try:
        with closing(sqlite3.connect(store.path, timeout=CUT_WAIT_S, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=FULL").close()
            _, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if size <= long_bytes or moved < pages:
                return Relief(size, pages, moved, cut=False)
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return Relief(size, pages, moved, cut=not busy)
    except sqlite3.DatabaseError as error:
        raise Transient(f"database: {error}") from error


def make_room(store: Store, size: int = ROOM_BYTES) -> None:
    """Make the file of the log ``size`` bytes long before anybody waits for it.

    A commit that makes the file longer has to wait for the file system's journal as well; one that writes where the log
    has been before does not. The pages of the database that this takes are free for rows afterwards. Raises Transient.
    """
    with store.transaction() as connection:
        connection.execute("DROP TABLE IF EXISTS wal_room")
        connection.execute("CREATE TABLE wal_room (content BLOB)")
        connection.execute("INSERT INTO wal_room VALUES (zeroblob(?))", (size,))
    with store.transaction() as connection:
        connection.execute("DROP TABLE wal_room")
    relieve(store)
