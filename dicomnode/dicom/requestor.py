"""AEs that leave no socket open: one that opens Associations, one that waits for them."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from enum import Enum
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket, RequestHandler

from dicomnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

MAX_PDU_BYTES = 1024 * 1024
"""Of what a peer may send on an Association that we opened: answers, of some hundred bytes."""
_LOOK_S = 0.05
_DATA_TRANSFER = "Sta6"


class _Socket(AssociationSocket):
    """pynetdicom 3.0 leaves a socket open that cannot be shut down: no connection, or one that the peer has reset."""

    def _shutdown_socket(self) -> None:
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()


class _Loan(Enum):
    NONE, ASKED, REFUSED, LENT = range(4)


class LentSocket(_Socket):
    """One whose connection can be lent out while an Association is established and in peace.

    Its reactor stands still meanwhile, in ``ready``: it neither reads nor writes, runs no timer and closes nothing, so
    that one thread has the connection at a time, which TLS needs. Whoever has it gives it back before he asks the
    Association for anything, its release included, with what he has read and that is for the Association to understand.
    """

    def __init__(self, assoc: Association, address: AddressInformation) -> None:
        self._state, self._changed = _Loan.NONE, threading.Condition()
        self._unread = bytearray()
        super().__init__(assoc, address=address)

    def lend(self, within_s: float) -> socket.socket | None:
        """The connection; None when the Association is ending, or its reactor is busy for ``within_s`` seconds."""
        until = time.monotonic() + within_s
        with self._changed:
            self._state = _Loan.ASKED
            while self._state is _Loan.ASKED and self.assoc.dul.is_alive() and time.monotonic() < until:
                self._changed.wait(_LOOK_S)
            if self._state is _Loan.LENT:
                return self.socket
            self._state = _Loan.NONE
            return None

    def give_back(self, unread: bytes = b"") -> None:
        """``unread``: what was read, from the begin of a PDU, and is now read again."""
        with self._changed:
            self._unread += unread
            self._state = _Loan.NONE
            self._changed.notify_all()

    @property
    def ready(self) -> bool:
        """As AssociationSocket.ready. The reactor asks before it reads, and nobody else."""
        with self._changed:
            if self._state is _Loan.ASKED:
                self._state = _Loan.LENT if self._is_at_peace() else _Loan.REFUSED
                self._changed.notify_all()
            if self._state is _Loan.LENT:
                self._changed.wait_for(lambda: self._state is not _Loan.LENT)
                return False
        return bool(self._unread) or super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """As AssociationSocket.recv. Raises OSError, also when a PDU claims more than any answer has."""
        if nr_bytes > MAX_PDU_BYTES:
            raise ConnectionAbortedError("a PDU that is too long")
        known = self._unread[:nr_bytes]
        del self._unread[:nr_bytes]
        return known + super().recv(nr_bytes - len(known))

    def _is_at_peace(self) -> bool:
        """Data transfer (PS3.8 9.2, Sta6), with nothing that waits to be done."""
        dul = self.assoc.dul
        is_idle = dul.event_queue.empty() and dul.to_provider_queue.empty() and not self._unread
        return is_idle and dul.state_machine.current_state == _DATA_TRANSFER and self.socket is not None


class Requestor(AE):
    """An AE for Associations that we open."""

    def __init__(self, calling_ae: str) -> None:
        super().__init__(ae_title=calling_ae)
        self.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.implementation_version_name = IMPLEMENTATION_VERSION_NAME

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> AssociationSocket:
        made = LentSocket(assoc, address)
        made.tls_args = tls_args
        return made


class _Handler(RequestHandler):
    def _create_association(self) -> Association:
        made = super()._create_association()
        # The library offers no other way: a second AssociationSocket would tell of the connection twice.
        made.dul.socket.__class__ = _Socket
        return made


class Acceptor(AE):
    """An AE for Associations that others open, of the demo's archive and of those in tests; the node has its own."""

    def make_server(self, *arguments: Any, **options: Any) -> Any:
        """As AE.make_server. Raises ValueError, OSError as that does."""
        return super().make_server(*arguments, **{"request_handler": _Handler, **options})
