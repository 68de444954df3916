"""The hash chain: hash = SHA-256(0x00 || prev || canonical JSON [seq, ts, kind, body]); the first prev is zero."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import LargeBinary, cast, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from dicomnode.audit.events import Event
from dicomnode.errors import Permanent
from dicomnode.store.tables import AuditRow

GENESIS = bytes(32)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_quoted = json.encoder.encode_basestring
"""What ``canonical`` does to a text, without an encoder made for each: a million rows are verified in a quarter of the
time."""


def canonical(value: Any) -> str:
    """JSON with sorted keys, no spaces, UTF-8 characters as they are."""
    return _CANONICAL.encode(value)


def row_hash(prev: bytes, seq: int, ts: str, kind: str, body: str) -> bytes:
    """The hash of one row (32 bytes)."""
    content = f"[{seq},{_quoted(ts)},{_quoted(kind)},{_quoted(body)}]"
    return hashlib.sha256(b"\x00" + prev + content.encode()).digest()


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
