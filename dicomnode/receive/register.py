"""The open Associations of this process and their rows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from dicomnode.errors import DicomNodeError, place
from dicomnode.receive.admission import CONGESTION, Admission, Admitted, Rejection, Request
from dicomnode.receive.alerts import Alerts
from dicomnode.receive.associations import counts, ended, opened
from dicomnode.receive.restraint import Restraint
from dicomnode.receive.tally import End, OpenAssociation
from dicomnode.store.engine import Store

_log = logging.getLogger(__name__)


class Register:
    """Admits and ends Associations. Every method may be called from any thread.

    Limits hold for all processes of the node together: what is open is counted in the transaction that opens one more.
    """

    def __init__(self, admission: Admission, store: Store, clock: Callable[[], float], owner: str = "") -> None:
        self._admission, self._store, self._clock, self._owner = admission, store, clock, owner
        self._alerts, self._restraint = Alerts(store, clock), Restraint()
        self._open: set[OpenAssociation] = set()
        self._closed = False
        self._lock = threading.Lock()

    def admit(self, request: Request) -> OpenAssociation | Rejection:
        """Open the Association, or return why not. Without a row there is no Association."""
        if self._closed:
            return CONGESTION
        try:
            return self._admit(request)
        except Exception as error:  # noqa: BLE001 - process edge: whatever goes wrong, nobody gets in by it
            _log.error("association refused", extra={"exception": type(error).__name__, "at": place(error)})
            return CONGESTION

    def _admit(self, request: Request) -> OpenAssociation | Rejection:
        verdict = self._admission.judge(request)
        if isinstance(verdict, Admitted):
            verdict, number = self._open_row(request, verdict)
        if isinstance(verdict, Rejection):
            _log.warning("association rejected", extra={"reason": verdict.reason, "address": request.address})
            self._alert(request, verdict)
            return verdict
        known = OpenAssociation(number, request, verdict.peer)
        known.may_store, known.may_report = verdict.may_store, verdict.may_report
        with self._lock:
            self._open.add(known)
        return known

    def _alert(self, request: Request, verdict: Rejection) -> None:
        about = {
            "reason": verdict.reason,
            "CallingAETitle": request.CallingAETitle,
            "CalledAETitle": request.CalledAETitle,
            "address": request.address,
        }
        self._alerts.tell_within(self._restraint, about)

    def _open_row(self, request: Request, admitted: Admitted) -> tuple[Admitted | Rejection, int]:
        with self._store.write() as session:
            crowded = self._admission.crowded(*counts(session, admitted.peer, request.address))
            if crowded is not None:
                return crowded, 0
            return admitted, opened(session, request, admitted.peer, self._clock(), self._owner)

    def end(self, known: OpenAssociation, end: End) -> None:
        """Write the end of an Association, once; ``reap`` tries again while the database is not available."""
        with known.lock:
            known.ended = known.ended or end
            with self._lock:
                if known not in self._open:
                    return
            try:
                with self._store.write() as session:
                    ended(session, known, known.ended, self._clock())
            except DicomNodeError as error:
                _log.warning("end of association not recorded", extra={"association": known.id, "error": str(error)})
                return
            with self._lock:
                self._open.discard(known)

    def reap(self) -> None:
        """End what could not be recorded before."""
        for known in self.open:
            if known.ended is not None:
                self.end(known, known.ended)

    @property
    def open(self) -> Iterable[OpenAssociation]:
        """Those that are open now."""
        with self._lock:
            return tuple(self._open)

    def quiet_for(self, seconds: float) -> bool:
        """No open Association has stored anything for so long."""
        return all(known.quiet_for(seconds) for known in self.open)

    def close(self) -> None:
        """Admit nobody any more."""
        self._closed = True
