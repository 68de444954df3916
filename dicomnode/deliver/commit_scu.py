"""Storage Commitment SCU: N-ACTION, and N-EVENT-REPORT on the same Association if it comes soon (PS3.4 annex J)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.presentation import build_context

from dicomnode.config.peers import Peer
from dicomnode.deliver.association import SendLimits, association
from dicomnode.dicom.commitment import PUSH_MODEL_INSTANCE, REQUEST_ACTION, is_accepted, request_dataset
from dicomnode.dicom.sop_classes import STORAGE_COMMITMENT_PUSH
from dicomnode.dicom.transfer_syntaxes import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from dicomnode.errors import Transient

LINGER_S = 3.0
REPLY_S = 5.0
_LOOK_S = 0.1


class Ear:
    """Hears N-EVENT-REPORTs on one Association. ``on_report``: takes the event, returns the status to answer.

    ``is_answered``: has the report come by another Association meanwhile?
    """

    def __init__(self, on_report: Callable[[Any], int], is_answered: Callable[[], bool]) -> None:
        self._on_report, self._is_answered = on_report, is_answered
        self._heard, self._replied = threading.Event(), threading.Event()

    def attach(self, opened: Association) -> None:
        """Listen on ``opened``."""
        opened.bind(evt.EVT_N_EVENT_REPORT, self._report)
        opened.bind(evt.EVT_PDU_SENT, self._sent)

    def linger(self, opened: Association, seconds: float) -> None:
        """Wait for a report, ``seconds`` at most, and until our answer to it has left."""
        until = time.monotonic() + seconds
        while opened.is_established and not self._heard.wait(_LOOK_S) and time.monotonic() < until:
            if self._is_answered() and not self._heard.is_set():
                return
        if self._heard.is_set() and opened.is_established:
            self._replied.wait(REPLY_S)

    def _report(self, event: Any) -> tuple[int, None]:
        self._heard.set()
        return self._on_report(event), None

    def _sent(self, event: Any) -> None:
        """The first message after the report is our answer to it: pynetdicom would release before it has left."""
        if self._heard.is_set() and isinstance(event.pdu, P_DATA_TF):
            self._replied.set()


def request_commitment(
    peer: Peer,
    calling_ae: str,
    transaction: str,
    instances: Iterable[tuple[str, str]],
    ear: Ear,
    limits: SendLimits,
    linger_s: float = LINGER_S,
) -> int | None:
    """Ask ``peer`` to commit ``instances``, (SOP Class UID, SOP Instance UID); return the N-ACTION status.

    None when there was no response. Raises Transient when there is no Association, and NothingAccepted.
    """
    syntaxes = [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN]
    with association(peer, calling_ae, [build_context(STORAGE_COMMITMENT_PUSH, syntaxes)], limits) as opened:
        ear.attach(opened)
        try:
            answer, _ = opened.send_n_action(
                request_dataset(transaction, instances), REQUEST_ACTION, STORAGE_COMMITMENT_PUSH, PUSH_MODEL_INSTANCE
            )
        except RuntimeError as error:
            raise Transient("the peer aborted the association") from error
        status = answer.get("Status")
        if is_accepted(status):
            ear.linger(opened, linger_s)
        return None if status is None else int(status)
