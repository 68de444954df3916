"""What a ``detect`` job is about, read from the rows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.detect.volume import SourceFile
from dicomnode.dicom.references import InstanceReference, SeriesReference
from dicomnode.dicom.summary import SeriesSummary, summarise
from dicomnode.errors import Permanent
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssignmentRow, DerivedRow, InstanceRow, SeriesRow, StudyRow


@dataclass(frozen=True, slots=True)
class Case:
    """One Assignment with everything that its analysis needs; detached from the database."""

    assignment: AssignmentRow
    series: SeriesRow
    study: StudyRow
    summary: SeriesSummary
    sources: tuple[SourceFile, ...]
    digests: dict[str, str]
    supersedes: tuple[InstanceReference, ...]
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
    query = select(InstanceRow).where(InstanceRow.series_id == series.id, InstanceRow.conflict.is_(False))
    instances = session.scalars(query.order_by(InstanceRow.id)).all()
    reference = SeriesReference(study.StudyInstanceUID, series.SeriesInstanceUID)
    headers = ({key: tuple(values) for key, values in row.header.items()} for row in instances)
    sources = tuple(
        SourceFile(_reference(reference, row.SOPClassUID, row.SOPInstanceUID), spool.absolute(row.path))
        for row in instances
    )
    digests = {row.SOPInstanceUID: row.sha256 for row in instances}
    older = _superseded(session, assignment, study.StudyInstanceUID)
    numbers = _series_numbers(session, study)
    return Case(assignment, series, study, summarise(reference, headers), sources, digests, older, numbers)


def _series_numbers(session: Session, study: StudyRow) -> frozenset[int]:
    """Series Numbers that the Study's received Series have taken."""
    query = select(InstanceRow.header["SeriesNumber"]).join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
    values = session.scalars(query.where(SeriesRow.study_id == study.id).distinct())
    return frozenset(value[0] for value in values if value and isinstance(value[0], int))


def _superseded(session: Session, assignment: AssignmentRow, study: str) -> tuple[InstanceReference, ...]:
    """The SRs that earlier generations of this Series got from the same detector."""
    query = (
        select(DerivedRow)
        .join(AssignmentRow, AssignmentRow.id == DerivedRow.assignment_id)
        .where(
            AssignmentRow.series_id == assignment.series_id,
            AssignmentRow.detector == assignment.detector,
            AssignmentRow.generation < assignment.generation,
            DerivedRow.kind == "sr",
        )
        .order_by(DerivedRow.id)
    )
    rows = session.scalars(query).all()
    return tuple(InstanceReference(study, row.SeriesInstanceUID, row.SOPClassUID, row.SOPInstanceUID) for row in rows)


def _reference(series: SeriesReference, sop_class: str, sop_instance: str) -> InstanceReference:
    return InstanceReference(series.StudyInstanceUID, series.SeriesInstanceUID, sop_class, sop_instance)
