"""The transactions of a ``commit`` job: answers taken in, the next question, and how the job ends."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.deliver.back_off import DAY_S, BackOff
from dicomnode.deliver.commit_plan import Held, Plan, make_plan
from dicomnode.deliver.commit_report import settle_answer
from dicomnode.deliver.ledger import subject
from dicomnode.dicom.commitment import FailureReason, describe_reason, is_accepted
from dicomnode.dicom.status import Status, describe_status
from dicomnode.dicom.uids import derived_uid
from dicomnode.errors import Permanent
from dicomnode.jobs import Job, bury, extend, finish, retry
from dicomnode.store.commitments import COMMIT
from dicomnode.store.engine import Store
from dicomnode.store.tables import CommitmentRow, DeliveryRow, DerivedRow, JobRow

RESEND_S = 600.0
ANSWER_S = 600.0
_NEW_TRANSACTION = frozenset({FailureReason.DUPLICATE_TRANSACTION_UID, Status.DUPLICATE_SOP_INSTANCE})
"""The peer knows the transaction already: the next question is a new one."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What a ``commit`` job is about; ``since``: answers before this do not count any more."""

    job: Job
    assignment_id: int
    destination: str
    since: float


@dataclass(frozen=True, slots=True)
class Question:
    """One N-ACTION to send. ``instances``: (SOP Class UID, SOP Instance UID)."""

    TransactionUID: str
    instances: tuple[tuple[str, str], ...]


def errand(store: Store, job: Job) -> Errand:
    """Read ``job``. Raises Permanent when its payload is not one of a ``commit`` job."""
    try:
        assignment_id, destination = int(job.payload["assignment_id"]), str(job.payload["destination"])
        since = job.payload.get("waiting_since")
        if since is None:
            since = store.scalar(select(JobRow.created_at).where(JobRow.id == job.id)) or 0.0
        return Errand(job, assignment_id, destination, float(since))
    except (KeyError, TypeError, ValueError) as error:
        raise Permanent("the job names no assignment and destination") from error


def next_question(store: Store, wanted: Errand, back_off: BackOff, now: float, lease_s: float) -> Question | None:
    """Take in the answers that have come and write the row of the next question, all in one transaction.

    None when there is nothing to ask now: the job is done, dead, or waits. The row is there before the N-ACTION, so
    that an early report finds it; until the peer has accepted, the same question is put again. Raises LeaseLost.
    """
    with store.write() as session:
        for row in session.scalars(_rows(wanted).where(CommitmentRow.state == "answered")).all():
            settle_answer(session, wanted.assignment_id, row, _answers(session, wanted), now)
        held, pending = _held(session, wanted), _pending(session, wanted, now)
        if pending is not None and _was_asked(pending) and _concerns(pending, held):
            retry(session, wanted.job, "", pending.expires_at)
            return None
        plan = make_plan(held, _answers(session, wanted))
        if plan.ask and now - wanted.since < back_off.give_up_after_s:
            extend(session, wanted.job, now, lease_s)
            return _question(session, wanted, plan, pending, now)
        if pending is not None:
            pending.state = "expired"
        _rest(session, wanted, plan, back_off, now)
        return None


def end_attempt(
    store: Store, wanted: Errand, question: Question, status: int | None, fault: str, back_off: BackOff, now: float
) -> bool:
    """Write what came of the N-ACTION; returns whether the peer took it. ``fault``: why there was no response.

    Raises LeaseLost.
    """
    with store.write() as session:
        row = session.scalars(_rows(wanted).where(CommitmentRow.TransactionUID == question.TransactionUID)).one()
        if row.state == "answered" or is_accepted(status):
            row.expires_at = max(row.expires_at, now + answer_within(_n_expired(session, wanted)))
            _audit(session, Event.COMMITMENT_REQUESTED, wanted, row, Status=status)
            retry(session, wanted.job, "", now if row.state == "answered" else row.expires_at)
            return True
        if status in _NEW_TRANSACTION:
            row.state = "expired"
        reason = fault or f"storage commitment request: {describe_status(status)}"
        _try_later(session, wanted, row, reason, back_off, now)
        return False


def nobody_asks(store: Store, wanted: Errand, now: float) -> None:
    """The Destination is not asked for commitment any more. Raises LeaseLost."""
    with store.write() as session:
        finish(session, wanted.job, now)


def give_up(store: Store, job: Job, reason: str, now: float) -> None:
    """Dead letter, before anything was asked. Raises LeaseLost."""
    with store.write() as session:
        _bury(session, job, reason, now)


def put_off(store: Store, job: Job, reason: str, back_off: BackOff, now: float) -> None:
    """The fault was on our side: try again later. Raises LeaseLost."""
    with store.write() as session:
        retry(session, job, reason, now + back_off.delay(job.attempt, random.random()))


def answer_within(n_expired: int) -> float:
    """Seconds until a question without an answer is put again: ten minutes, and twice that after each silence."""
    return min(ANSWER_S * 2.0 ** min(n_expired, 10), DAY_S)


