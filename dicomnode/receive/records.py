"""The rows and audit records of one received Instance, in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.receive.arrival import Examined
from dicomnode.receive.tally import OpenAssociation
from dicomnode.store.tables import AssociationRow, InstanceRow, SeriesRow, StudyRow


class Kept(StrEnum):
    """What an Instance was to the node."""

    NEW = "new"
    REPEATED = "repeated"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class SpooledInstance:
    """An Instance whose file is durable; ``path`` within the spool, times in seconds since the epoch."""

    examined: Examined
    TransferSyntaxUID: str
    sha256: str
    size: int
    path: str
    received_at: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """``owns_file``: a row points to the file that was just written; otherwise it is a spare copy."""

    kept: Kept
    owns_file: bool


def record(
    session: Session, association: OpenAssociation, spooled: SpooledInstance, is_there: Callable[[str], bool]
) -> Recorded:
    """Write rows and audit records of ``spooled``; ``is_there``: does the spool still hold a path?

    The same SOP Instance UID with the same bytes counts as a repeat and opens nothing again; with other bytes it is
    a conflict, kept beside the first one and never analysed.
    """
    uid = spooled.examined.reference.SOPInstanceUID
    others = session.scalars(select(InstanceRow).where(InstanceRow.SOPInstanceUID == uid)).all()
    same = next((row for row in others if row.sha256 == spooled.sha256), None)
    study = _study(session, spooled)
    _begin(session, association, study, spooled)
    if same is not None:
        return _repeat(session, association, spooled, same, is_there)
    series = _series(session, study, association, spooled)
    if not others:
        _extend(session, series, association, spooled)
    _add(session, series, association, spooled, conflict=bool(others))
    statement = update(AssociationRow).where(AssociationRow.id == association.id)
    session.execute(statement.values(n_stored=AssociationRow.n_stored + 1))
    kept = Kept.CONFLICT if others else Kept.NEW
    event = Event.INSTANCE_CONFLICT if others else Event.INSTANCE_STORED
    _audit(session, event, association, spooled, generation=series.generation)
    return Recorded(kept, owns_file=True)


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a UTC time."""
    return datetime.fromtimestamp(seconds, UTC)


def _study(session: Session, spooled: SpooledInstance) -> StudyRow:
    examined, uid = spooled.examined, spooled.examined.reference.StudyInstanceUID
    row = session.scalar(select(StudyRow).where(StudyRow.StudyInstanceUID == uid))
    if row is None:
        row = StudyRow(StudyInstanceUID=uid, created_at=spooled.received_at, PatientID="", AccessionNumber="")
        row.StudyDate = row.StudyDescription = ""
        session.add(row)
    for keyword in ("PatientID", "AccessionNumber", "StudyDate", "StudyDescription"):
        if not getattr(row, keyword):
            setattr(row, keyword, examined.text(keyword))
    session.flush()
    return row


def _series(session: Session, study: StudyRow, association: OpenAssociation, spooled: SpooledInstance) -> SeriesRow:
    examined, uid = spooled.examined, spooled.examined.reference.SeriesInstanceUID
    query = select(SeriesRow).where(SeriesRow.study_id == study.id, SeriesRow.SeriesInstanceUID == uid)
    row = session.scalar(query)
    if row is None:
        row = SeriesRow(
            study_id=study.id,
            SeriesInstanceUID=uid,
            Modality=examined.text("Modality"),
            SeriesDescription=examined.text("SeriesDescription"),
            CallingAETitle=association.CallingAETitle,
            association_id=association.id,
            generation=1,
            state="open",
            first_received_at=spooled.received_at,
            last_received_at=spooled.received_at,
        )
        session.add(row)
        session.flush()
    return row


