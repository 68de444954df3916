"""The node clock in a running node: taken up at the start, and watched for changes of the machine's clock."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.errors import Transient
from dicomnode.store.clock import TOLERANCE_S, NodeClock, begin
from dicomnode.store.engine import Store

LOOK_S = 1.0
JUMP_S = 1.0
_log = logging.getLogger(__name__)


def take_up_clock(store: Store, roles: Collection[str]) -> NodeClock:
    """The clock for the processes of ``roles``; audited when rows of the last run lie ahead of it.

    Call it with the locks of ``roles`` held and before any of their processes runs. Raises Transient.
    """
    with store.write() as session:
        clock, ahead = begin(session, roles)
        if ahead > TOLERANCE_S:
            append(session, Event.CLOCK_CHANGED, {"by_s": -round(ahead, 3), "while": "the node was stopped"})
    if ahead > TOLERANCE_S:
        _log.warning("the clock was set back while the node was stopped", extra={"by_s": round(ahead, 1)})
    return clock


class ClockWatch:
    """A thread that notices when the machine's clock jumps; the node's own goes on as it was.

    ``jumped`` is called after each jump, with the seconds by which the machine's clock is ahead now. A jump beyond
    ``TOLERANCE_S`` is audited: times of audit rows are the machine's.
    """

    def __init__(self, clock: NodeClock, store: Store, jumped: Callable[[], None]) -> None:
        self._clock, self._store, self._jumped = clock, store, jumped
        self._seen = clock.machine_ahead_s()
        self._told = self._seen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="clock", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(LOOK_S)

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Compare the clocks once."""
        ahead = self._clock.machine_ahead_s()
        if abs(ahead - self._seen) > JUMP_S:
            self._seen = ahead
            self._jumped()
        if abs(ahead - self._told) > TOLERANCE_S:
            self._tell(ahead)

    def _tell(self, ahead: float) -> None:
        by = round(ahead - self._told, 3)
        _log.warning("the machine's clock was changed", extra={"by_s": by, "ahead_of_node_s": round(ahead, 1)})
        body = {"by_s": by, "machine_ahead_of_node_s": round(ahead, 3), "while": "the node was running"}
        try:
            with self._store.write() as session:
                append(session, Event.CLOCK_CHANGED, body)
        except Transient as error:
            _log.error("not audited, tried again", extra={"error": str(error)})
            return
        self._told = ahead
