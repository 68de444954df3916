"""The worker for what goes outside and comes back: claims such jobs one after the other, each done by its errand."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.deliver.back_off import DAY_S, BackOff
from dicomnode.errors import LeaseLost, Permanent, Transient, place
from dicomnode.jobs import Heartbeat, Job, bury, retry, run_until, take
from dicomnode.store.engine import Store
from dicomnode.store.tables import JobRow

LEASE_S = 120.0
_log = logging.getLogger(__name__)


class Errand(Protocol):
    """How jobs of one kind are done."""

    def do(self, job: Job, heart: Heartbeat) -> None:
        """Do it and end the job. Raises Permanent, Transient or LeaseLost when it could not be done."""
        ...

    def given_up(self, session: Session, job: Job, reason: str, now: float) -> dict[str, Any]:
        """Its subject has failed, visibly; returns identifiers for the audit row. In the transaction that buries it."""
        ...


class OutsideWorker:
    """``errands``: kind of job to how it is done."""

    def __init__(
        self,
        store: Store,
        errands: Mapping[str, Errand],
        owner: str,
        clock: Callable[[], float] = time.time,
        *,
        back_off: BackOff = BackOff(),  # noqa: B008 - frozen
    ) -> None:
        self._store, self._errands, self._owner = store, errands, owner
        self._clock, self._back_off = clock, back_off

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        run_until(stop, self.step, self._store)

    def step(self) -> bool:
        """Do one job if there is one to do now; returns whether there was. Raises Transient."""
        job = take(self._store, tuple(self._errands), self._owner, self._clock(), LEASE_S)
        if job is None:
            return False
        try:
            with Heartbeat(self._store, job, self._clock, LEASE_S) as heart:
                self._errands[job.kind].do(job, heart)
        except LeaseLost:
            _log.warning("lease lost", extra={"job": job.id})
        except Permanent as error:
            self._end(job, str(error), final=True)
        except Transient as error:
            self._end(job, str(error), final=False)
        except Exception as error:  # noqa: BLE001 - process edge: whatever befalls one job, the others must go on
            self._end(job, f"internal error: {type(error).__name__} at {place(error)}", final=False)
        return True

    def _end(self, job: Job, reason: str, *, final: bool) -> None:
        _log.warning("job failed", extra={"job": job.id, "kind": job.kind, "final": final, "error": reason})
        now = self._clock()
        try:
            with self._store.write() as session:
                if now - session.get_one(JobRow, job.id).created_at >= self._back_off.give_up_after_s and not final:
                    final, reason = True, f"given up after {self._back_off.give_up_after_s / DAY_S:g} days: {reason}"
                if not final:
                    retry(session, job, reason, now + self._back_off.delay(job.attempt, random.random()))
                    return
                bury(session, job, reason, now)
                facts = self._errands[job.kind].given_up(session, job, reason, now)
                append(session, Event.DEAD_LETTER, {**facts, "job": job.id, "kind": job.kind, "reason": reason})
        except (LeaseLost, Transient) as error:
            _log.warning("job left to its lease", extra={"job": job.id, "error": str(error)})
