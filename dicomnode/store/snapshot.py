"""A copy of the database while it is written to, a read-only look at a copy, and the files that its rows name."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from dicomnode.errors import Permanent, Transient
from dicomnode.store.tables import DerivedRow, InstanceRow

PAGES = 2000
"""Pages copied at a time, between two reports of progress."""
MAX_FAULTS = 10


@dataclass(frozen=True, slots=True)
class NeededFile:
    """A spool file that a row names: ``sha256`` is of its last ``size`` bytes, the data set, or of the ``whole``."""

    path: str
    sha256: str
    size: int
    whole: bool


def copy_database(source: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    """Copy ``source`` as it is at one moment to the new file ``target``, while others write. It needs no WAL.

    A read transaction pins the moment: without it each write of another process would start the copy again.
    ``progress`` hears of pages done and of all. The copy is fsynced by SQLite. Raises Transient when the disk is full
    or the database does not answer.
    """
    try:
        with closing(_reading(source)) as origin, closing(sqlite3.connect(target)) as copy:
            origin.execute("BEGIN")
            origin.execute("SELECT count(*) FROM sqlite_master").fetchone()
            origin.backup(copy, pages=PAGES, progress=lambda _, remaining, total: progress(total - remaining, total))
            origin.execute("COMMIT")
            copy.execute("PRAGMA journal_mode=DELETE").close()
    except sqlite3.DatabaseError as error:
        raise Transient(f"database: {error}") from error


def _reading(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30.0, isolation_level=None)
    connection.execute("PRAGMA trusted_schema=OFF").close()
    return connection


@contextmanager
def looking_at(path: Path) -> Iterator[Session]:
    """Read a database that nobody writes, without a lock and without a file beside it. Raises Permanent."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        connection.execute("PRAGMA trusted_schema=OFF").close()
        return connection

    engine = create_engine("sqlite://", creator=connect)
    try:
        with Session(engine) as session:
            yield session
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise Permanent(f"{path.name}: {getattr(error, 'orig', error)}") from error
    finally:
        engine.dispose()


def damage(session: Session, table: str = "") -> list[str]:
    """What SQLite finds wrong with the database or one ``table``, indexes included; empty when it is sound.

    Raises DatabaseError.
    """
    found = session.scalars(text(f"PRAGMA integrity_check({table or MAX_FAULTS})"))
    return [line for line in map(str, found) if line != "ok"]


def needed_files(session: Session) -> Iterator[NeededFile]:
    """Every spool file that the rows name, in the order of its path within each kind."""
    for row, whole in ((InstanceRow, False), (DerivedRow, True)):
        query = select(row.path, row.sha256, row.size).where(row.path != "").order_by(row.path)
        for path, sha256, size in session.execute(query.execution_options(yield_per=1000)):
            yield NeededFile(path, sha256, size, whole)
