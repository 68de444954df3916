"""The vault: the way back from a pseudonym, for results that return. A file of its own, under a key of its own.

Nothing in the file can be read without the key (``vault_cipher``); with the key of the project alone it cannot be read
either. What is recorded is committed, with ``synchronous=FULL``, before the object it belongs to may leave.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.vault_cipher import VaultCipher
from dicomnode.dicom.private_file import require_private
from dicomnode.errors import ConfigError, Permanent
from dicomnode.store.engine import Store
from dicomnode.store.snapshot import copy_database

Kind = Literal["patient", "study", "uid", "accession", "study-id", "date"]
Name = tuple[Kind, str]
"""Of what, and its pseudonym."""
WHAT = "the key of the vault"

_TABLES = """
CREATE TABLE IF NOT EXISTS vault (
    id INTEGER PRIMARY KEY CHECK (id = 1), key TEXT NOT NULL, nonce BLOB NOT NULL, sealed BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS entry (
    row INTEGER PRIMARY KEY, project TEXT NOT NULL, lookup BLOB NOT NULL UNIQUE,
    nonce BLOB NOT NULL, sealed BLOB NOT NULL
)"""
_PROOF, _PROOF_ROW = {"vault": "dicomnode"}, 0


@dataclass(frozen=True, slots=True)
class Entry:
    """What one pseudonym stands for. ``content``: texts and numbers, JSON."""

    kind: Kind
    pseudonym: str
    content: Mapping[str, str | int]


class Vault:
    """The vault of one project. Processes may share the file; a thread each its own object or one after the other."""

    def __init__(self, path: Path, key_file: Path, project: str) -> None:
        """Open ``path``, or make it. ``project``: ``ProjectKey.project``.

        Raises ConfigError when the key is missing, open to others or another one, or the file open to others.
        """
        self._path, self._key_file, self._project = path, key_file, project
        self._keys = ProjectKey.load(key_file, WHAT)
        self._cipher = VaultCipher(self._keys)
        _make_private(path)
        self._store = Store(f"sqlite:///{path.resolve()}")
        with self._store.transaction() as connection:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
        with self._transaction() as connection:
            if not self._proved(*connection.execute("SELECT nonce, sealed FROM vault").fetchone()):
                raise ConfigError(f"{WHAT} is not the one that it is sealed with")

    @property
    def key_id(self) -> str:
        """The id of the key that the vault is sealed with now."""
        return self._cipher.key_id

    def record(self, entries: Iterable[Entry]) -> int:
        """Add what is not there yet, committed and durable when this returns; returns how many rows are new.

        Raises Transient when the file cannot be written.
        """
        added = 0
        with self._transaction() as connection:
            row = connection.execute("SELECT coalesce(max(row), 0) FROM entry").fetchone()[0]
            for entry in entries:
                lookup = self._cipher.lookup(self._project, entry.kind, entry.pseudonym)
                if connection.execute("SELECT 1 FROM entry WHERE lookup = ?", (lookup,)).fetchone():
                    continue
                row, added = row + 1, added + 1
                content = {**entry.content, "kind": entry.kind, "pseudonym": entry.pseudonym}
                sealed = self._cipher.seal(content, self._project, row, lookup)
                connection.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", (row, self._project, lookup, *sealed))
        return added

    def find(self, names: Iterable[Name], tell: Callable[[Sequence[int]], None]) -> dict[Name, dict[str, Any]]:
        """What of ``names`` is there, opened. ``tell`` hears the numbers of the rows before any is opened.

        It writes the audit row; when it raises, nothing is opened. Raises Permanent when a row was altered or moved.
        """
        with self._transaction() as connection:
            cipher = self._cipher
            found = [(name, row) for name in dict.fromkeys(names) if (row := self._row(connection, name))]
        if not found:
            return {}
        tell([row[0] for _, row in found])
        return {name: cipher.open(nonce, sealed, self._project, n, look) for name, (n, look, nonce, sealed) in found}

    def _row(self, connection: sqlite3.Connection, name: Name) -> tuple[int, bytes, bytes, bytes] | None:
        lookup = self._cipher.lookup(self._project, *name)
        query = "SELECT row, lookup, nonce, sealed FROM entry WHERE lookup = ? AND project = ?"
        row: tuple[int, bytes, bytes, bytes] | None = connection.execute(query, (lookup, self._project)).fetchone()
        return row

    def __len__(self) -> int:
        with self._transaction() as connection:
            return int(connection.execute("SELECT count(*) FROM entry").fetchone()[0])

    def copy(self, target: Path) -> None:
        """Copy it as it is now to the new file ``target`` of mode 0600. Raises ConfigError, Transient."""
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise ConfigError(f"the copy of the vault cannot be made: {error.strerror}") from error
        copy_database(self._path, target, lambda _done, _all: None)

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction in which the key at hand is the vault's: another process may have changed it."""
        with self._store.transaction() as connection:
            sealed_with = connection.execute("SELECT key, nonce, sealed FROM vault").fetchone()
            if sealed_with is None:
                self._mark(connection)
            elif sealed_with[0] != self._cipher.key_id:
                self._cipher = self._matching(*sealed_with)
            yield connection

    def _mark(self, connection: sqlite3.Connection) -> None:
        proof = self._cipher.seal(_PROOF, "", _PROOF_ROW, b"")
        connection.execute("INSERT OR REPLACE INTO vault VALUES (1, ?, ?, ?)", (self._cipher.key_id, *proof))

    def _proved(self, nonce: bytes, sealed: bytes) -> bool:
        try:
            return self._cipher.open(nonce, sealed, "", _PROOF_ROW, b"") == _PROOF
        except Permanent:
            return False

    def _matching(self, key_id: str, nonce: bytes, sealed: bytes) -> VaultCipher:
        """The cipher of the vault's key, which may stand in its file since a moment ago."""
        self._keys = ProjectKey.load(self._key_file, WHAT)
        for key in (self._keys, *self._keys.retired):
            self._cipher = VaultCipher(key)
            if key.id == key_id and self._proved(nonce, sealed):
                return self._cipher
        raise ConfigError(f"{WHAT} is not the one that it is sealed with")

    def rekey(self) -> int:
        """Seal every row with a new key and put that into the key file alone; returns how many rows there are.

        One transaction; interrupted, it leaves the old key in force or the new one, and both in the file, and can be
        run again. Other processes go on: they find the new key in the file. Rows of other projects come along.
        Raises Permanent when a row cannot be opened.
        """
        if self._cipher.key_id == self._keys.id:
            self._keys = ProjectKey.rotate(self._key_file)
        fresh, rows = VaultCipher(self._keys), 0
        with self._transaction() as connection:
            connection.execute("PRAGMA secure_delete=ON").close()
            old = self._cipher
            kept = connection.execute("SELECT row, project, lookup, nonce, sealed FROM entry").fetchall()
            for row, project, lookup, nonce, sealed in kept:
                content = old.open(nonce, sealed, project, row, lookup)
                _reseal(connection, fresh, project, row, content)
                rows += 1
            self._cipher = fresh
            self._mark(connection)
        self._store.close()
        with sqlite3.connect(self._path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        connection.close()
        ProjectKey.forget_retired(self._key_file)
        self._keys = ProjectKey.load(self._key_file, WHAT)
        return rows


def _reseal(
    connection: sqlite3.Connection, fresh: VaultCipher, project: str, row: int, content: dict[str, Any]
) -> None:
    lookup = fresh.lookup(project, content["kind"], content["pseudonym"])
    sealed = fresh.seal(content, project, row, lookup)
    update = "UPDATE entry SET lookup = ?, nonce = ?, sealed = ? WHERE row = ?"
    connection.execute(update, (lookup, *sealed, row))


def _make_private(path: Path) -> None:
    """The file of mode 0600 before SQLite, which would make it readable for others, writes to it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(f"the vault cannot be opened: {error.strerror}") from error
    require_private(path, "the vault")
