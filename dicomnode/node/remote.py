"""A detector outside the trust zone: its images go there de-identified, and silence is a failure (trust D23, D24)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config, Destination
from dicomnode.config.outside import Remote
from dicomnode.deid.errands import REMOTE_JOB
from dicomnode.deid.leaving import Gate
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.leaving import (
    Prepared,
    Sent,
    actions_of,
    held_in_words,
    images_of,
    outgoing,
    prepare,
    require_all,
    send,
)
from dicomnode.deliver.ledger import subject
from dicomnode.detect.status_job import announce
from dicomnode.detectors.contract import Outcome
from dicomnode.errors import Permanent, Transient
from dicomnode.jobs import Heartbeat, Job, finish, hold, retry
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssignmentRow, JobRow, SeriesRow

RETRY_S = 30.0
"""Seconds until a detector that could not be reached is tried again."""


class RemoteErrand:
    """``remote`` jobs: send the images of one Assignment, then wait for its result until the time is over."""

    def __init__(
        self, config: Config, store: Store, spool: Spool, gate: Gate, clock: Callable[[], float],
        *, limits: SendLimits = SendLimits(),  # noqa: B008 - frozen
    ) -> None:  # fmt: skip
        self._config, self._store, self._spool, self._gate = config, store, spool, gate
        self._clock, self._limits = clock, limits

    def do(self, job: Job, heart: Heartbeat) -> None:  # noqa: ARG002
        """See ``Errand``."""
        with self._store.read() as session:
            row = session.get(AssignmentRow, int(job.payload["assignment_id"]))
            if row is None:
                raise Permanent("its assignment does not exist")
            generation = session.scalar(select(SeriesRow.generation).where(SeriesRow.id == row.series_id))
        remote, peer = self._named(row.route)
        deadline = float(job.payload["since"]) + remote.timeout_s
        if row.outcome is not None:
            self._over(job)
        elif generation != row.generation:
            reason = f"generation {row.generation} was superseded by generation {generation}"
            self._over(job, Outcome.NOT_ANALYSED, reason)
        elif self._clock() >= deadline:
            what = "its images were not all taken" if job.payload["sent_at"] is None else "no result came"
            raise Permanent(f"{what} by {remote.peer} within {remote.timeout_s:g} s")
        elif job.payload["sent_at"] is None:
            self._ask(job, row, peer, deadline)
        else:
            with self._store.write() as session:
                retry(session, job, "", deadline)

    def given_up(self, session: Session, job: Job, reason: str, now: float) -> dict[str, Any]:
        """See ``Errand``: the Assignment has failed."""
        return end(session, self._config, job, Outcome.FAILED, reason, now)

    def _named(self, name: str) -> tuple[Remote, Destination]:
        for remote in self._config.deid.remote:
            peer = self._config.peer_named(remote.peer)
            if remote.name == name and peer is not None:
                return remote, peer
        raise Permanent(f"no remote named {name!r} is configured")

    def _ask(self, job: Job, row: AssignmentRow, peer: Destination, deadline: float) -> None:
        """All images or none: a result about a part of the Series would be one about another Series."""
        with self._store.read() as session:
            images = images_of(session, self._spool, row.series_id)
        with outgoing(self._spool) as folder:
            prepared = prepare(self._gate, peer.deid or "", images, folder)
            if prepared.held or not prepared.ready:
                reason = held_in_words([why for _, why in prepared.held], len(images))
                self._over(job, Outcome.NOT_ANALYSED, reason, prepared)
                return
            sent = list(send(peer, self._config.node.ae_title, prepared.ready, self._limits))
        refused = [one.answer.reason for one in sent if one.refused]
        if refused:
            raise Permanent(f"{len(refused)} of {len(images)} images refused by {peer.name}: {refused[0]}")
        try:
            require_all(prepared, sent)
        except Transient as error:
            with self._store.write() as session:
                retry(session, job, str(error), min(deadline, self._clock() + RETRY_S))
            return
        self._asked(job, peer, sent, deadline)

    def _asked(self, job: Job, peer: Destination, sent: list[Sent], deadline: float) -> None:
        with self._store.write() as session:
            hold(session, job)
            job_row = session.get_one(JobRow, job.id)
            job_row.payload = {**job_row.payload, "sent_at": self._clock()}
            session.get_one(AssignmentRow, int(job.payload["assignment_id"])).started_at = self._clock()
            facts = {
                **subject(session, int(job.payload["assignment_id"])),
                "job": job.id,
                "peer": peer.name,
                **self._gate.facts(peer.deid or ""),
            }
            counts = {"actions": actions_of(one.leaving for one in sent)}
            append(session, Event.EXPORT, {**facts, **counts, "instances": [one.line for one in sent]})
            retry(session, job, "", deadline)

    def _over(
        self, job: Job, outcome: Outcome | None = None, reason: str = "", prepared: Prepared | None = None
    ) -> None:
        now = self._clock()
        with self._store.write() as session:
            finish(session, job, now)
            if outcome is None:
                return
            facts = end(session, self._config, job, outcome, reason, now)
            append(session, Event.NOT_ANALYSED, {**facts, "reason": reason})
            if prepared is not None and prepared.held:
                append(session, Event.QUARANTINE, {**facts, "instances": prepared.held_lines})


def end(session: Session, config: Config, job: Job, outcome: Outcome, reason: str, now: float) -> dict[str, Any]:
    """Give the Assignment of a ``remote`` job its outcome, unless a result came already; returns whose it is."""
    assignment_id = int(job.payload["assignment_id"])
    row = session.get(AssignmentRow, assignment_id)
    if row is not None and row.outcome is None:
        row.outcome, row.reason, row.finished_at = outcome.value, reason, now
        announce(session, config, row, now)
    return {**subject(session, assignment_id), "job": job.id, "kind": REMOTE_JOB}


def ask_again(session: Session, job: Job, now: float) -> None:
    """A requeued ``remote`` job begins anew: its time counts from now, and every image is sent again."""
    row = session.get_one(AssignmentRow, int(job.payload["assignment_id"]))
    row.outcome, row.finished_at, row.reason = None, None, "requeued by hand"
    job_row = session.get_one(JobRow, job.id)
    job_row.payload = {**job_row.payload, "since": now, "sent_at": None}
