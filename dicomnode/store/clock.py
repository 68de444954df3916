"""The node clock: seconds since the epoch that no change of the machine's clock can turn back or push ahead.

It begins with the machine's clock and goes on with CLOCK_MONOTONIC. Every process of a node counts by the same one, so
that leases, back-offs and periods of silence mean the same to all of them: the supervisor begins it and writes it down,
and whoever works on the same database while that node runs takes it over (``running``).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from dicomnode.store.engine import Store
from dicomnode.store.processes import runs
from dicomnode.store.tables import AssociationRow, ClockRow, CommitmentRow, JobRow, ProcessRow, SeriesRow

TOLERANCE_S = 30.0
"""A clock that is corrected by less is not spoken of."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class NodeClock:
    """``epoch``: what the machine's clock said, in seconds since 1970 (UTC), when CLOCK_MONOTONIC said ``since``.

    ``boot``: which start of the machine CLOCK_MONOTONIC counts from. Picklable; call it for the time.
    """

    epoch: float
    since: float
    boot: str

    def __call__(self) -> float:
        """The time, in seconds since the epoch; never less than before."""
        return self.epoch + (time.monotonic() - self.since)

    def machine_ahead_s(self) -> float:
        """By how many seconds the machine's clock is ahead of this one; negative: behind."""
        return time.time() - self()


def new_clock() -> NodeClock:
    """A clock that begins now, with the machine's."""
    return NodeClock(time.time(), time.monotonic(), _boot())


def running(store: Store) -> NodeClock:
    """The clock of the node on this database while it runs, else a new one. For commands beside the node.

    Raises Transient when the database is not available.
    """
    with store.read() as session:
        return _in_force(session, ()) or new_clock()


def begin(session: Session, roles: Collection[str]) -> tuple[NodeClock, float]:
    """The clock for a node that starts, and by how many seconds rows of the last run lie ahead of it (0.0: none do).

    A supervisor that runs beside this one, with other ``roles``, has begun it already. What the last run put off to
    times that a clock set back will not see for long is due as it would have been without that; no Series was received
    tomorrow. For a write transaction, with the locks of ``roles`` held.
    """
    clock = _in_force(session, roles)
    if clock is not None:
        return clock, 0.0
    clock = new_clock()
    ahead = max(0.0, _last_seen(session) - clock())
    if ahead > 0.0:
        _set_back(session, ahead, clock())
    session.execute(delete(ClockRow))
    session.add(ClockRow(id=1, epoch=clock.epoch, since=clock.since, boot=clock.boot))
    return clock, ahead


def _in_force(session: Session, but: Collection[str]) -> NodeClock | None:
    """The clock of a node that runs now, with other roles than ``but``."""
    row = session.get(ClockRow, 1)
    if row is None or row.boot != _boot():
        return None
    pids = session.scalars(select(ProcessRow.pid).where(ProcessRow.stopped_at.is_(None), ProcessRow.role.not_in(but)))
    return NodeClock(row.epoch, row.since, row.boot) if any(runs(pid) for pid in pids) else None


def _last_seen(session: Session) -> float:
    """The latest time that the last run is known to have lived through."""
    times = (ProcessRow.started_at, ProcessRow.heartbeat_at, ProcessRow.stopped_at, SeriesRow.last_received_at)
    return max(session.scalar(select(func.max(at))) or 0.0 for at in times)


def _set_back(session: Session, ahead: float, now: float) -> None:
    """Let what lies in the future come as soon as it would have, and nothing have happened after ``now``."""
    for due in (JobRow.not_before, JobRow.lease_until, CommitmentRow.expires_at):
        session.execute(update(due.class_).where(due > now).values({due: func.max(due - ahead, now)}))
    happened = (
        *(SeriesRow.first_received_at, SeriesRow.last_received_at, SeriesRow.asked_at, SeriesRow.completed_at),
        *(AssociationRow.opened_at, AssociationRow.ended_at, JobRow.created_at, CommitmentRow.requested_at),
    )
    for at in happened:
        session.execute(update(at.class_).where(at > now).values({at: now}))
    since = func.json_extract(JobRow.payload, "$.waiting_since")
    earlier = func.json_set(JobRow.payload, "$.waiting_since", now)
    session.execute(update(JobRow).where(since > now).values(payload=earlier))


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""
