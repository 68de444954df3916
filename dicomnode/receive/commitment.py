"""Reports of storage commitment that come on an Association of their own (PS3.4 J.3.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pynetdicom import _config

from dicomnode.dicom.commitment import EventReport, EventStatus, read_event_report
from dicomnode.errors import Refusal, Transient
from dicomnode.jobs import rouse
from dicomnode.receive.admission import Admission
from dicomnode.receive.alerts import Alerts
from dicomnode.receive.tally import OpenAssociation
from dicomnode.store.commitments import COMMIT, job_of, take_report
from dicomnode.store.engine import Store

_log = logging.getLogger(__name__)


def silence_library() -> None:
    """Take pynetdicom's own log handler off, whose lines hold what peers sent. The process-wide option of this room."""
    _config.LOG_HANDLER_LEVEL = "none"


class CommitmentReports:
    """Takes reports and wakes the jobs that wait for them. One object serves every Association."""

    def __init__(self, admission: Admission, store: Store, clock: Callable[[], float]) -> None:
        self._admission, self._store, self._clock = admission, store, clock
        self._alerts = Alerts(store, clock)

    def take(self, association: OpenAssociation, asked: EventReport) -> int:
        """Keep the report in ``asked`` and return the status to answer.

        0x0000 only after it is durable. 0x0115: it cannot be understood, or its transaction is unknown or was asked
        of another peer (PS3.7 10.1.1.1.8), which is a Security Alert. 0x0213: database, to be reported again.
        """
        try:
            report = read_event_report(asked)
            with self._store.write() as session:
                row = take_report(session, report, lambda name: self._is_from(association, name), self._clock())
                if row.state == "answered":
                    rouse(session, COMMIT, *job_of(row), self._clock())
        except Refusal as refusal:
            self._alert(association, refusal)
            return refusal.status
        except Transient as error:
            _log.warning("report not taken", extra={"association": association.id, "error": str(error)})
            return EventStatus.RESOURCE_LIMITATION
        return EventStatus.SUCCESS

    def _is_from(self, association: OpenAssociation, name: str) -> bool:
        return self._admission.speaks_for(name, association.request)

    def _alert(self, association: OpenAssociation, refusal: Refusal) -> None:
        body = {
            "reason": str(refusal),
            "association": association.id,
            "peer": association.peer,
            "CallingAETitle": association.CallingAETitle,
            "address": association.address,
            "status": f"0x{refusal.status:04X}",
        }
        _log.warning("report refused", extra={"association": association.id, "reason": str(refusal)})
        self._alerts.tell(body)
