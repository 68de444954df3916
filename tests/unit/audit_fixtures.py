"""An audit log, and an intruder who writes into it as somebody with the database file in his hands."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from dicomnode.audit import Verdict, append, verify
from dicomnode.audit.events import Event
from dicomnode.store.audit_sql import TRIGGERS
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate

START = datetime(2026, 1, 1, tzinfo=UTC)


@cache
def _empty() -> bytes:
    """A database without rows, as ``migrate`` makes it; made once, since that takes half a second."""
    with TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/empty.sqlite3")
        migrate(store)
        with store.engine.connect() as connection:
            connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.close()
        return store.path.read_bytes()


def new_log(folder: Path, rows: int = 0) -> Store:
    """A database with ``rows`` audit rows, one a minute; row n is of patient P(n mod 3), study 1.2.n."""
    path = folder / "x.sqlite3"
    path.write_bytes(_empty())
    store = Store(f"sqlite:///{path}")
    with store.write() as session:
        for number in range(1, rows + 1):
            kind = Event.INFERENCE if number % 2 else Event.INSTANCE_STORED
            body = {"PatientID": f"P{number % 3}", "StudyInstanceUID": f"1.2.{number}", "text": "Grün"}
            append(session, kind, body, START + timedelta(minutes=number))
    return store


def check(store: Store) -> Verdict:
    """What ``verify`` says now."""
    with store.read() as session:
        return verify(session)


@contextmanager
def intruder(store: Store, *, keep_triggers: bool = False) -> Iterator[sqlite3.Connection]:
    """A plain connection; the triggers are gone inside and put back afterwards, to hide the traces."""
    connection = sqlite3.connect(store.path)
    if not keep_triggers:
        for name in TRIGGERS:
            connection.execute(f"DROP TRIGGER {name}")
    yield connection
    if not keep_triggers:
        for sql in TRIGGERS.values():
            connection.execute(sql)
    connection.commit()
    connection.close()


def loosen(connection: sqlite3.Connection) -> None:
    """Make a table of the same name without any constraint, so that NULLs and other types fit."""
    connection.execute("ALTER TABLE audit RENAME TO old")
    connection.execute("CREATE TABLE audit (seq INTEGER PRIMARY KEY, ts, kind, body, prev, hash)")
    connection.execute("INSERT INTO audit SELECT seq, ts, kind, body, prev, hash FROM old")
    connection.execute("DROP TABLE old")
