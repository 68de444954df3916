"""The loop of a worker: look, claim, do, rest."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection

from dicomnode.errors import Transient
from dicomnode.jobs.leases import Job, claim, waiting
from dicomnode.store.changes import Changes
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


def run_until(stop: threading.Event, step: Callable[[], bool], store: Store) -> None:
    """Call ``step`` until ``stop`` is set; when there was nothing to do, rest until ``store`` changes, or a moment."""
    changes = Changes(store)
    try:
        while not stop.is_set():
            changes.look()
            try:
                busy = step()
            except Transient as error:
                _log.warning("database not available", extra={"error": str(error)})
                busy = False
            if not busy:
                changes.wait(stop, IDLE_S)
    finally:
        changes.close()
