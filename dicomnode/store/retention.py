"""What retention may remove: a Study whose every result is where it has to be, and nothing else. Reads only.

A Study stays while anything about it is open: images still to come, an analysis that waits or failed, a result that is
not delivered, or not committed where the peer is asked for storage commitment, a job, a dead letter. Age and lack of
space only choose among those that may go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dicomnode.store.tables import (
    AssignmentRow,
    AssociationRow,
    DeliveryRow,
    DerivedRow,
    InstanceRow,
    JobRow,
    SeriesRow,
    StudyRow,
)

THERE = ("delivered", "warning")
ANALYSED = ("findings", "no findings")
CHUNK = 200
_ASSIGNMENT = func.json_extract(JobRow.payload, "$.assignment_id")
_SERIES = func.json_extract(JobRow.payload, "$.series_id")


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """One Study that has images in the spool.

    ``newest_at``: when something last happened to it (received, analysed, delivered, committed), in seconds since the
    epoch. ``size``: bytes of its received and derived files. ``stays``: why it may not go, empty when it may.
    """

    id: int
    StudyInstanceUID: str
    newest_at: float
    instances: int
    size: int
    stays: tuple[str, ...]


def stored_studies(session: Session, must_commit: Collection[str], before: float) -> Iterator[StoredStudy]:
    """Every Study with images of which the last came by ``before``, the one that has rested longest first.

    ``must_commit``: the peers whose storage commitment counts.
    """
    last = func.max(SeriesRow.last_received_at)
    has_images = select(InstanceRow.id).join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
    query = (
        select(StudyRow.id)
        .join(SeriesRow, SeriesRow.study_id == StudyRow.id)
        .where(has_images.where(SeriesRow.study_id == StudyRow.id).correlate(StudyRow).exists())
        .group_by(StudyRow.id)
        .having(last <= before)
        .order_by(last, StudyRow.id)
    )
    ids = list(session.scalars(query))
    for start in range(0, len(ids), CHUNK):
        yield from look_at(session, ids[start : start + CHUNK], must_commit)


def look_at(session: Session, ids: Sequence[int], must_commit: Collection[str]) -> list[StoredStudy]:
    """The Studies ``ids``, in this order."""
    stays = _stays(session, ids, must_commit)
    newest, images, derived = _newest(session, ids), _images(session, ids), _derived(session, ids)
    uids = dict(_pairs(session, select(StudyRow.id, StudyRow.StudyInstanceUID).where(StudyRow.id.in_(ids))))
    return [
        StoredStudy(
            study,
            str(uids[study]),
            newest.get(study, 0.0),
            images.get(study, (0, 0))[0],
            images.get(study, (0, 0))[1] + derived.get(study, 0),
            tuple(stays.get(study, ())),
        )
        for study in ids
    ]


def _stays(session: Session, ids: Sequence[int], must_commit: Collection[str]) -> dict[int, list[str]]:
    """Study to the reasons why it may not go."""
    reasons: dict[int, list[str]] = {}
    for text, query in _obstacles(must_commit):
        for study, count in _pairs(session, query.where(SeriesRow.study_id.in_(ids)).group_by(SeriesRow.study_id)):
            reasons.setdefault(study, []).append(f"{count} {text}")
    for study, counts in _jobs(session, ids).items():
        reasons.setdefault(study, []).extend(f"{count} {text}" for text, count in sorted(counts.items()))
    for study, destination in _without_result(session, ids):
        reasons.setdefault(study, []).append(f"no result at {destination}")
    return reasons


def _obstacles(must_commit: Collection[str]) -> list[tuple[str, Any]]:
    """What of a Study is not settled: words, and the query that counts it by Study."""
    count = select(SeriesRow.study_id, func.count())
    routed = select(AssignmentRow.id).where(
        AssignmentRow.series_id == SeriesRow.id, AssignmentRow.generation == SeriesRow.generation
    )
    assigned = count.join(AssignmentRow, AssignmentRow.series_id == SeriesRow.id)
    delivered = assigned.join(DerivedRow, DerivedRow.assignment_id == AssignmentRow.id).join(
        DeliveryRow, DeliveryRow.derived_id == DerivedRow.id
    )
    unsettled = delivered.where(DeliveryRow.state.in_(THERE), DeliveryRow.committed_at.is_(None))
    receiving = count.join(AssociationRow, AssociationRow.id == SeriesRow.association_id)
    return [
        ("series still open", count.where(SeriesRow.state != "complete")),
        ("series whose sender is still connected", receiving.where(AssociationRow.ended == "open")),
        ("series without an outcome", count.where(~routed.exists())),
        ("analyses pending", assigned.where(AssignmentRow.outcome.is_(None))),
        ("analyses failed", assigned.where(AssignmentRow.outcome == "failed")),
        ("objects not delivered", delivered.where(DeliveryRow.state.in_(("waiting", "failed", "quarantine")))),
        ("objects not committed", unsettled.where(DeliveryRow.destination.in_(must_commit))),
    ]


def _jobs(session: Session, ids: Sequence[int]) -> dict[int, Counter[str]]:
    """Study to its jobs that are not done: those that name one of its Series or Assignments."""
    of_series = dict(_pairs(session, select(SeriesRow.id, SeriesRow.study_id).where(SeriesRow.study_id.in_(ids))))
    assignments = select(AssignmentRow.id, SeriesRow.study_id).join(SeriesRow, SeriesRow.id == AssignmentRow.series_id)
    of_assignment = dict(_pairs(session, assignments.where(SeriesRow.study_id.in_(ids))))
    found: dict[int, Counter[str]] = {}
    undone = select(JobRow.state, _SERIES, _ASSIGNMENT).where(JobRow.state.in_(("ready", "leased", "dead")))
    for state, series, assignment in session.execute(undone):
        study = of_series.get(series, of_assignment.get(assignment))
        if study is not None:
            found.setdefault(study, Counter())["dead letters" if state == "dead" else "jobs pending"] += 1
    return found


def _without_result(session: Session, ids: Sequence[int]) -> list[tuple[int, str]]:
    """(Study, Destination) that an analysis was to be sent to and nothing of it went."""
    query = select(SeriesRow.study_id, AssignmentRow.id, AssignmentRow.send_to).join(
        AssignmentRow, AssignmentRow.series_id == SeriesRow.id
    )
    analysed = session.execute(query.where(SeriesRow.study_id.in_(ids), AssignmentRow.outcome.in_(ANALYSED))).all()
    there = select(DerivedRow.assignment_id, DeliveryRow.destination).join(
        DeliveryRow, DeliveryRow.derived_id == DerivedRow.id
    )
    there = there.where(DeliveryRow.state.in_(THERE), DerivedRow.assignment_id.in_([row[1] for row in analysed]))
    arrived = {tuple(row) for row in session.execute(there.distinct())}
    return [(study, name) for study, number, names in analysed for name in names if (number, name) not in arrived]


def _newest(session: Session, ids: Sequence[int]) -> dict[int, float]:
    """Study to the time of the last thing that happened to it."""
    moments = (
        (SeriesRow.last_received_at, SeriesRow.completed_at),
        (AssignmentRow.created_at, AssignmentRow.finished_at),
        (DeliveryRow.delivered_at, DeliveryRow.committed_at),
    )
    found: dict[int, float] = {}
    for index, times in enumerate(moments):
        query = select(SeriesRow.study_id, func.max(func.max(*(func.coalesce(at, 0.0) for at in times))))
        if index >= 1:
            query = query.join(AssignmentRow, AssignmentRow.series_id == SeriesRow.id)
        if index == 2:
            query = query.join(DerivedRow, DerivedRow.assignment_id == AssignmentRow.id)
            query = query.join(DeliveryRow, DeliveryRow.derived_id == DerivedRow.id)
        for study, at in _pairs(session, query.where(SeriesRow.study_id.in_(ids)).group_by(SeriesRow.study_id)):
            found[study] = max(found.get(study, 0.0), at)
    return found


def _images(session: Session, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Study to the number of its images and their bytes."""
    query = select(SeriesRow.study_id, func.count(), func.sum(InstanceRow.size)).join(
        InstanceRow, InstanceRow.series_id == SeriesRow.id
    )
    rows = session.execute(query.where(SeriesRow.study_id.in_(ids)).group_by(SeriesRow.study_id))
    return {study: (count, size or 0) for study, count, size in rows}


def _derived(session: Session, ids: Sequence[int]) -> dict[int, int]:
    """Study to the bytes of its derived files."""
    query = (
        select(SeriesRow.study_id, func.sum(DerivedRow.size))
        .join(AssignmentRow, AssignmentRow.series_id == SeriesRow.id)
        .join(DerivedRow, DerivedRow.assignment_id == AssignmentRow.id)
        .where(SeriesRow.study_id.in_(ids), DerivedRow.path != "")
    )
    return dict(_pairs(session, query.group_by(SeriesRow.study_id)))


def _pairs(session: Session, query: Any) -> list[tuple[int, Any]]:
    return [(row[0], row[1]) for row in session.execute(query)]
