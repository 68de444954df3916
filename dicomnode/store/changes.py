"""A cheap signal that the database has changed, so that nobody who waits for a job has to sleep out his pause.

``PRAGMA data_version`` of a connection changes when any other connection, of this process or another, has committed; to
ask for it reads a few bytes of shared memory. So no process has to know who waits for what, and a signal that is
missed costs one pause, as before.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time

from dicomnode.store.engine import Store

POLL_S = 0.01
"""How often a waiting worker asks; about 20 microseconds each."""
REST_S = 0.02
"""The least pause between two looks for work: while a scanner sends, every moment brings a commit."""


class Changes:
    """What has been committed since the last ``look``. For one thread, but for ``poke``."""

    def __init__(self, store: Store) -> None:
        self._path = store.path
        self._connection: sqlite3.Connection | None = None
        self._version: int | None = None
        self._poked = threading.Event()

    def look(self) -> bool:
        """Whether anybody committed, or poked, since the last look; True at the first one.

        False while the database does not answer: whoever waits has his own limit.
        """
        poked = self._poked.is_set()
        self._poked.clear()
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    self._path, isolation_level=None, check_same_thread=False, timeout=0.1
                )
            version = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            self.close()
            return poked
        changed, self._version = version != self._version, version
        return changed or poked

    def poke(self) -> None:
        """Something that is not in the database has changed; from any thread."""
        self._poked.set()

    def wait(self, stop: threading.Event, at_most_s: float) -> None:
        """Return when something was committed since the last look, when ``stop`` is set, or after ``at_most_s``."""
        until = time.monotonic() + at_most_s
        stop.wait(min(REST_S, at_most_s))
        while not stop.is_set() and time.monotonic() < until and not self.look():
            stop.wait(POLL_S)

    def close(self) -> None:
        """Close the connection; a later look opens it again."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = self._version = None
