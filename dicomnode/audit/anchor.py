"""Anchors: where an archived part of the chain ends, so that the rest goes on from there."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

_TABLE = text("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'audit_archive'")
_ALL = text(
    "SELECT seq, CAST(hash AS BLOB) AS hash, CAST(manifest_sha256 AS TEXT) AS manifest FROM audit_archive ORDER BY seq"
)


@dataclass(frozen=True, slots=True)
class Anchor:
    """Row ``seq`` with ``hash`` is the last one of the archive whose manifest has ``manifest_sha256``."""

    seq: int
    hash: bytes
    manifest_sha256: str


def anchors(session: Session) -> list[Anchor]:
    """Every anchor, the oldest first; none in a database of a version that had no archives."""
    if not session.scalar(_TABLE):
        return []
    return [Anchor(int(row.seq), row.hash or b"", str(row.manifest)) for row in session.execute(_ALL)]
