"""Keeps a lease while its job is being done."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable

from dicomnode.errors import LeaseLost, Transient
from dicomnode.jobs.leases import Job, extend
from dicomnode.store.engine import Store

_log = logging.getLogger(__name__)


class Heartbeat:
    """Extends the lease of ``job`` every third of ``lease_s`` seconds; ``lost`` is set when it is no longer ours.

    With ``limit_s`` it ends the process when the job takes longer: a decoder or a plugin that never returns cannot be
    stopped from inside. The node then starts a fresh worker and counts a crash against the job.
    """

    def __init__(
        self, store: Store, job: Job, clock: Callable[[], float], lease_s: float, limit_s: float = math.inf
    ) -> None:
        self._store, self._job, self._clock, self._lease_s = store, job, clock, lease_s
        self._until = time.monotonic() + limit_s
        self._done = threading.Event()
        self.lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease of job {job.id}", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._done.wait(self._lease_s / 3):
            if time.monotonic() > self._until:
                _log.error("the job takes too long, its worker ends", extra={"job": self._job.id})
                os._exit(1)
            try:
                with self._store.write() as session:
                    extend(session, self._job, self._clock(), self._lease_s)
            except LeaseLost:
                self.lost.set()
                return
            except Transient as error:
                _log.warning("heartbeat missed", extra={"job": self._job.id, "error": str(error)})
