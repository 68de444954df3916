"""Checkpoints: size and head of the chain, signed, for a second place: what finds a cut tail or a complete re-hash.

One is a line of canonical JSON. Signed (Ed25519, RFC 8032) is that line without its ``signature``, so that anybody can
check it with ``openssl pkeyutl -verify -rawin``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import LargeBinary, cast, select, text
from sqlalchemy.orm import Session

from dicomnode.audit.anchor import anchors
from dicomnode.audit.chain import GENESIS, canonical
from dicomnode.audit.place import append_line
from dicomnode.audit.signing import PublicKey, SigningKey
from dicomnode.errors import Permanent
from dicomnode.store.tables import AuditRow

TYPE = "dicomnode audit checkpoint"
HashOf = Callable[[int], bytes | None]
"""The hash of the row with this seq, None when it is not known."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log of ``origin`` had ``size`` rows, the last of which has ``hash``. ``key``: the id of who signed."""

    origin: str
    size: int
    hash: bytes
    time: str
    key: str = ""
    signature: bytes = b""

    def line(self) -> str:
        """As it is written, without the end of the line."""
        return canonical({**self._body(), **({"signature": self.signature.hex()} if self.key else {})})

    def signed(self, key: SigningKey | None) -> Checkpoint:
        """The same with a signature; without a key as it is."""
        if key is None:
            return self
        named = replace(self, key=key.public.id, signature=b"")
        return replace(named, signature=key.sign(named.signed_bytes()))

    def signed_bytes(self) -> bytes:
        """What the signature is of."""
        return canonical(self._body()).encode()

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"hash": self.hash.hex(), "origin": self.origin, "size": self.size, "time": self.time}
        return body | {"key": self.key, "type": TYPE} if self.key else body

    @classmethod
    def parse(cls, line: str) -> Checkpoint:
        """Raises Permanent when ``line`` is none."""
        try:
            entry = json.loads(line)
            found = cls(
                str(entry.get("origin", "")),
                int(entry["size"]),
                bytes.fromhex(entry["hash"]),
                str(entry.get("time", "")),
                str(entry.get("key", "")),
                bytes.fromhex(entry.get("signature", "")),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Permanent("not a checkpoint") from error
        if found.key and entry.get("type") != TYPE:
            raise Permanent("not a checkpoint")
        return found


@dataclass(slots=True)
class Comparison:
    """How the log compares with checkpoints. ``fault``: the first that disagrees, empty when none does.

    ``agree``: those that hold, of which ``unsigned`` bear no signature and ``unchecked`` one whose key was not given.
    ``archived``: of a part of the log that is archived and not at hand. ``foreign``: of another node's log.
    """

    agree: int = 0
    signed: int = 0
    unsigned: int = 0
    unchecked: int = 0
    archived: int = 0
    foreign: int = 0
    fault: str = ""

    def plus(self, other: Comparison) -> Comparison:
        """Both together; the first fault counts."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        return replace(self, fault=self.fault or other.fault, **counts)


_COUNTS = ("agree", "signed", "unsigned", "unchecked", "archived", "foreign")


def head_of(session: Session, origin: str) -> Checkpoint:
    """Size and head of the log as they are now, unsigned."""
    newest = select(AuditRow.seq, cast(AuditRow.hash, LargeBinary).label("hash")).order_by(AuditRow.seq.desc())
    head = session.execute(newest.limit(1)).first()
    size, value = (head.seq, head.hash or b"") if head else (0, GENESIS)
    return Checkpoint(origin, int(size), bytes(value), datetime.now(UTC).isoformat())


def write_checkpoint(session: Session, path: Path, origin: str, key: SigningKey | None = None) -> int:
    """Append a checkpoint to the file ``path``, fsynced; returns the size of the log.

    Raises Transient when the file cannot be written.
    """
    checkpoint = head_of(session, origin).signed(key)
    append_line(path, checkpoint.line())
    return checkpoint.size


def check_against(session: Session, lines: Iterable[str]) -> str:
    """Compare the log with the checkpoints in ``lines``; returns what disagrees, or an empty text.

    Raises Permanent when a line is not a checkpoint.
    """
    return compare(session, lines).fault


def compare(
    session: Session,
    lines: Iterable[str],
    keys: Sequence[PublicKey] = (),
    *,
    origin: str | None = None,
    archived: Mapping[int, bytes] | None = None,
) -> Comparison:
    """Compare the log with checkpoints. With ``keys`` a signature by another key, or a wrong one, is a fault.

    ``origin``: of this log; a checkpoint of another one that disagrees is foreign. ``archived``: hashes by seq of rows
    that were archived. Raises Permanent when a line is not a checkpoint.
    """
    known = {key.id: key for key in keys}
    ends = {anchor.seq: anchor.hash for anchor in anchors(session)} | dict(archived or {})
    found = Comparison()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            checkpoint = Checkpoint.parse(line)
        except Permanent as error:
            raise Permanent(f"checkpoint line {number}: {error}") from error
        fault = forged(checkpoint, known) or _judge(session, found, checkpoint, origin, ends)
        if fault:
            found.fault = f"checkpoint line {number}: {fault}"
            return found
        if not checkpoint.key:
            found.unsigned += 1
        elif known:
            found.signed += 1
        else:
            found.unchecked += 1
    return found


def forged(checkpoint: Checkpoint, known: Mapping[str, PublicKey]) -> str:
    """Why its signature proves nothing; empty when it holds, or when there is nothing to check."""
    if not checkpoint.key or not known:
        return ""
    if checkpoint.key not in known:
        return f"it is signed by another key ({checkpoint.key[:16]})"
    good = known[checkpoint.key].verifies(checkpoint.signed_bytes(), checkpoint.signature)
    return "" if good else "its signature is wrong: it is forged or was altered"


def _judge(
    session: Session, found: Comparison, checkpoint: Checkpoint, origin: str | None, ends: Mapping[int, bytes]
) -> str:
    """Count ``checkpoint``; returns what disagrees."""
    if checkpoint.size == 0:
        found.agree += 1
        return ""
    row = session.execute(_HASH_OF, {"seq": checkpoint.size}).first()
    there = row.hash if row is not None else ends.get(checkpoint.size)
    if there == checkpoint.hash:
        found.agree += 1
        return ""
    if row is None and there is None and checkpoint.size < max(ends, default=0):
        found.archived += 1
        return ""
    if origin is not None and checkpoint.origin != origin:
        found.foreign += 1
        return ""
    if row is None and there is None:
        return f"the log was cut, row {checkpoint.size} is gone"
    return f"row {checkpoint.size} is not the row that was written"


_HASH_OF = text("SELECT CAST(hash AS BLOB) AS hash FROM audit WHERE seq = :seq")
