"""Checkpoints of the audit log on their way to every second place, none of which can hold up the node.

A place that does not answer is a security alert, once for each outage, and is tried again: the checkpoint that it gets
then proves all that the missing ones would have.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dicomnode.audit import append
from dicomnode.audit.checkpoint import Checkpoint, head_of
from dicomnode.audit.events import Event
from dicomnode.audit.place import append_line
from dicomnode.audit.signing import SigningKey
from dicomnode.audit.syslog import SyslogMessage, SyslogSender
from dicomnode.config import CheckpointFile, CheckpointSyslog, Config
from dicomnode.errors import DicomNodeError, Transient
from dicomnode.store.engine import Store

PERIOD_S = 3600.0
RETRY_S = 60.0
LIMIT_S = 5.0
"""For one attempt at one place; a file system that hangs keeps a thread, not the node."""
MSGID = "DICOMNODE-CHECKPOINT"
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Place:
    """``at``, ``size``: when, by a clock that never jumps, and of how many rows it got its last checkpoint."""

    name: str
    write: Callable[[Checkpoint], None]
    at: float | None = None
    size: int = 0
    failed_at: float | None = None
    told: bool = False
    thread: threading.Thread | None = field(default=None, repr=False)

    def is_due(self, size: int, rows: int, now: float) -> bool:
        """Is it time for a checkpoint of ``size`` rows? ``rows``: how many new ones make it so."""
        if self.failed_at is not None:
            return now - self.failed_at >= RETRY_S
        return self.at is None or now - self.at >= PERIOD_S or size - self.size >= rows


class Checkpoints:
    """The second places of one process of the node. ``seconds``: a clock that never jumps."""

    def __init__(self, config: Config, store: Store, seconds: Callable[[], float] = time.monotonic) -> None:
        """Read the key. Raises ConfigError when it cannot be used."""
        audit = config.audit
        self._key = SigningKey.load(audit.signing_key_file) if audit.signing_key_file else None
        self._store, self._seconds = store, seconds
        self._origin, self._rows = config.node.ae_title, audit.checkpoint_rows
        self._places = [_Place(place.name, _writer(place)) for place in audit.places]
        self._turn = threading.Lock()

    def tick(self) -> None:
        """Write where it is time. Raises Transient when the database is not available."""
        self._write(lambda place, size: place.is_due(size, self._rows, self._seconds()))

    def now(self) -> None:
        """Write everywhere, whatever the time. Raises Transient when the database is not available."""
        self._write(lambda _place, _size: True)

    def _write(self, wanted: Callable[[_Place, int], bool]) -> None:
        with self._turn:
            if not self._places:
                return
            with self._store.read() as session:
                head = head_of(session, self._origin)
            due = [place for place in self._places if wanted(place, head.size)]
            signed = head.signed(self._key) if due else head
            for place in due:
                self._to(place, signed)

    def _to(self, place: _Place, checkpoint: Checkpoint) -> None:
        try:
            _within(place, checkpoint)
        except Transient as error:
            place.failed_at = self._seconds()
            if not place.told:
                _log.error("no checkpoint of the audit log", extra={"place": place.name, "error": str(error)})
                place.told = self._alert(place, str(error))
        else:
            if place.failed_at is not None:
                _log.info("checkpoints of the audit log arrive again", extra={"place": place.name})
            place.at, place.size, place.failed_at, place.told = self._seconds(), checkpoint.size, None, False

    def _alert(self, place: _Place, why: str) -> bool:
        """Record the outage; returns whether that was possible."""
        body = {"reason": "checkpoint not written", "place": place.name, "error": why}
        try:
            with self._store.write() as session:
                append(session, Event.SECURITY_ALERT, body)
        except DicomNodeError as error:
            _log.error("not audited", extra={"error": str(error)})
            return False
        return True


def _within(place: _Place, checkpoint: Checkpoint) -> None:
    """Write within ``LIMIT_S``. Raises Transient when that fails, or the attempt before still hangs."""
    if place.thread is not None and place.thread.is_alive():
        raise Transient("the place does not answer")
    faults: list[Transient] = []

    def write() -> None:
        try:
            place.write(checkpoint)
        except Transient as error:
            faults.append(error)

    place.thread = threading.Thread(target=write, name="checkpoint", daemon=True)
    place.thread.start()
    place.thread.join(LIMIT_S)
    if place.thread.is_alive():
        raise Transient("the place does not answer")
    if faults:
        raise faults[0]


def _writer(place: CheckpointFile | CheckpointSyslog) -> Callable[[Checkpoint], None]:
    if isinstance(place, CheckpointFile):
        path = place.path
        return lambda checkpoint: append_line(path, checkpoint.line())
    return lambda checkpoint: _send(place, checkpoint)


def _send(place: CheckpointSyslog, checkpoint: Checkpoint) -> None:
    sender = SyslogSender(place.host, place.port, place.tls.context(), timeout_s=LIMIT_S)
    sender.send([SyslogMessage(checkpoint.line(), datetime.now(UTC), MSGID)])
