"""The open Associations of this process and their rows."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

from pynetdicom.association import Association

from dicomnode.errors import DicomNodeError
from dicomnode.receive.admission import CONGESTION, Admission, Rejection, Request
from dicomnode.receive.associations import ended, opened, rejected
from dicomnode.receive.tally import End, OpenAssociation
from dicomnode.store.engine import Store

_log = logging.getLogger(__name__)


class Register:
    """Admits, finds and ends Associations. Every method may be called from any thread."""

    def __init__(self, admission: Admission, store: Store, clock: Callable[[], float]) -> None:
        self._admission, self._store, self._clock = admission, store, clock
        self._open: dict[Association, OpenAssociation] = {}
        self._admitting = 0
        self._closed = False
        self._lock = threading.Lock()

    def admit(self, association: Association, request: Request) -> Rejection | None:
        """Open the Association, or return why not. Without a row there is no Association."""
        with self._lock:
            n_open = len(self._open) + self._admitting
            closed = self._closed
            self._admitting += 1
        try:
            return CONGESTION if closed else self._admit(association, request, n_open)
        except Exception:  # noqa: BLE001 - process edge: pynetdicom would swallow the error and accept the peer
            _log.exception("association refused")
            return CONGESTION
        finally:
            with self._lock:
                self._admitting -= 1

    def _admit(self, association: Association, request: Request, n_open: int) -> Rejection | None:
        verdict, now = self._admission.judge(request, n_open), self._clock()
        if isinstance(verdict, Rejection):
            _log.warning("association rejected", extra={"reason": verdict.reason, "address": request.address})
            with contextlib.suppress(DicomNodeError), self._store.write() as session:
                rejected(session, request, verdict, now)
            return verdict
        with self._store.write() as session:
            number = opened(session, request, verdict.peer, now)
        known = OpenAssociation(number, request.CallingAETitle, verdict.peer, request.address)
        known.may_store, known.may_report = verdict.may_store, verdict.may_report
        with self._lock:
            self._open[association] = known
        return None

    def find(self, association: Association) -> OpenAssociation | None:
        """The open Association of this pynetdicom object, None when it has ended."""
        with self._lock:
            return self._open.get(association)

    def end(self, association: Association, end: End) -> None:
        """Write the end of an Association, once; ``reap`` tries again while the database is not available."""
        known = self.find(association)
        if known is None:
            return
        with known.lock:
            known.ended = known.ended or end
            if self.find(association) is None:
                return
            try:
                with self._store.write() as session:
                    ended(session, known, known.ended, self._clock())
            except DicomNodeError as error:
                _log.warning("end of association not recorded", extra={"association": known.id, "error": str(error)})
                return
            with self._lock:
                self._open.pop(association, None)

    def reap(self) -> None:
        """End what ended without an event, and what could not be recorded before."""
        with self._lock:
            over = [(key, known) for key, known in self._open.items() if known.ended or not key.is_alive()]
        for key, known in over:
            self.end(key, known.ended or "aborted")

    def quiet_for(self, seconds: float) -> bool:
        """No open Association has stored anything for so long."""
        with self._lock:
            return all(known.quiet_for(seconds) for known in self._open.values())

    def close(self) -> None:
        """Admit nobody any more."""
        with self._lock:
            self._closed = True

    def cut_off(self, seconds: float) -> None:
        """Abort every open Association as lost; after ``seconds`` close the sockets of peers that do not answer."""
        with self._lock:
            remaining = list(self._open)
        for association in remaining:
            self.end(association, "lost")
            threading.Thread(target=association.abort, name="abort", daemon=True).start()
        deadline = time.monotonic() + seconds
        for association in remaining:
            association.join(max(0.0, deadline - time.monotonic()))
            if association.is_alive() and association.dul.socket is not None:
                association.dul.socket.close()
