"""The hash chain: hash = SHA-256(0x00 || prev || canonical JSON [seq, ts, kind, body]); the first prev is zero."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import LargeBinary, cast, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from dicomnode.audit.events import Event
from dicomnode.errors import Permanent
from dicomnode.store.schema import wrong_triggers
from dicomnode.store.tables import AuditRow

GENESIS = bytes(32)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ``verify`` found. ``first_bad``: the seq of the first row at fault, None when all is well."""

    rows: int
    head: bytes
    first_bad: int | None = None
    reason: str = ""

    @property
    def ok(self) -> bool:
        """True when every row is as it was written."""
        return not self.reason


def canonical(value: Any) -> str:
    """JSON with sorted keys, no spaces, UTF-8 characters as they are."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def row_hash(prev: bytes, seq: int, ts: str, kind: str, body: str) -> bytes:
    """The hash of one row (32 bytes)."""
    return hashlib.sha256(b"\x00" + prev + canonical([seq, ts, kind, body]).encode()).digest()


def append(session: Session, kind: Event, body: Mapping[str, Any], at: datetime | None = None) -> int:
    """Add one row within the caller's write transaction and return its ``seq``.

    ``body`` holds identifiers and facts, no names of patients. The transaction must have begun as a write
    (``Store.write``), otherwise two writers could read the same last hash. Raises Permanent when the table refuses the
    row: its last row was tampered with.
    """
    session.flush()
    newest = select(AuditRow.seq, cast(AuditRow.hash, LargeBinary).label("hash")).order_by(AuditRow.seq.desc())
    last = session.execute(newest.limit(1)).first()
    seq, prev = (last.seq + 1, last.hash or b"") if last else (1, GENESIS)
    ts = (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")
    content = canonical(dict(body)).encode("utf-8", "replace").decode()
    digest = row_hash(prev, seq, ts, kind, content)
    row = {"seq": seq, "ts": ts, "kind": kind.value, "body": content, "prev": prev, "hash": digest}
    try:
        session.execute(insert(AuditRow).values(**row))
    except IntegrityError as error:
        raise Permanent(f"audit log: {error.orig}") from error
    return seq


@dataclass(frozen=True, slots=True)
class Entry:
    """One record that is to be appended. ``seconds``: its time, since the epoch."""

    kind: Event
    body: Mapping[str, Any]
    seconds: float


def append_many(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """``append`` for ``Store.transaction``: rows of several events with one look at the end of the chain.

    Raises Permanent when the table refuses a row: its last row was tampered with.
    """
    last = connection.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, prev = (last[0], bytes(last[1] or b"")) if last else (0, GENESIS)
    rows = []
    for entry in entries:
        seq += 1
        ts = datetime.fromtimestamp(entry.seconds, UTC).isoformat(timespec="microseconds")
        content = canonical(dict(entry.body)).encode("utf-8", "replace").decode()
        digest = row_hash(prev, seq, ts, entry.kind, content)
        rows.append((seq, ts, entry.kind.value, content, prev, digest))
        prev = digest
    try:
        connection.executemany("INSERT INTO audit (seq, ts, kind, body, prev, hash) VALUES (?, ?, ?, ?, ?, ?)", rows)
    except sqlite3.IntegrityError as error:
        raise Permanent(f"audit log: {error}") from error


def verify(session: Session) -> Verdict:
    """Walk the whole chain and name the first bad row. Reads only; whatever an intruder wrote is an answer, no error.

    Finds an edited, removed, inserted or reordered row, and missing, altered or foreign triggers. A cut tail or a
    complete re-hash is found by ``check_against`` a checkpoint kept elsewhere.
    """
    prev, expected = GENESIS, 1
    for row in session.execute(_RAW.execution_options(yield_per=2000)):
        fault = _fault(row, expected, prev)
        if fault:
            return Verdict(expected - 1, prev, fault[0], fault[1])
        prev, expected = row.hash, expected + 1
    wrong = wrong_triggers(session)
    if wrong:
        return Verdict(expected - 1, prev, None, f"the table is not protected: triggers wrong: {', '.join(wrong)}")
    return Verdict(expected - 1, prev)


_RAW = text(
    "SELECT seq, typeof(ts) || ' ' || typeof(kind) || ' ' || typeof(body) || ' ' || typeof(prev) || ' ' || typeof(hash)"
    " AS types, CAST(ts AS BLOB) AS ts, CAST(kind AS BLOB) AS kind, CAST(body AS BLOB) AS body,"
    " CAST(prev AS BLOB) AS prev, CAST(hash AS BLOB) AS hash"
    " FROM audit ORDER BY seq"
)
"""The rows as they lie there: conversions would fail on bytes that are no text and numbers that are no bytes."""


def _fault(row: Any, expected: int, prev: bytes) -> tuple[int, str] | None:
    if row.seq > expected:
        return expected, f"row {expected} is missing, the next one is {row.seq}"
    if row.seq < expected:
        return row.seq, "it lies before the first row"
    if row.types != "text text text blob blob":
        return row.seq, "its columns are not of the types that were written"
    if row.prev != prev:
        return row.seq, "it does not follow from the row before it"
    try:
        ts, kind, body = row.ts.decode(), row.kind.decode(), row.body.decode()
    except UnicodeDecodeError:
        return row.seq, "its content is not text"
    if row_hash(prev, row.seq, ts, kind, body) != row.hash:
        return row.seq, "its content does not match its hash"
    return None
