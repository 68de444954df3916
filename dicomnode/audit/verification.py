"""The walk over the chain that names the first bad row. Reads only, in one snapshot: the node may write meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from dicomnode.audit.anchor import Anchor, anchors
from dicomnode.audit.chain import GENESIS, row_hash
from dicomnode.audit.events import Event
from dicomnode.store.schema import wrong_triggers

Progress = Callable[[int, int], None]
"""Called with the rows that were read and their number."""
_AT_ONCE = 2000
_TELL_EVERY = 20_000
Raw = Sequence[Any]
"""seq, whether every column is of its type, ts, kind, body, prev, hash."""
_RAW = (
    "SELECT seq, typeof(ts) = 'text' AND typeof(kind) = 'text' AND typeof(body) = 'text' AND typeof(prev) = 'blob'"
    " AND typeof(hash) = 'blob' AS typed, CAST(ts AS BLOB) AS ts, CAST(kind AS BLOB) AS kind,"
    " CAST(body AS BLOB) AS body, CAST(prev AS BLOB) AS prev, CAST(hash AS BLOB) AS hash FROM audit ORDER BY seq"
)
"""The rows as they lie there: conversions would fail on bytes that are no text and numbers that are no bytes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ``verify`` found. ``first_bad``: the seq of the first row at fault, None when all is well.

    ``rows``: the length of the chain that is good, with the ``archived`` rows that lie before what the table holds.
    """

    rows: int
    head: bytes
    first_bad: int | None = None
    reason: str = ""
    archived: int = 0

    @property
    def ok(self) -> bool:
        """True when every row is as it was written."""
        return not self.reason


def verify(session: Session, progress: Progress | None = None) -> Verdict:
    """Walk the whole chain and name the first bad row. Whatever an intruder wrote is an answer, no error.

    Finds an edited, removed, inserted or reordered row, and missing, altered or foreign triggers. A cut tail or a
    complete re-hash is found by ``compare`` with a checkpoint kept elsewhere. Where rows were archived the walk begins
    behind the newest anchor, which a row of the chain has to confirm.
    """
    walk = _Walk(anchors(session))
    total = _count(session) if progress else 0
    rows = session.connection().exec_driver_sql(_RAW, execution_options={"yield_per": _AT_ONCE})
    for number, row in enumerate(rows, 1):
        fault = walk.step(row)
        if fault:
            return Verdict(walk.rows, walk.prev, fault[0], fault[1], walk.archived)
        if progress and number % _TELL_EVERY == 0:
            progress(number, total)
    if progress:
        progress(total, total)
    reason = next(walk.wanting(), "")
    wrong = wrong_triggers(session)
    if wrong and not reason:
        reason = f"the table is not protected: triggers wrong: {', '.join(wrong)}"
    return Verdict(walk.rows, walk.prev, None, reason, walk.archived)


def _count(session: Session) -> int:
    return int(session.scalar(text("SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM audit")) or 0)


class _Walk:
    """How far the chain is good: ``prev`` is the hash of the last good row, ``expected`` the seq of the next one."""

    def __init__(self, found: list[Anchor]) -> None:
        self._anchor = found[-1] if found else None
        self.archived = self._anchor.seq if self._anchor else 0
        self.prev = self._anchor.hash if self._anchor else GENESIS
        self.expected = self.archived + 1
        self._confirmed = self._anchor is None
        self._begun = False

    @property
    def rows(self) -> int:
        """How many rows of the chain are good."""
        return self.expected - 1

    def step(self, row: Raw) -> tuple[int, str] | None:
        """Take the next row; returns the seq at fault, and why."""
        if not self._begun:
            self._begun = True
            self._leftover(row[0], row[5])
        fault = _fault(row, self.expected, self.prev)
        if fault is None and self._anchor is not None:
            fault = self._at_anchor(self._anchor, row)
        if fault is None:
            self.prev, self.expected = row[6], self.expected + 1
        return fault

    def _leftover(self, seq: int, prev: bytes) -> None:
        """Archived rows whose removal did not end: they have to lead to the anchor."""
        if self._anchor is not None and 0 < seq <= self._anchor.seq:
            self.prev, self.expected = prev or b"", seq

    def _at_anchor(self, anchor: Anchor, row: Raw) -> tuple[int, str] | None:
        seq, _, _, kind, body, _, digest = row
        if seq == anchor.seq and digest != anchor.hash:
            return seq, "it is not the row that its anchor names"
        if seq > anchor.seq and not self._confirmed and kind == _ARCHIVED:
            self._confirmed = _confirms(body, anchor)
        return None

    def wanting(self) -> Iterator[str]:
        """What the chain as a whole lacks."""
        if self._anchor is not None and self.expected <= self._anchor.seq:
            yield f"the rows up to the anchor {self._anchor.seq} are missing"
        elif not self._confirmed:
            yield f"rows up to {self.archived} are gone, and no row of the log says that they were archived"


_ARCHIVED = Event.AUDIT_ARCHIVED.encode()


def _confirms(body: bytes, anchor: Anchor) -> bool:
    """Whether this row records the archive that ends at ``anchor``."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return False
    wanted = {"last": anchor.seq, "head": anchor.hash.hex(), "manifest_sha256": anchor.manifest_sha256}
    return isinstance(said, dict) and all(said.get(key) == value for key, value in wanted.items())


def _fault(row: Raw, expected: int, prev: bytes) -> tuple[int, str] | None:
    seq, typed, ts, kind, body, said_prev, said = row
    if seq > expected:
        return expected, f"row {expected} is missing, the next one is {seq}"
    if seq < expected:
        return seq, "it lies before the first row"
    if not typed:
        return seq, "its columns are not of the types that were written"
    if said_prev != prev:
        return seq, "it does not follow from the row before it"
    try:
        computed = row_hash(prev, seq, ts.decode(), kind.decode(), body.decode())
    except UnicodeDecodeError:
        return seq, "its content is not text"
    return None if computed == said else (seq, "its content does not match its hash")
