"""The rows that ``judge`` needs, read in one snapshot."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import cast

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from dicomnode.assemble.evidence import WEIGHED, Evidence
from dicomnode.assemble.judge import AssociationEnd, SeriesFacts
from dicomnode.dicom.summary import Header
from dicomnode.store.tables import AssociationRow, InstanceRow, ProcessRow, SeriesRow

RECEIVING_ROLE = "receive"


def listening_since(session: Session) -> float | None:
    """Start of the process that receives, None when it has stopped; 0.0 when no process ever said it receives."""
    query = select(ProcessRow.started_at, ProcessRow.stopped_at).where(ProcessRow.role == RECEIVING_ROLE)
    newest = session.execute(query.order_by(ProcessRow.started_at.desc()).limit(1)).first()
    if newest is None:
        return 0.0
    return None if newest.stopped_at is not None else float(newest.started_at)


def read_headers(session: Session, series_id: int, after: int = 0) -> list[tuple[int, Header]]:
    """Row id and header, as far as ``weigh`` asks it, of the Instances of a Series, oldest first.

    Of every generation, conflicting copies left out; only those whose rows came ``after`` that id: a row never
    changes in what is read here, and a new one has a greater id than all there are.
    """
    query = select(InstanceRow.id, InstanceRow.header).where(
        InstanceRow.series_id == series_id, InstanceRow.id > after, InstanceRow.conflict.is_(False)
    )
    return [
        (number, {keyword: tuple(values) for keyword, values in header.items() if keyword in WEIGHED})
        for number, header in session.execute(query.order_by(InstanceRow.id))
    ]


def any_ended(session: Session, association_ids: Collection[int]) -> bool:
    """Whether one of these Associations is not open any more."""
    if not association_ids:
        return False
    query = select(AssociationRow.id).where(AssociationRow.id.in_(association_ids), AssociationRow.ended != "open")
    return session.scalar(query.limit(1)) is not None


def read_facts(session: Session, series: SeriesRow, evidence: Evidence, listening: float | None) -> SeriesFacts:
    """The facts of an open Series."""
    association = None if series.association_id is None else session.get(AssociationRow, series.association_id)
    end = association.ended if association is not None else "aborted"
    counted = select(func.count(func.distinct(InstanceRow.association_id))).where(InstanceRow.series_id == series.id)
    return SeriesFacts(
        evidence=evidence,
        generation=series.generation,
        last_received_at=series.last_received_at,
        association=cast("AssociationEnd", end),
        ended_at=association.ended_at if association is not None else None,
        sender_busy=association is not None and _sender_busy(session, series, association),
        moved_on=_moved_on(session, series),
        n_associations=session.scalar(counted) or 0,
        listening_since=listening,
        n_expected=series.n_expected,
        asked_at=series.asked_at,
    )


def _sender_busy(session: Session, series: SeriesRow, association: AssociationRow) -> bool:
    """Another open Association of the same sender that has brought this Study, or nothing yet."""
    same_study = exists().where(SeriesRow.association_id == AssociationRow.id, SeriesRow.study_id == series.study_id)
    query = select(AssociationRow.id).where(
        AssociationRow.ended == "open",
        AssociationRow.id != association.id,
        AssociationRow.CallingAETitle == association.CallingAETitle,
        AssociationRow.address == association.address,
        or_(AssociationRow.n_stored == 0, same_study),
    )
    return session.scalar(query.limit(1)) is not None


def _moved_on(session: Session, series: SeriesRow) -> bool:
    later = select(SeriesRow.id).where(
        SeriesRow.association_id == series.association_id,
        SeriesRow.id != series.id,
        SeriesRow.last_received_at > series.last_received_at,
    )
    return session.scalar(later.limit(1)) is not None


def open_series(session: Session) -> Iterable[SeriesRow]:
    """Every Series that is still collecting, oldest first."""
    query = select(SeriesRow).where(SeriesRow.state == "open").order_by(SeriesRow.last_received_at)
    return session.scalars(query).all()


def open_associations(session: Session, series: Iterable[SeriesRow]) -> set[int]:
    """Ids of the Associations that ``series`` came over and that are open."""
    is_open = set(session.scalars(select(AssociationRow.id).where(AssociationRow.ended == "open")))
    return is_open & {row.association_id for row in series}
