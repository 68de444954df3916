"""The one transaction that ends an attempt: states per Instance, audit, and the job done, retried or dead."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.deliver.back_off import DAY_S, BackOff
from dicomnode.deliver.commit import request as request_commitment
from dicomnode.deliver.fallback import Refused, step_down
from dicomnode.deliver.outbox import KIND, THERE, Consignment, Parcel, deliveries
from dicomnode.dicom.status import Disposition, describe_status
from dicomnode.jobs import Job, bury, finish, retry
from dicomnode.store.engine import Store
from dicomnode.store.stages import record_delivery
from dicomnode.store.tables import AssignmentRow, DeliveryRow, JobRow, SeriesRow, StudyRow

WHOLE_AGAIN = 3
STAND_INS_S = 1.0
"""Seconds until a refused delivery is looked at again while its stand-ins are still being made."""

HELD = "quarantine"
"""State of a DeliveryRow whose Instance must not leave: it cannot be de-identified beyond doubt."""
Ending = Literal["done", "retry", "dead"]
_STATES = {Disposition.STORED: "delivered", Disposition.STORED_WITH_WARNING: "warning", Disposition.PERMANENT: "failed"}


@dataclass(frozen=True, slots=True)
class Result:
    """How it went with one Parcel in one attempt; see ``SentStatus``. ``held``: it cannot be de-identified."""

    parcel: Parcel
    disposition: Disposition
    status: int | None
    reason: str
    tried: bool
    refused: bool = False
    retry_after_s: float = 0.0
    held: bool = False

    @property
    def accepted(self) -> bool:
        """True when the peer said that it stored the Instance."""
        return self.disposition.accepted


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a job.

    ``stopped``: the node is going down, so what has no result was not tried. ``commit``: the Destination is to be asked
    for storage commitment when all is there. ``deid``: how what was sent was de-identified, for the audit row.
    """

    consignment: Consignment
    results: tuple[Result, ...]
    stopped: bool = False
    commit: bool = False
    deid: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lost(self) -> bool:
        """True when there was no Association, or it failed before the end."""
        return any(result.status is None and result.disposition is Disposition.TRANSIENT for result in self.results)

    @property
    def passing(self) -> bool:
        """True when a later attempt may end otherwise by itself."""
        return any(result.disposition is Disposition.TRANSIENT for result in self.results)

    @property
    def retry_after_s(self) -> float:
        """The pause that the peer asks for, in seconds."""
        return max((result.retry_after_s for result in self.results), default=0.0)

    @property
    def reason(self) -> str:
        """Why not all was taken: the three most common causes."""
        counts = Counter(result.reason for result in self.results if not result.accepted)
        return "; ".join(reason for reason, _ in counts.most_common(3))

    @property
    def reached(self) -> bool:
        """True when the peer judged at least one Instance, for good or ill."""
        return any(
            result.status is not None and result.disposition is not Disposition.TRANSIENT for result in self.results
        )


def settle(store: Store, attempt: Attempt, back_off: BackOff, now: float) -> Ending:
    """Write what came of ``attempt`` in one transaction and say how the job goes on. Raises LeaseLost.

    After a lost Association the whole batch is sent again, acknowledged Instances too: their UIDs make that
    harmless, and an archive may have dropped what it took. From the fourth attempt on acknowledged ones count,
    so that a batch which never passes in one piece still gets through.
    """
    consignment = attempt.consignment
    job = consignment.job
    expired = now - consignment.waiting_since >= back_off.give_up_after_s
    whole_again = attempt.lost and job.attempt <= WHOLE_AGAIN and not expired
    with store.write() as session:
        rows = _rows(session, consignment)
        if not expired and any(result.refused for result in attempt.results) and _more_to_come(session, attempt):
            attempt = _postponed(attempt)
        for result in attempt.results:
            _apply(rows[result.parcel.id], result, whole_again=whole_again, now=now)
        reason = _step_down(session, attempt) or session.get_one(JobRow, job.id).error
        rows = _rows(session, consignment)
        retry_at = _retry_at(attempt, back_off, now)
        ending = _ending(rows.values(), expired=expired and not attempt.stopped)
        _audit(session, attempt, rows, retry_at if ending == "retry" else None)
        if attempt.commit and ending != "retry" and any(row.state in THERE for row in rows.values()):
            request_commitment(session, consignment.assignment_id, consignment.destination, now)
        if ending == "done":
            finish(session, job, now)
            record_delivery(session, consignment.assignment_id, now)
        elif ending == "retry":
            retry(session, job, reason, retry_at)
        else:
            _bury(session, attempt, list(rows.values()), reason, back_off if expired else None, now)
    return ending


def _more_to_come(session: Session, attempt: Attempt) -> bool:
    """Whether the worker that made the result is still making what may stand in for it."""
    key, alive = str(attempt.consignment.assignment_id), JobRow.state.in_(("ready", "leased"))
    made = select(JobRow.id).where(JobRow.kind == "detect", JobRow.dedup_key == key, alive)
    return session.scalar(made) is not None


def _postponed(attempt: Attempt) -> Attempt:
    """The attempt with every refusal as a passing one: whether anything can stand in will be known in a moment."""

    def later(result: Result) -> Result:
        if not result.refused:
            return result
        later_s = max(result.retry_after_s, STAND_INS_S)
        return replace(result, disposition=Disposition.TRANSIENT, refused=False, retry_after_s=later_s)

    return replace(attempt, results=tuple(later(result) for result in attempt.results))


