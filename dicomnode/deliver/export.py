"""Research export: the images of a Series go outside, de-identified.

What cannot be de-identified beyond doubt is held back, and the job ends as a dead letter that says so. An identified
file is never sent: this module knows only the files that the gate has written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config, Destination
from dicomnode.deid.leaving import Gate
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.leaving import (
    Image,
    Prepared,
    Sent,
    actions_of,
    held_in_words,
    images_of,
    outgoing,
    prepare,
    require_all,
    send,
    subject_of_series,
)
from dicomnode.errors import LeaseLost, Permanent
from dicomnode.jobs import Heartbeat, Job, finish, hold
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from dicomnode.store.tables import JobRow

AT_ONCE = 32
"""Images that lie de-identified on the disk at a time."""


class ExportErrand:
    """``export`` jobs: one Series to one peer."""

    def __init__(
        self,
        config: Config,
        store: Store,
        spool: Spool,
        gate: Gate,
        clock: Callable[[], float] = time.time,
        *,
        limits: SendLimits = SendLimits(),  # noqa: B008 - frozen
    ) -> None:
        self._config, self._store, self._spool, self._gate = config, store, spool, gate
        self._clock, self._limits = clock, limits

    def do(self, job: Job, heart: Heartbeat) -> None:
        """See ``Errand``. Images that the peer has taken are not sent again by a later attempt."""
        peer = self._peer(job)
        with self._store.read() as session:
            images = images_of(session, self._spool, int(job.payload["series_id"]))
        if not images:
            raise Permanent("no image of the series is stored any more")
        done = set(job.payload.get("sent", ()))
        waiting = [image for image in images if image.id not in done]
        failed: list[str] = []
        for start in range(0, len(waiting), AT_ONCE):
            prepared, sent = self._part(peer, waiting[start : start + AT_ONCE])
            if heart.lost.is_set():
                raise LeaseLost(f"job {job.id}")
            done |= {one.image.id for one in sent if one.answer.accepted}
            self._record(job, peer, prepared, sent, sorted(done))
            failed += [reason for _, reason in prepared.held]
            failed += [f"refused: {one.answer.reason}" for one in sent if one.refused]
            require_all(prepared, sent)
        if failed:
            raise Permanent(held_in_words(failed, len(images)))
        with self._store.write() as session:
            finish(session, job, self._clock())

    def given_up(self, session: Session, job: Job, reason: str, now: float) -> dict[str, Any]:  # noqa: ARG002
        """See ``Errand``."""
        facts = subject_of_series(session, int(job.payload["series_id"]))
        return {**facts, "peer": job.payload["destination"], "export": job.payload.get("export", "")}

    def _peer(self, job: Job) -> Destination:
        peer = self._config.peer_named(str(job.payload["destination"]))
        if peer is None or peer.deid is None:
            raise Permanent("no peer of this name with deid is configured")
        return peer

    def _part(self, peer: Destination, images: Sequence[Image]) -> tuple[Prepared, list[Sent]]:
        with outgoing(self._spool) as folder:
            prepared = prepare(self._gate, peer.deid or "", images, folder)
            return prepared, list(send(peer, self._config.node.ae_title, prepared.ready, self._limits))

    def _record(self, job: Job, peer: Destination, prepared: Prepared, sent: Sequence[Sent], done: list[int]) -> None:
        """What is there now, in one transaction with its audit rows. Raises LeaseLost."""
        with self._store.write() as session:
            hold(session, job)
            row = session.get_one(JobRow, job.id)
            row.payload = {**row.payload, "sent": done}
            facts = {**self.given_up(session, job, "", 0.0), "job": job.id, **self._gate.facts(peer.deid or "")}
            there = [one for one in sent if one.answer.accepted]
            if there:
                counts = {"actions": actions_of(one.leaving for one in there)}
                append(session, Event.EXPORT, {**facts, **counts, "instances": [one.line for one in there]})
            if prepared.held:
                append(session, Event.QUARANTINE, {**facts, "instances": prepared.held_lines})