def job_subject(session: Session, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Whose results a ``commit`` job is about, and who is asked: for an audit body."""
    return {**subject(session, int(payload["assignment_id"])), "peer": str(payload["destination"])}


def forget_answers(session: Session, job: Job) -> dict[str, Any]:
    """A requeued ``commit`` job asks about everything again; returns its ``job_subject``.

    For the caller's write transaction, after ``jobs.requeue``.
    """
    row = session.get_one(JobRow, job.id)
    row.payload = {**row.payload, "waiting_since": row.not_before}
    return job_subject(session, row.payload)


def _rows(wanted: Errand) -> Any:
    query = select(CommitmentRow).where(CommitmentRow.assignment_id == wanted.assignment_id)
    return query.where(CommitmentRow.destination == wanted.destination).order_by(CommitmentRow.id)


def _answers(session: Session, wanted: Errand) -> dict[str, list[int | None]]:
    """Every Instance's answers since the errand began."""
    found: dict[str, list[int | None]] = {}
    settled: ColumnElement[bool] = CommitmentRow.state == "settled"
    for row in session.scalars(_rows(wanted).where(settled, CommitmentRow.requested_at >= wanted.since)):
        for uid in row.instances:
            found.setdefault(uid, []).append((row.report or {}).get(uid))
    return found


def _held(session: Session, wanted: Errand) -> list[Held]:
    query = (
        select(DerivedRow.SOPInstanceUID, DerivedRow.SOPClassUID, DeliveryRow.state, DeliveryRow.committed_at)
        .join(DeliveryRow, DeliveryRow.derived_id == DerivedRow.id)
        .where(DerivedRow.assignment_id == wanted.assignment_id, DeliveryRow.destination == wanted.destination)
        .order_by(DeliveryRow.id)
    )
    return [Held(uid, sop_class, state, at is not None) for uid, sop_class, state, at in session.execute(query)]


def _pending(session: Session, wanted: Errand, now: float) -> CommitmentRow | None:
    """The question without an answer that is still good; one whose time ran out expires.

    So does one that was asked by a clock that has been set back since.
    """
    pending: CommitmentRow | None = None
    for row in session.scalars(_rows(wanted).where(CommitmentRow.state == "requested")).all():
        if _was_asked(row) and not now < row.expires_at <= now + DAY_S:
            row.state = "expired"
            reason = f"no report within {row.expires_at - row.requested_at:.0f} s"
            _audit(session, Event.COMMITMENT_FAILED, wanted, row, reason=reason)
        else:
            pending = row
    return pending


def _was_asked(row: CommitmentRow) -> bool:
    """Did the peer take the question? Before that it has no time to answer in."""
    return row.expires_at > row.requested_at


def _concerns(row: CommitmentRow, held: Sequence[Held]) -> bool:
    """Does the answer to ``row`` still matter?"""
    return not {item.SOPInstanceUID for item in held if not item.committed}.isdisjoint(row.instances)


def _n_expired(session: Session, wanted: Errand) -> int:
    silent = _rows(wanted).where(CommitmentRow.state == "expired", CommitmentRow.requested_at >= wanted.since)
    return session.scalar(select(func.count()).select_from(silent.order_by(None).subquery())) or 0


def _question(session: Session, wanted: Errand, plan: Plan, pending: CommitmentRow | None, now: float) -> Question:
    uids = [item.SOPInstanceUID for item in plan.ask]
    if pending is not None and pending.instances != uids:
        pending.state, pending = "expired", None
    if pending is None:
        pending = _new_row(session, wanted, uids, now)
    return Question(pending.TransactionUID, tuple((item.SOPClassUID, item.SOPInstanceUID) for item in plan.ask))


def _new_row(session: Session, wanted: Errand, uids: Sequence[str], now: float) -> CommitmentRow:
    """A Transaction UID is never used twice (PS3.4 J.3.3), not even by a node with a new database."""
    number = session.scalar(select(func.count()).select_from(_rows(wanted).order_by(None).subquery())) or 0
    parts = ("commitment", wanted.destination, str(number + 1), repr(now), *uids)
    row = CommitmentRow(
        TransactionUID=derived_uid(*parts),
        assignment_id=wanted.assignment_id,
        destination=wanted.destination,
        instances=list(uids),
        state="requested",
        requested_at=now,
        expires_at=now,
    )
    session.add(row)
    return row


def _rest(session: Session, wanted: Errand, plan: Plan, back_off: BackOff, now: float) -> None:
    """Nothing to ask now."""
    if plan.ask:
        days = back_off.give_up_after_s / DAY_S
        error = session.scalar(select(JobRow.error).where(JobRow.id == wanted.job.id)) or "no report"
        _bury(session, wanted.job, f"given up after {days:g} days: {error}", now)
    elif plan.on_the_way:
        retry(session, wanted.job, f"{plan.on_the_way} instances are sent again first", now + RESEND_S)
    elif plan.given_up:
        causes = "; ".join(sorted({describe_reason(reason) for reason in plan.given_up.values()}))
        _bury(session, wanted.job, f"{len(plan.given_up)} instances not committed: {causes}", now)
    else:
        finish(session, wanted.job, now)


def _try_later(
    session: Session, wanted: Errand, row: CommitmentRow, reason: str, back_off: BackOff, now: float
) -> None:
    """Back-off like a delivery's; audited when it begins, not at every try."""
    before = session.scalar(select(JobRow.error).where(JobRow.id == wanted.job.id))
    retry_at = now + back_off.delay(wanted.job.attempt, random.random())
    if not before:
        _audit(session, Event.COMMITMENT_FAILED, wanted, row, reason=reason, retry_at=retry_at)
    retry(session, wanted.job, reason, retry_at)


def _bury(session: Session, job: Job, reason: str, now: float) -> None:
    bury(session, job, reason, now)
    try:
        facts = job_subject(session, job.payload)
    except (KeyError, TypeError, ValueError):
        facts = {}
    append(session, Event.DEAD_LETTER, {**facts, "job": job.id, "kind": COMMIT, "reason": reason})


def _audit(session: Session, event: Event, wanted: Errand, row: CommitmentRow, **facts: Any) -> None:
    body = {**subject(session, wanted.assignment_id), "peer": wanted.destination, "job": wanted.job.id}
    body |= {"TransactionUID": row.TransactionUID, "counts": {"asked": len(row.instances)}}
    append(session, event, {**body, **facts})
