"""Rows and audit records of Associations: opened, rejected, ended, lost with an earlier run of the node."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, case, func, select, update
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.audit.query import body_value
from dicomnode.receive.admission import Request
from dicomnode.receive.records import moment, transfer_body
from dicomnode.receive.tally import End, OpenAssociation
from dicomnode.store.tables import AssociationRow, AuditRow, ProcessRow, SeriesRow

_LIVING = select(ProcessRow.owner).where(ProcessRow.stopped_at.is_(None), ProcessRow.heartbeat_at > 0)
_COUNTED = (Event.INSTANCE_STORED, Event.INSTANCE_REPEATED, Event.INSTANCE_CONFLICT)


def counts(session: Session, peer: str | None, address: str) -> tuple[int, int]:
    """How many Associations are open, and how many of them from this peer, or from its address if it has no name."""
    mine = (
        AssociationRow.peer == peer if peer else and_(AssociationRow.peer.is_(None), AssociationRow.address == address)
    )
    query = select(func.count(), func.sum(case((mine, 1), else_=0))).where(AssociationRow.ended == "open")
    total, of_peer = session.execute(query).one()
    return int(total), int(of_peer or 0)


def opened(session: Session, request: Request, peer: str | None, now: float, owner: str = "") -> int:
    """Add the row of an accepted Association, held by the process ``owner``, and return its id."""
    row = AssociationRow(
        CallingAETitle=request.CallingAETitle,
        CalledAETitle=request.CalledAETitle,
        address=request.address,
        peer=peer,
        opened_at=now,
        ended="open",
        owner=owner,
    )
    session.add(row)
    session.flush()
    return row.id


def ended(session: Session, association: OpenAssociation, end: End, now: float) -> None:
    """Close the row and write one "instances transferred" per Study (PS3.15 A.5.3.7).

    A Study of which every Instance was refused gets its "begin transferring" here, so that the two reconcile.
    """
    for study, tally in list(association.studies.items()):
        body = transfer_body(association, study)
        if not tally.begun:
            append(session, Event.BEGIN_TRANSFERRING, body, moment(now))
        counts = {
            "n_new": tally.new,
            "n_repeated": tally.repeated,
            "n_conflict": tally.conflict,
            "n_refused": tally.refused,
        }
        append(session, Event.INSTANCES_TRANSFERRED, body | counts | {"ended": end}, moment(now))
    for series_id, touched in association.touched.items():
        if touched.last > touched.written:
            latest = func.max(SeriesRow.last_received_at, touched.last)
            session.execute(update(SeriesRow).where(SeriesRow.id == series_id).values(last_received_at=latest))
    refused = sum(tally.refused for tally in association.studies.values())
    _close(session, association.id, end, now, association.n_stored, refused)


@dataclass(frozen=True, slots=True)
class Lost:
    """Associations that nobody holds any more: their ids, and when the oldest was opened (seconds since the epoch)."""

    ids: frozenset[int]
    since: float


def lose_open(session: Session, now: float) -> Lost | None:
    """Close what a process that is gone left open as ``lost``, with the counts that its audit records prove.

    None when there was none. Refused Instances of a lost Association are not known any more: ``n_refused`` is null.
    """
    orphaned = select(AssociationRow).where(AssociationRow.ended == "open", AssociationRow.owner.not_in(_LIVING))
    rows = session.scalars(orphaned).all()
    if not rows:
        return None
    since = moment(min(row.opened_at for row in rows)).isoformat(timespec="microseconds")
    begun, counts = _proven(session, {row.id for row in rows}, since)
    for body in begun:
        kinds = counts[body["association"], body["StudyInstanceUID"]]
        numbers: dict[str, int | None] = {
            "n_new": kinds[Event.INSTANCE_STORED],
            "n_repeated": kinds[Event.INSTANCE_REPEATED],
            "n_conflict": kinds[Event.INSTANCE_CONFLICT],
            "n_refused": None,
        }
        append(session, Event.INSTANCES_TRANSFERRED, body | numbers | {"ended": "lost"}, moment(now))
    stored: Counter[int] = Counter()
    for (association_id, _), kinds in counts.items():
        stored[association_id] += kinds[Event.INSTANCE_STORED] + kinds[Event.INSTANCE_CONFLICT]
    for row in rows:
        _close(session, row.id, "lost", now, stored[row.id], 0)
    return Lost(frozenset(row.id for row in rows), min(row.opened_at for row in rows))


def living(session: Session) -> frozenset[str]:
    """The processes of the node that run."""
    return frozenset(session.scalars(_LIVING))


def open_ids(session: Session) -> set[int]:
    """The Associations that are open, whoever holds them."""
    return set(session.scalars(select(AssociationRow.id).where(AssociationRow.ended == "open")))


def _proven(
    session: Session, ids: set[int], since: str
) -> tuple[list[dict[str, Any]], dict[tuple[int, str], Counter[str]]]:
    """Begin records of these Associations that have no counterpart, and what was recorded since per Study."""
    association, study = body_value("association"), body_value("StudyInstanceUID")
    of_kind = AuditRow.kind.concat("")  # not by the index of kinds: the index of times bounds how far back this looks
    counted = (
        select(association, study, AuditRow.kind, func.count())
        .where(of_kind.in_(_COUNTED), AuditRow.ts >= since, association.in_(ids))
        .group_by(association, study, AuditRow.kind)
    )
    counts: dict[tuple[int, str], Counter[str]] = {}
    for association_id, uid, kind, number in session.execute(counted):
        counts.setdefault((association_id, uid), Counter())[kind] = number
    beginnings = (of_kind == Event.BEGIN_TRANSFERRING, AuditRow.ts >= since, association.in_(ids))
    found = session.execute(select(AuditRow.seq, AuditRow.body).where(*beginnings)).all()
    begun = [json.loads(body) for _, body in sorted(found)]
    return begun, {**{(body["association"], body["StudyInstanceUID"]): Counter() for body in begun}, **counts}


def _close(session: Session, association_id: int, end: End, now: float, stored: int, refused: int) -> None:
    statement = update(AssociationRow).where(AssociationRow.id == association_id, AssociationRow.ended == "open")
    session.execute(statement.values(ended=end, ended_at=now, n_stored=stored, n_refused=refused))
