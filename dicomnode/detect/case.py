"""What a ``detect`` job is about, read from the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from dicomnode.config.results import VOLUME_DOCUMENT
from dicomnode.detect.series_numbers import taken_series_numbers
from dicomnode.detect.status_job import page_before
from dicomnode.detect.volume_terms import SourceFile
from dicomnode.dicom.references import InstanceReference, SeriesReference
from dicomnode.dicom.summary import SeriesSummary, summarise
from dicomnode.errors import Permanent
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssignmentRow, DerivedRow, InstanceRow, SeriesRow, StudyRow

DOCUMENTS = ("sr", VOLUME_DOCUMENT)
"""Kinds of SR documents: the root of a new generation is the successor of them all (PS3.3 C.17.2)."""


@dataclass(frozen=True, slots=True)
class Case:
    """One Assignment with everything that its analysis needs; detached from the database.

    ``supersedes``: SR documents of earlier generations. ``replaces_earlier``: something of an earlier generation, or
    a status page of this one, may be at a Destination. ``series_numbers``: taken in the Study.
    """

    assignment: AssignmentRow
    series: SeriesRow
    study: StudyRow
    summary: SeriesSummary
    sources: tuple[SourceFile, ...]
    digests: dict[str, str]
    supersedes: tuple[InstanceReference, ...]
    replaces_earlier: bool
    series_numbers: frozenset[int]

    @property
    def outdated(self) -> bool:
        """True when the Series has a newer generation than this Assignment."""
        return self.series.generation != self.assignment.generation

    @property
    def subject(self) -> dict[str, str | int]:
        """The identifiers for audit rows."""
        return {
            "StudyInstanceUID": self.study.StudyInstanceUID,
            "SeriesInstanceUID": self.series.SeriesInstanceUID,
            "PatientID": self.study.PatientID,
            "AccessionNumber": self.study.AccessionNumber,
            "generation": self.assignment.generation,
            "assignment": self.assignment.id,
        }


def read_case(session: Session, spool: Spool, assignment_id: int) -> Case:
    """Read the rows of ``assignment_id``. Raises Permanent when it does not exist."""
    assignment = session.get(AssignmentRow, assignment_id)
    if assignment is None:
        raise Permanent(f"assignment {assignment_id} does not exist")
    series = session.get_one(SeriesRow, assignment.series_id)
    study = session.get_one(StudyRow, series.study_id)
    instances = _instances(session, series)
    reference = SeriesReference(study.StudyInstanceUID, series.SeriesInstanceUID)
    headers = ({key: tuple(values) for key, values in row.header.items()} for row in instances)
    sources = tuple(
        SourceFile(_reference(reference, row.SOPClassUID, row.SOPInstanceUID), spool.absolute(row.path))
        for row in instances
    )
    digests = {row.SOPInstanceUID: row.sha256 for row in instances}
    earlier = _earlier(session, assignment)
    return Case(
        assignment,
        series,
        study,
        summarise(reference, headers),
        sources,
        digests,
        tuple(_document(study, row) for row in earlier if row.kind in DOCUMENTS),
        bool(earlier) or page_before(session, assignment),
        taken_series_numbers(session, assignment, study.id),
    )


def _instances(session: Session, series: SeriesRow) -> list[Row[str, str, str, str, dict[str, list[Any]]]]:
    """Columns of the Instances to analyse: whole rows of a long Series take twice as long."""
    wanted = (InstanceRow.SOPClassUID, InstanceRow.SOPInstanceUID, InstanceRow.sha256, InstanceRow.path)
    query = select(*wanted, InstanceRow.header)
    query = query.where(InstanceRow.series_id == series.id, InstanceRow.conflict.is_(False))
    return list(session.execute(query.order_by(InstanceRow.id)))


def _earlier(session: Session, assignment: AssignmentRow) -> list[DerivedRow]:
    """What earlier generations of this Series got from the same detector, in the order it was made."""
    query = (
        select(DerivedRow)
        .join(AssignmentRow, AssignmentRow.id == DerivedRow.assignment_id)
        .where(
            AssignmentRow.series_id == assignment.series_id,
            AssignmentRow.detector == assignment.detector,
            AssignmentRow.generation < assignment.generation,
        )
        .order_by(DerivedRow.id)
    )
    return list(session.scalars(query))


def _document(study: StudyRow, row: DerivedRow) -> InstanceReference:
    return InstanceReference(study.StudyInstanceUID, row.SeriesInstanceUID, row.SOPClassUID, row.SOPInstanceUID)


def _reference(series: SeriesReference, sop_class: str, sop_instance: str) -> InstanceReference:
    return InstanceReference(series.StudyInstanceUID, series.SeriesInstanceUID, sop_class, sop_instance)
