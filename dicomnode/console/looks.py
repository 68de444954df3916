"""Who looked at the console: one audit row for each address and page an hour, for pages reload by themselves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.errors import Transient
from dicomnode.store.engine import Store

AGAIN_S = 3600.0
MOST = 1000
"""Addresses and pages that are remembered; with more, all are forgotten and recorded again."""
_log = logging.getLogger(__name__)


class Looks:
    """Writes the rows. ``clock``: seconds since the epoch."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock
        self._seen: dict[tuple[str, str], float] = {}
        self._turn = threading.Lock()

    def record(self, address: str, page: str, user: str = "") -> None:
        """Record a look, unless this one was recorded within the hour. A database that is busy is told in the log."""
        now = self._clock()
        with self._turn:
            if now - self._seen.get((address, page), -AGAIN_S) < AGAIN_S:
                return
            if len(self._seen) >= MOST:
                self._seen.clear()
            self._seen[address, page] = now
        body = {"address": address, "page": page} | ({"user": user} if user else {})
        try:
            with self._store.write() as session:
                append(session, Event.CONSOLE_VIEWED, body, datetime.fromtimestamp(now, UTC))
        except Transient as error:
            self._seen.pop((address, page), None)
            _log.error("not audited", extra={"error": str(error)})
