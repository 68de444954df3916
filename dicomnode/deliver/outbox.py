"""What waits in the database to be sent: the next job, and its Derived Instances."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from dicomnode.config.results import NEEDS, SEND_ORDER
from dicomnode.deliver.sending import OutboundFile
from dicomnode.dicom.header import part10_offset
from dicomnode.dicom.header_source import MalformedHeader
from dicomnode.errors import Permanent, Transient
from dicomnode.jobs import Job
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssignmentRow, DeliveryRow, DerivedRow, JobRow, SeriesRow

KIND = "deliver"
PIECE_BYTES = 256 * 1024
THERE = frozenset({"delivered", "warning"})
"""States of a DeliveryRow whose Instance the Destination holds."""

_DESTINATION = func.coalesce(func.json_extract(JobRow.payload, "$.destination"), "")
_ASSIGNMENT = func.json_extract(JobRow.payload, "$.assignment_id")


@dataclass(frozen=True, slots=True)
class Parcel:
    """One Derived Instance that waits for one Destination; ``id`` is its DeliveryRow's."""

    id: int
    kind: str
    SOPInstanceUID: str
    SOPClassUID: str
    sha256: str
    path: str


@dataclass(frozen=True, slots=True)
class Consignment:
    """The job's Derived Instances that still wait, in the order to send them."""

    job: Job
    assignment_id: int
    destination: str
    waiting_since: float
    parcels: tuple[Parcel, ...]


def next_job(session: Session, closed: Collection[str], now: float) -> tuple[int, str] | None:
    """(job id, Destination) to do now, or None; no job of the Destinations in ``closed``.

    Results of one Study reach one Destination in the order they were made: a job waits for those before it that are
    not done. Among the others the least tried one comes first, so that no job can hold up a lane.
    """
    query = (
        select(JobRow.id, JobRow.state, JobRow.priority, JobRow.attempt, JobRow.not_before, _DESTINATION)
        .add_columns(SeriesRow.study_id)
        .outerjoin(AssignmentRow, AssignmentRow.id == _ASSIGNMENT)
        .outerjoin(SeriesRow, SeriesRow.id == AssignmentRow.series_id)
        .where(JobRow.kind == KIND, JobRow.state.in_(("ready", "leased")), _DESTINATION.not_in(closed))
        .order_by(JobRow.id)
    )
    heads: dict[tuple[str, int | None], tuple[tuple[int, int, int], str] | None] = {}
    for job_id, state, priority, attempt, not_before, destination, study in session.execute(query):
        due = state == "ready" and not_before <= now
        heads.setdefault((destination, study), ((-priority, attempt, job_id), destination) if due else None)
    ready = [head for head in heads.values() if head is not None]
    if not ready:
        return None
    rank, destination = min(ready)
    return rank[2], destination


def deliveries(assignment_id: int, destination: str) -> Select[DeliveryRow]:
    """Every DeliveryRow of one Assignment and one Destination."""
    return (
        select(DeliveryRow)
        .join(DerivedRow, DerivedRow.id == DeliveryRow.derived_id)
        .where(DerivedRow.assignment_id == assignment_id, DeliveryRow.destination == destination)
        .order_by(DeliveryRow.id)
    )


def load(session: Session, job: Job) -> Consignment:
    """Read what ``job`` has to send now, each kind in its order, what it refers to first.

    Least tried first, so that one bad Instance does not keep the others back. A kind that needs others at the
    Destination (``config.results.NEEDS``) is left for a later attempt, after those arrived. Raises Permanent when the
    payload is not one of a ``deliver`` job.
    """
    try:
        assignment_id, destination = int(job.payload["assignment_id"]), str(job.payload["destination"])
        since = job.payload.get("waiting_since")
    except (KeyError, TypeError, ValueError) as error:
        raise Permanent("the job names no assignment and destination") from error
    created = session.scalar(select(JobRow.created_at).where(JobRow.id == job.id)) or 0.0
    rows = session.execute(
        select(DeliveryRow, DerivedRow)
        .join(DerivedRow, DerivedRow.id == DeliveryRow.derived_id)
        .where(DerivedRow.assignment_id == assignment_id, DeliveryRow.destination == destination)
        .order_by(DeliveryRow.attempts, DeliveryRow.id)
    ).all()
    states: dict[str, set[str]] = {}
    for row, derived in rows:
        states.setdefault(derived.kind, set()).add(row.state)
    ready = [pair for pair in rows if pair[0].state == "waiting" and needs_met(pair[1].kind, states)]
    ready.sort(key=lambda pair: (pair[0].attempts, SEND_ORDER.index(pair[1].kind), pair[0].id))
    parcels = tuple(_parcel(row, derived) for row, derived in ready)
    return Consignment(job, assignment_id, destination, created if since is None else float(since), parcels)


def needs_met(kind: str, states: Mapping[str, Collection[str]]) -> bool:
    """Does a Destination with these ``states`` of each kind hold all that ``kind`` needs there?"""
    return all(kind_states and THERE.issuperset(kind_states) for kind_states in map(states.get, NEEDS.get(kind, ())))


def _parcel(row: DeliveryRow, derived: DerivedRow) -> Parcel:
    return Parcel(row.id, derived.kind, derived.SOPInstanceUID, derived.SOPClassUID, derived.sha256, derived.path)


def outbound(spool: Spool, parcel: Parcel) -> OutboundFile:
    """The spool file of ``parcel``, proved by its digest to be what was made.

    Raises Permanent when it is missing or altered, Transient when the disk fails.
    """
    if not parcel.path:
        raise Permanent("its file was removed by retention")
    path = spool.absolute(parcel.path)
    try:
        begin, found = _digested(path)
    except FileNotFoundError as error:
        raise Permanent("its file is missing from the spool") from error
    except OSError as error:
        raise Transient(f"spool: disk error {error.errno}") from error
    if found != parcel.sha256:
        raise Permanent("its file in the spool is not the one that was made: wrong SHA-256")
    try:
        syntax, _ = part10_offset(begin)
    except MalformedHeader as error:
        raise Permanent("its file in the spool is no DICOM file") from error
    return OutboundFile(path, parcel.SOPClassUID, parcel.SOPInstanceUID, syntax)


def _digested(path: Path) -> tuple[bytes, str]:
    """The begin of a file, and the SHA-256 of all of it; read piece by piece."""
    with path.open("rb", buffering=0) as file:
        begin = file.read(PIECE_BYTES)
        file.seek(0)
        return begin, hashlib.file_digest(file, "sha256").hexdigest()