def _rows(session: Session, consignment: Consignment) -> dict[int, DeliveryRow]:
    session.flush()
    found = session.scalars(deliveries(consignment.assignment_id, consignment.destination))
    return {row.id: row for row in found}


def _step_down(session: Session, attempt: Attempt) -> str:
    """Put other kinds in the place of refused ones; returns why not all is there."""
    consignment = attempt.consignment
    refused: dict[str, Refused] = {}
    for result in attempt.results:
        if result.refused:
            parcel = result.parcel
            refused.setdefault(parcel.kind, Refused(parcel.kind, parcel.SOPClassUID, result.reason))
    accepted = {result.parcel.kind for result in attempt.results if result.accepted}
    assignment_id, destination = consignment.assignment_id, consignment.destination
    facts = {**subject(session, assignment_id), "peer": destination, "job": consignment.job.id}
    missing = step_down(session, assignment_id, destination, refused.values(), accepted, facts)
    reason = "; ".join(part for part in (attempt.reason, *missing) if part)
    return reason or ("the node stopped" if attempt.stopped else "")


def _retry_at(attempt: Attempt, back_off: BackOff, now: float) -> float:
    """At once for what has not been tried yet; after a failure when the back-off or the peer says."""
    if attempt.stopped or not attempt.passing:
        return now
    return now + max(back_off.delay(attempt.consignment.job.attempt, random.random()), attempt.retry_after_s)


def bury_malformed(store: Store, job: Job, reason: str, now: float) -> None:
    """Dead letter for a job that does not say what to deliver. Raises LeaseLost."""
    with store.write() as session:
        bury(session, job, reason, now)
        append(session, Event.DEAD_LETTER, {"job": job.id, "kind": KIND, "reason": reason})


def subject(session: Session, assignment_id: int) -> dict[str, Any]:
    """Whose results these are: identifiers for an audit body."""
    row = session.execute(
        select(StudyRow.StudyInstanceUID, StudyRow.PatientID, StudyRow.AccessionNumber, SeriesRow.SeriesInstanceUID)
        .join(SeriesRow, SeriesRow.study_id == StudyRow.id)
        .join(AssignmentRow, AssignmentRow.series_id == SeriesRow.id)
        .where(AssignmentRow.id == assignment_id)
    ).first()
    known = {} if row is None else {key: value for key, value in row._mapping.items() if value}  # noqa: SLF001 - public
    return {**known, "assignment": assignment_id}


def _apply(row: DeliveryRow, result: Result, *, whole_again: bool, now: float) -> None:
    row.attempts += result.tried
    row.status = result.status
    if result.disposition is Disposition.TRANSIENT or (result.accepted and whole_again):
        return
    row.state = HELD if result.held else _STATES[result.disposition]
    if result.accepted:
        row.delivered_at = now


def _ending(rows: Iterable[DeliveryRow], *, expired: bool) -> Ending:
    states = {row.state for row in rows}
    if "waiting" in states and not expired:
        return "retry"
    return "done" if states & THERE and not states & {"waiting", "failed", HELD} else "dead"


def _bury(
    session: Session,
    attempt: Attempt,
    rows: Sequence[DeliveryRow],
    reason: str,
    back_off: BackOff | None,
    now: float,
) -> None:
    bad = [row for row in rows if row.state in {"waiting", "failed", HELD}]
    for row in bad:
        row.state = HELD if row.state == HELD else "failed"
    cause = reason or "; ".join(sorted({describe_status(row.status) for row in bad}))
    reason = f"{len(bad)} of {len(rows)} instances not delivered: {cause}" if rows else "there is nothing to deliver"
    if back_off is not None:
        reason = f"given up after {back_off.give_up_after_s / DAY_S:g} days: {reason}"
    consignment = attempt.consignment
    bury(session, consignment.job, reason, now)
    body = {"job": consignment.job.id, "kind": KIND, "peer": consignment.destination, "reason": reason}
    append(session, Event.DEAD_LETTER, {**subject(session, consignment.assignment_id), **body})


def _audit(session: Session, attempt: Attempt, rows: dict[int, DeliveryRow], retry_at: float | None) -> None:
    """One row for what is at the peer now, one for what is not (PS3.15 A.5.3.7)."""
    consignment = attempt.consignment
    there = [result for result in attempt.results if rows[result.parcel.id].state in THERE]
    not_there = [result for result in attempt.results if rows[result.parcel.id].state not in THERE]
    facts = {"peer": consignment.destination, "job": consignment.job.id, "attempt": consignment.job.attempt}
    for event, results in ((Event.DELIVERED, there), (Event.DELIVERY_FAILED, not_there)):
        if not results:
            continue
        body: dict[str, Any] = {**subject(session, consignment.assignment_id), **facts}
        body["counts"] = dict(Counter(result.parcel.kind for result in results))
        body.update(attempt.deid)
        body["instances"] = [_line(result, rows[result.parcel.id].state) for result in results]
        if event is Event.DELIVERY_FAILED:
            body["reason"], body["retry_at"] = attempt.reason, retry_at
        append(session, event, body)
    held = [result for result in attempt.results if result.held]
    if held:
        lines = [{"SOPInstanceUID": result.parcel.SOPInstanceUID, "reason": result.reason} for result in held]
        facts |= {**subject(session, consignment.assignment_id), **attempt.deid}
        append(session, Event.QUARANTINE, {**facts, "instances": lines})


def _line(result: Result, state: str) -> dict[str, Any]:
    parcel = result.parcel
    line = {"SOPInstanceUID": parcel.SOPInstanceUID, "sha256": parcel.sha256, "state": state}
    return line | {"Status": result.status, "text": result.reason}
