"""How long the stages take, for operators: quantiles of the newest Assignments, histograms of all, queue depths."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from dicomnode.store.stages import BOUNDS, STAGES
from dicomnode.store.tables import READY_SQL, AssociationRow, JobRow, StageHistogramRow, StagesRow

NEWEST = 200
"""Assignments that the quantiles are of."""


def read_stages(session: Session) -> dict[str, Any]:
    """Per stage: ``n`` and ``seconds`` of all time, ``buckets`` by upper bound, ``p50`` and ``p95`` of the newest.

    Stages that were never timed are left out.
    """
    newest = session.scalars(select(StagesRow).order_by(StagesRow.assignment_id.desc()).limit(NEWEST)).all()
    ever = {row.stage: row for row in session.scalars(select(StageHistogramRow))}
    return {stage: _stage(ever[stage], [getattr(row, stage) for row in newest]) for stage in STAGES if stage in ever}


def _stage(row: StageHistogramRow, newest: list[float | None]) -> dict[str, Any]:
    known = sorted(value for value in newest if value is not None)
    names = [f"{bound:g}" for bound in BOUNDS] + ["+Inf"]
    return {
        "n": row.n,
        "seconds": row.seconds,
        "p50": quantile(known, 0.5),
        "p95": quantile(known, 0.95),
        "buckets": dict(zip(names, row.buckets, strict=True)),
    }


def quantile(ordered: list[float], share: float) -> float | None:
    """The least of the values, in ascending order, that at least ``share`` of them do not exceed; None without any."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else None


def read_queues(session: Session, now: float) -> dict[str, dict[str, float]]:
    """Per kind of job: how many could be done now, how many wait for a later attempt, and the age of the oldest."""
    ready, late = text(READY_SQL), JobRow.not_before > now
    oldest = select(JobRow.kind, func.min(JobRow.created_at)).where(ready).group_by(JobRow.kind)
    found: dict[str, dict[str, float]] = {}
    for kind, since in session.execute(oldest):
        found[kind] = {"due": 0, "later": 0, "oldest_s": max(now - since, 0.0)}
    counts = select(JobRow.kind, late, func.count()).where(ready).group_by(JobRow.kind, late)
    for kind, later, count in session.execute(counts):
        found[kind]["later" if later else "due"] = count
    return found


def refused_instances(session: Session) -> int:
    """C-STORE requests that were answered with a failure, in every Association that is on record."""
    return session.scalar(select(func.coalesce(func.sum(AssociationRow.n_refused), 0))) or 0
