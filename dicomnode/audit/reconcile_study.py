"""One Study: its rows in the log against its rows in the node's tables (A2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit.events import Event
from dicomnode.audit.reconcile_transfers import COUNTED
from dicomnode.store.retention import ANALYSED, THERE
from dicomnode.store.tables import AssignmentRow, DeliveryRow, DerivedRow, InstanceRow, SeriesRow, StudyRow

Found = tuple[str, dict[str, Any]]
_KEPT = (Event.INSTANCE_STORED, Event.INSTANCE_CONFLICT)
_MAKING = (Event.INFERENCE, Event.STAND_INS, Event.STATUS_PAGE)
_ANALYSED: frozenset[str] = frozenset({Event.INFERENCE, Event.RE_IDENTIFICATION})
"""A result of our own, or one that came back from a detector outside."""
_FAILED: frozenset[str] = frozenset({Event.DEAD_LETTER})


@dataclass(slots=True)
class StudyRows:
    """What the log says of one Study.

    ``received``: kinds of its Instances' rows by Association. ``kept``: (SOP Instance UID, SHA-256) of what was stored,
    ``named``: of outputs. ``made``: SOP Instance UID of what an analysis made, to the row that says so. ``there``: (SOP
    Instance UID, destination) that were delivered. ``decided``: Assignment to the kinds of its rows.
    """

    received: dict[int, Counter[str]] = field(default_factory=dict)
    kept: set[tuple[str, str]] = field(default_factory=set)
    named: set[tuple[str, str]] = field(default_factory=set)
    made: dict[str, int] = field(default_factory=dict)
    there: set[tuple[str, str]] = field(default_factory=set)
    decided: dict[int, set[str]] = field(default_factory=dict)
    inferences: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> StudyRows:
        """Gather them; a row whose body is none was tampered with, which ``verify`` tells."""
        found = cls()
        for row in rows:
            if isinstance(row["body"], dict):
                found._take(row["seq"], row["kind"], row["body"])
        return found

    def _take(self, seq: int, kind: str, body: Mapping[str, Any]) -> None:
        if kind in COUNTED:
            self.received.setdefault(int(body.get("association") or 0), Counter())[kind] += 1
        if kind in _KEPT:
            self.kept.add((str(body.get("SOPInstanceUID")), str(body.get("sha256"))))
        for output in _listed(body, "outputs"):
            self.named.add((str(output.get("SOPInstanceUID")), str(output.get("sha256"))))
            if kind in _MAKING:
                self.made[str(output.get("SOPInstanceUID"))] = seq
        if kind == Event.DELIVERED:
            peer = str(body.get("peer"))
            self.there |= {(str(item.get("SOPInstanceUID")), peer) for item in _listed(body, "instances")}
        if isinstance(body.get("assignment"), int):
            self.decided.setdefault(body["assignment"], set()).add(kind)
        if kind == Event.INFERENCE:
            self.inferences.append((seq, body))


def study_differences(session: Session, uid: str, rows: StudyRows, since: float) -> Iterator[Found]:
    """What the log and the tables say differently of the Study ``uid``, as far as it happened since ``since``."""
    study = session.scalar(select(StudyRow).where(StudyRow.StudyInstanceUID == uid))
    if study is None:
        if rows.kept:
            yield "study without its table row", {"StudyInstanceUID": uid}
        return
    for kind, about in (
        *_received(session, study, rows, since),
        *_outputs(session, study, rows, since),
        *_deliveries(session, study, rows, since),
        *_outcomes(session, study, rows, since),
        *_empty_inferences(rows),
    ):
        yield kind, {"StudyInstanceUID": uid, **about}


def _received(session: Session, study: StudyRow, rows: StudyRows, since: float) -> Iterator[Found]:
    query = select(InstanceRow.SOPInstanceUID, InstanceRow.sha256, InstanceRow.received_at).join(
        SeriesRow, SeriesRow.id == InstanceRow.series_id
    )
    held = {(row[0], row[1]): row[2] for row in session.execute(query.where(SeriesRow.study_id == study.id))}
    for key, received_at in held.items():
        if key not in rows.kept and received_at >= since:
            yield "instance without its row", {"SOPInstanceUID": key[0], "sha256": key[1]}
    if study.deleted_at is None:
        for uid, sha256 in sorted(rows.kept - set(held)):
            yield "row without its instance", {"SOPInstanceUID": uid, "sha256": sha256}


def _outputs(session: Session, study: StudyRow, rows: StudyRows, since: float) -> Iterator[Found]:
    query = (
        select(DerivedRow.SOPInstanceUID, DerivedRow.sha256, DerivedRow.created_at)
        .join(AssignmentRow, AssignmentRow.id == DerivedRow.assignment_id)
        .join(SeriesRow, SeriesRow.id == AssignmentRow.series_id)
        .where(SeriesRow.study_id == study.id)
    )
    held = {(row[0], row[1]): row[2] for row in session.execute(query)}
    for (uid, sha256), created_at in held.items():
        if (uid, sha256) not in rows.named and created_at >= since:
            yield "output without its row", {"SOPInstanceUID": uid, "sha256": sha256}
    known = {uid for uid, _ in held}
    for uid, seq in rows.made.items():
        if uid not in known:
            yield "row without its output", {"SOPInstanceUID": uid, "row": seq}


def _deliveries(session: Session, study: StudyRow, rows: StudyRows, since: float) -> Iterator[Found]:
    query = (
        select(DerivedRow.SOPInstanceUID, DeliveryRow.destination, DeliveryRow.delivered_at)
        .join(DerivedRow, DerivedRow.id == DeliveryRow.derived_id)
        .join(AssignmentRow, AssignmentRow.id == DerivedRow.assignment_id)
        .join(SeriesRow, SeriesRow.id == AssignmentRow.series_id)
        .where(SeriesRow.study_id == study.id, DeliveryRow.state.in_(THERE))
    )
    for uid, destination, delivered_at in session.execute(query):
        if (uid, destination) not in rows.there and (delivered_at or 0.0) >= since:
            yield "delivery without its row", {"SOPInstanceUID": uid, "peer": destination}


def _outcomes(session: Session, study: StudyRow, rows: StudyRows, since: float) -> Iterator[Found]:
    """Each analysis that gave a result has its inference row, each that failed its dead letter."""
    query = select(AssignmentRow).join(SeriesRow, SeriesRow.id == AssignmentRow.series_id)
    for row in session.scalars(query.where(SeriesRow.study_id == study.id, AssignmentRow.outcome.is_not(None))):
        wanted = _ANALYSED if row.outcome in ANALYSED else _FAILED if row.outcome == "failed" else frozenset()
        if wanted and (row.finished_at or 0.0) >= since and not wanted & rows.decided.get(row.id, set()):
            yield "outcome without its row", {"assignment": row.id, "outcome": row.outcome}


def _empty_inferences(rows: StudyRows) -> Iterator[Found]:
    for seq, body in rows.inferences:
        if not body.get("outputs") and not body.get("reason"):
            yield "inference without output or reason", {"row": seq, "assignment": body.get("assignment")}


def _listed(body: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    listed = body.get(name)
    yield from (item for item in (listed if isinstance(listed, list) else ()) if isinstance(item, dict))
