"""The newest Series generations and how far each has come: five questions, however many Series are shown."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dicomnode.store.stages import STAGES
from dicomnode.store.tables import (
    AssignmentRow,
    DeliveryRow,
    DerivedRow,
    InstanceRow,
    SeriesRow,
    StagesRow,
    StudyRow,
)


def read_recent(session: Session, limit: int) -> list[dict[str, Any]]:
    """The ``limit`` Series that received an Instance last, newest first, each with its results."""
    query = (
        select(SeriesRow, StudyRow.StudyInstanceUID)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .order_by(SeriesRow.last_received_at.desc(), SeriesRow.id.desc())
        .limit(limit)
    )
    rows = session.execute(query).all()
    ids = [series.id for series, _ in rows]
    instances, results = _instances(session, ids), _results(session, {series.id: series for series, _ in rows})
    return [_series(series, study, instances.get(series.id, 0), results.get(series.id, [])) for series, study in rows]


def _instances(session: Session, series: Collection[int]) -> dict[int, int]:
    query = select(InstanceRow.series_id, func.count()).where(InstanceRow.series_id.in_(series))
    return dict(session.execute(query.group_by(InstanceRow.series_id)).all())


def _results(session: Session, series: dict[int, SeriesRow]) -> dict[int, list[dict[str, Any]]]:
    query = select(AssignmentRow).where(AssignmentRow.series_id.in_(series)).order_by(AssignmentRow.id)
    rows = session.scalars(query).all()
    ids = [row.id for row in rows]
    delivered, stages = _delivered(session, ids), _stages(session, ids)
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        result = _result(row, series[row.series_id], delivered.get(row.id, []))
        found.setdefault(row.series_id, []).append(result | {"stages": stages.get(row.id)})
    return found


def _stages(session: Session, assignments: Collection[int]) -> dict[int, dict[str, float | None]]:
    """Seconds by stage; Assignments of which nothing was timed are left out."""
    rows = session.scalars(select(StagesRow).where(StagesRow.assignment_id.in_(assignments)))
    return {row.assignment_id: {stage: getattr(row, stage) for stage in STAGES} for row in rows}


def _delivered(session: Session, assignments: Collection[int]) -> dict[int, list[Any]]:
    """Per Assignment: Destination, state, number of objects, when the last one arrived."""
    query = (
        select(DerivedRow.assignment_id, DeliveryRow.destination, DeliveryRow.state, func.count().label("objects"))
        .add_columns(func.max(DeliveryRow.delivered_at).label("last"))
        .join(DeliveryRow, DerivedRow.id == DeliveryRow.derived_id)
        .where(DerivedRow.assignment_id.in_(assignments))
        .group_by(DerivedRow.assignment_id, DeliveryRow.destination, DeliveryRow.state)
    )
    found: dict[int, list[Any]] = {}
    for row in session.execute(query):
        found.setdefault(row.assignment_id, []).append(row)
    return found


def _series(series: SeriesRow, study: str, instances: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series.SeriesInstanceUID,
        "Modality": series.Modality,
        "CallingAETitle": series.CallingAETitle,
        "instances": instances,
        "state": series.state,
        "generation": series.generation,
        "incomplete": series.incomplete,
        "complete_by": series.complete_by,
        "first_received_at": series.first_received_at,
        "last_received_at": series.last_received_at,
        "completed_at": series.completed_at,
        "results": results,
    }


def _result(row: AssignmentRow, series: SeriesRow, delivered: Iterable[Any]) -> dict[str, Any]:
    objects: dict[str, dict[str, int]] = {}
    for item in delivered:
        objects.setdefault(item.destination, {})[item.state] = item.objects
    last = max((item.last for item in delivered if item.last is not None), default=None)
    current = row.generation == series.generation
    return {
        "assignment": row.id,
        "generation": row.generation,
        "route": row.route or None,
        "detector": row.detector,
        "model": row.model,
        "model_version": row.model_version,
        "weights_sha256": row.weights_sha256,
        "outcome": row.outcome or "pending",
        "gate": row.gate,
        "reason": row.reason,
        "score": row.score,
        "threshold": row.threshold,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "objects": objects,
        "seconds_from_last_instance": last - series.last_received_at if last is not None and current else None,
    }