def _extend(session: Session, series: SeriesRow, association: OpenAssociation, spooled: SpooledInstance) -> None:
    """A new Instance: the Series goes on, or, when it was complete, its next generation opens."""
    if series.state == "complete":
        series.generation += 1
        series.state, series.incomplete = "open", False
        series.complete_by = series.completed_at = series.n_expected = series.asked_at = None
        _audit(session, Event.SERIES_REOPENED, association, spooled, generation=series.generation)
    _touch(series, association, spooled)


def _touch(series: SeriesRow, association: OpenAssociation, spooled: SpooledInstance) -> None:
    series.last_received_at = max(series.last_received_at, spooled.received_at)
    series.CallingAETitle, series.association_id = association.CallingAETitle, association.id


def _add(
    session: Session, series: SeriesRow, association: OpenAssociation, spooled: SpooledInstance, *, conflict: bool
) -> None:
    reference = spooled.examined.reference
    session.add(
        InstanceRow(
            series_id=series.id,
            association_id=association.id,
            SOPInstanceUID=reference.SOPInstanceUID,
            SOPClassUID=reference.SOPClassUID,
            TransferSyntaxUID=spooled.TransferSyntaxUID,
            sha256=spooled.sha256,
            size=spooled.size,
            path=spooled.path,
            header={keyword: list(values) for keyword, values in spooled.examined.header.items()},
            generation=series.generation,
            received_at=spooled.received_at,
            conflict=conflict,
        )
    )


def _repeat(
    session: Session,
    association: OpenAssociation,
    spooled: SpooledInstance,
    row: InstanceRow,
    is_there: Callable[[str], bool],
) -> Recorded:
    """The sender sends again, perhaps because it never heard Success: its Association is what counts now."""
    row.copies += 1
    series = session.get_one(SeriesRow, row.series_id)
    if series.state == "open" and not row.conflict:
        _touch(series, association, spooled)
    lost_file = not is_there(row.path)
    if lost_file:
        row.path = spooled.path
    _audit(session, Event.INSTANCE_REPEATED, association, spooled, copies=row.copies)
    return Recorded(Kept.REPEATED, owns_file=lost_file)


def _begin(session: Session, association: OpenAssociation, study: StudyRow, spooled: SpooledInstance) -> None:
    """The first Instance of a Study over this Association (PS3.15 A.5.3.3)."""
    tally = association.tally(study.StudyInstanceUID)
    if tally.begun:
        return
    tally.PatientID, tally.AccessionNumber = study.PatientID, study.AccessionNumber
    body = transfer_body(association, study.StudyInstanceUID)
    append(session, Event.BEGIN_TRANSFERRING, body, moment(spooled.received_at))


def transfer_body(association: OpenAssociation, study: str) -> dict[str, Any]:
    """The identifiers of "begin transferring" and "instances transferred", which have to reconcile."""
    tally = association.tally(study)
    body: dict[str, Any] = {
        "association": association.id,
        "peer": association.peer,
        "CallingAETitle": association.CallingAETitle,
    }
    if study:
        body |= {
            "StudyInstanceUID": study,
            "PatientID": tally.PatientID,
            "AccessionNumber": tally.AccessionNumber,
        }
    return body


def _audit(
    session: Session, event: Event, association: OpenAssociation, spooled: SpooledInstance, **facts: int
) -> None:
    examined, reference = spooled.examined, spooled.examined.reference
    body = {
        "association": association.id,
        "peer": association.peer,
        "CallingAETitle": association.CallingAETitle,
        "PatientID": examined.text("PatientID"),
        "AccessionNumber": examined.text("AccessionNumber"),
        "StudyInstanceUID": reference.StudyInstanceUID,
        "SeriesInstanceUID": reference.SeriesInstanceUID,
        "SOPInstanceUID": reference.SOPInstanceUID,
        "SOPClassUID": reference.SOPClassUID,
        "TransferSyntaxUID": spooled.TransferSyntaxUID,
        "sha256": spooled.sha256,
        "size": spooled.size,
        **facts,
    }
    append(session, event, body, moment(spooled.received_at))
