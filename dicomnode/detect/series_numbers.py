"""Series Numbers that a result set has to stay clear of (PS3.3 C.7.3.1), whatever else is at work on its Study."""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from dicomnode.detect.status_job import page_to_come
from dicomnode.report.envelope import SERIES_NUMBERS, free_step
from dicomnode.store.tables import AssignmentRow, DerivedRow, InstanceRow, SeriesRow


def taken_series_numbers(session: Session, assignment: AssignmentRow, study_id: int) -> frozenset[int]:
    """Numbers of the Study's received Series and of other Assignments' results, and what those at work will take.

    The Assignment's own earlier objects do not count, so that a retry gets the same number. Assignments that are at
    work at the same time keep clear of each other in the order of their ids.
    """
    taken = _received(session, study_id) | _derived(session, assignment, study_id)
    for _ in range(_ahead(session, assignment, study_id)):
        step = free_step(taken)
        taken |= {number + step for number in SERIES_NUMBERS.values()}
    return frozenset(taken)


def _received(session: Session, study_id: int) -> set[int]:
    query = select(InstanceRow.header["SeriesNumber"]).join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
    values = session.scalars(query.where(SeriesRow.study_id == study_id).distinct())
    return {value[0] for value in values if value and isinstance(value[0], int)}


def _derived(session: Session, assignment: AssignmentRow, study_id: int) -> set[int]:
    """Rows of before the numbers were recorded have none: they count as the fixed ones."""
    query = (
        select(DerivedRow.SeriesNumber)
        .join(AssignmentRow, AssignmentRow.id == DerivedRow.assignment_id)
        .join(SeriesRow, SeriesRow.id == AssignmentRow.series_id)
        .where(SeriesRow.study_id == study_id, AssignmentRow.id != assignment.id)
        .distinct()
    )
    numbers = set(session.scalars(query))
    unknown = set(SERIES_NUMBERS.values()) if None in numbers else set()
    return unknown | {number for number in numbers if number is not None}


def _ahead(session: Session, assignment: AssignmentRow, study_id: int) -> int:
    """How many Assignments before this one have their objects still to make."""
    query = (
        select(AssignmentRow.id)
        .join(SeriesRow, SeriesRow.id == AssignmentRow.series_id)
        .where(
            SeriesRow.study_id == study_id,
            AssignmentRow.id < assignment.id,
            AssignmentRow.detector.is_not(None),
            or_(AssignmentRow.outcome.is_(None), page_to_come()),
        )
    )
    return len(session.scalars(query).all())
