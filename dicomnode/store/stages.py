"""How long each stage took, from the last Instance of a Series to the last object delivered, in seconds.

One row per Assignment for the newest ones' quantiles, and one histogram per stage, which only grows: retention may
take the rows, the counts stay. A stage that one process does is measured by its monotonic clock; one that begins in
one process and ends in another is the difference of two times of day, never below 0.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from sqlalchemy.orm import Session

from dicomnode.store.tables import AssignmentRow, SeriesRow, StageHistogramRow, StagesRow

STAGES = {
    "complete": "last instance received to series complete",
    "route": "complete to routed",
    "wait": "routed to claimed by a worker",
    "load": "images read and decoded",
    "inference": "the detector",
    "report": "result objects made, checked and stored",
    "deliver": "result stored to everything delivered, per destination",
    "total": "last instance received to everything delivered, per destination",
}
"""Every stage and what it is, in order."""

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper bounds of the histograms' buckets in seconds; the last bucket has none."""


@dataclass(frozen=True, slots=True)
class Took:
    """What one worker measured of one Assignment, in seconds; None: it did not come to that."""

    load: float | None = None
    inference: float | None = None
    report: float | None = None


def record_analysis(session: Session, assignment: AssignmentRow, series: SeriesRow, took: Took) -> None:
    """Write the stages up to the result; for the transaction that ends a ``detect`` job.

    ``series``: as it was when the analysis began. An analysis that an operator asked for again replaces the row, and
    counts again.
    """
    completed, began = series.completed_at, assignment.started_at
    stages = {
        "complete": _between(series.last_received_at, completed),
        "route": _between(completed, assignment.created_at),
        "wait": _between(assignment.created_at, began),
        "load": took.load,
        "inference": took.inference,
        "report": took.report,
    }
    row = StagesRow(
        assignment_id=assignment.id, received_at=series.last_received_at, **stages, deliver=None, total=None
    )
    session.merge(row)
    for stage, seconds in stages.items():
        _count(session, stage, seconds)


def record_delivery(session: Session, assignment_id: int, now: float) -> None:
    """All that one destination gets of a result is there; for the transaction that ends a ``deliver`` job.

    Nothing is written of an Assignment from before stages were recorded, or without a result.
    """
    row = session.get(StagesRow, assignment_id)
    if row is None:
        return
    assignment = session.get_one(AssignmentRow, assignment_id)
    deliver, total = _between(assignment.finished_at, now), _between(row.received_at, now)
    row.deliver, row.total = deliver, total
    _count(session, "deliver", deliver)
    _count(session, "total", total)


def _between(begin: float | None, end: float | None) -> float | None:
    """A clock that was set back in between gives 0, not less."""
    return None if begin is None or end is None else max(0.0, end - begin)


def _count(session: Session, stage: str, seconds: float | None) -> None:
    if seconds is None:
        return
    row = session.get(StageHistogramRow, stage)
    if row is None:
        row = StageHistogramRow(stage=stage, n=0, seconds=0.0, buckets=[0] * (len(BOUNDS) + 1))
        session.add(row)
    buckets = list(row.buckets)
    buckets[bisect_left(BOUNDS, seconds)] += 1
    row.n, row.seconds, row.buckets = row.n + 1, row.seconds + seconds, buckets
