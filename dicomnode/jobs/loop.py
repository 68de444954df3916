"""The loop of a worker: look, claim, do, rest."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection

from dicomnode.errors import Transient
from dicomnode.jobs.leases import Job, claim, waiting
from dicomnode.store.engine import Store

IDLE_S = 0.1
_log = logging.getLogger(__name__)


def take(store: Store, kinds: Collection[str], owner: str, now: float, lease_s: float) -> Job | None:
    """Claim a job if there is one; an idle look takes no write lock. Raises Transient."""
    with store.read() as session:
        if not waiting(session, kinds, now):
            return None
    with store.write() as session:
        return claim(session, kinds, owner, now, lease_s)


def run_until(stop: threading.Event, step: Callable[[], bool]) -> None:
    """Call ``step`` until ``stop`` is set; rest a moment when it had nothing to do or the database did not answer."""
    while not stop.is_set():
        try:
            busy = step()
        except Transient as error:
            _log.warning("database not available", extra={"error": str(error)})
            busy = False
        if not busy:
            stop.wait(IDLE_S)
