"""Transactions. Writers take the database's write lock at BEGIN, so that read-then-write is never torn.

SQLAlchemy's ``isolation_level="IMMEDIATE"`` opens no transaction for a SELECT and loses updates; so the driver is
set to autocommit and the engine's ``begin`` event says BEGIN IMMEDIATE. WAL and ``synchronous=FULL``: a commit
that was acknowledged survives power loss.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Engine, PoolProxiedConnection, Select, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from dicomnode.errors import ConfigError, Transient

BUSY_TIMEOUT_S = 30.0
LOOK_AGAIN_S = 0.0003
RECEPTION_TIMEOUT_S = 10.0
"""How long a C-STORE waits for the database: the peer has to hear 0xA700 before its own patience ends."""
WAL_PAGES = 16_384
"""64 MiB. ``store.wal`` empties the log long before; a commit does so only where no timer runs."""


class Store:
    """The database of a node. One per process; sessions are short and never shared between threads."""

    def __init__(self, url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Open ``url`` (a SQLAlchemy URL). Raises ConfigError when it is not a database we know.

        ``busy_timeout_s``: how long a transaction waits for another writer before it raises Transient.
        """
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise ConfigError("node.database: not a SQLAlchemy URL") from error
        if parsed.get_backend_name() != "sqlite" or not parsed.database:
            raise ConfigError("node.database: only SQLite files are supported (sqlite:////path/to/file)")
        self.url = url
        self.path = Path(parsed.database)
        self._busy_timeout_s = busy_timeout_s
        self._raw: PoolProxiedConnection | None = None
        self._raw_turn = threading.Lock()
        try:
            self._writer = _engine(url, "BEGIN IMMEDIATE", busy_timeout_s)
            self._reader = _engine(url, "BEGIN", busy_timeout_s)
        except NoSuchModuleError as error:
            raise ConfigError("node.database: no driver for this URL") from error

    @property
    def engine(self) -> Engine:
        """The engine for writing; for migrations."""
        return self._writer

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One write transaction: it holds the write lock from its first statement, even a SELECT, to its commit.

        Committed at the end, rolled back when the block raises. Raises Transient when the database is
        locked beyond its time-out, full or unreadable.
        """
        with _translated(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """``write`` for the one place where every microsecond counts: the driver's own connection, one at a time.

        Raises Transient as ``write`` does.
        """
        with _driver_translated(), self._raw_turn:
            if self._raw is None:
                self._raw = self._writer.raw_connection()
                cast("sqlite3.Connection", self._raw.driver_connection).execute("PRAGMA busy_timeout=0").close()
            connection = cast("sqlite3.Connection", self._raw.driver_connection)
            self._begin(connection)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Take the write lock. SQLite itself looks again after 1, 2, 5, 10, … ms: long for a neighbour."""
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_AGAIN_S)
            else:
                return

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One read transaction on a consistent snapshot."""
        with _translated(), Session(self._reader, expire_on_commit=False) as session, session.begin():
            yield session

    def scalar(self, statement: Select[Any]) -> Any:
        """The first column of the first row of ``statement``, or None."""
        with self.read() as session:
            return session.scalar(statement)

    def close(self) -> None:
        """Close every connection of this process."""
        with self._raw_turn:
            if self._raw is not None:
                self._raw.invalidate()
                self._raw = None
        self._writer.dispose()
        self._reader.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise Transient(f"database: {error.orig}") from error
    except DatabaseError as error:
        if type(error) is not DatabaseError:
            raise
        raise Transient(f"database: {error.orig}") from error


@contextmanager
def _driver_translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
            raise
        raise Transient(f"database: {error}") from error
    except PoolTimeout as error:
        raise Transient("database: all connections are in use") from error
    except OperationalError as error:
        raise Transient(f"database: {error.orig}") from error


def _engine(url: str, begin: str, busy_timeout_s: float) -> Engine:
    engine = create_engine(url, connect_args={"timeout": busy_timeout_s, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            f"busy_timeout={int(busy_timeout_s * 1000)}",
            "foreign_keys=ON",
            "trusted_schema=OFF",
            f"wal_autocheckpoint={WAL_PAGES}",
            f"journal_size_limit={WAL_PAGES * 4096}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine
