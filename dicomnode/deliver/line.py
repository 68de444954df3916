"""C-STORE with a data set that is in a file (PS3.7 9.3.1, PS3.8 9.3.5), over an Association that pynetdicom opened.

pynetdicom makes several objects and a change of threads of every PDU, and looks for answers once a millisecond. So its
connection is borrowed for the data sets: they are read into one buffer, between the headers of PDUs, and sent from
there. What the peer sends but a response goes back to pynetdicom.
"""

from __future__ import annotations

import contextlib
import io
import select
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from typing import cast

from pynetdicom.association import Association

from dicomnode.deliver.association import SendLimits
from dicomnode.dicom.command import RESPONSE, CommandField, MalformedCommand, decode_answer, store_request
from dicomnode.dicom.pdu import (
    HEADER_BYTES,
    IS_COMMAND,
    IS_LAST,
    PDV_HEADER_BYTES,
    Kind,
    MalformedPdu,
    command_pdus,
    fragments,
)
from dicomnode.dicom.requestor import LentSocket
from dicomnode.dicom.status import storage_disposition
from dicomnode.errors import Transient

BUFFER_BYTES = 256 * 1024
MAX_ANSWER_BYTES = 256 * 1024
"""Of a whole message that should be a response, which has no more than some hundred."""
LOST_S = 5.0
"""For pynetdicom to understand that the Association has ended."""
REFUSAL_S = 1.0
"""For what a peer said before it took no more of a request to be read."""
LEND_S = 20.0
"""For pynetdicom to come to the end of what it does: it may be reading a PDU that comes drop by drop."""
_LOOK_S = 0.001
_FOREIGN = tuple(bytes([kind]) for kind in Kind if kind != Kind.P_DATA)
_DATA_HEADER = struct.Struct(">BBLLBB")


class NothingSent(Transient):
    """The Association ended before the first byte of the request."""


class _Ended(Transient):
    """There will be no response. The peer may be told so."""


class _Broken(_Ended):
    """Nothing can be told any more: no connection, or a PDU that is cut off, by either side."""


class _Cut(_Broken):
    """The peer takes no more of the request. It may have said why before."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """One C-STORE request: an open file that stands at the begin of its data set, and the ``size`` bytes from there."""

    stream: io.FileIO
    size: int
    context_id: int
    message_id: int
    SOPClassUID: str
    SOPInstanceUID: str


class Line:
    """Sends one data set after the other on ``opened``; its connection is borrowed from the first one to ``close``."""

    def __init__(self, opened: Association, limits: SendLimits) -> None:
        self._opened, self._stall_s = opened, limits.stall_s
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._borrowed: socket.socket | None = None
        self._inbound = bytearray()

    def store(self, shipment: Shipment, within_s: float) -> int | None:
        """Send ``shipment`` and return the status; None when there was no response: the Association has ended then.

        A failure that came before the peer stopped taking the request counts, a Success for a part of it does not.
        ``within_s``: seconds for request and response. Raises NothingSent, and OSError or EOFError when the file cannot
        be read, which leaves the peer with half a message.
        """
        connection = self._borrow()
        deadline = time.monotonic() + within_s
        try:
            self._send(connection, shipment, deadline)
            return self._answer(connection, shipment.message_id, deadline)
        except _Cut as end:
            status = self._refusal(connection, shipment.message_id)
            self._lose(connection, end)
            return status
        except _Ended as end:
            self._lose(connection, end)
            return None

    def _refusal(self, connection: socket.socket, message_id: int) -> int | None:
        """The failure that the peer told before it took no more."""
        try:
            status = self._answer(connection, message_id, time.monotonic() + REFUSAL_S)
        except _Ended:
            return None
        return None if storage_disposition(status).accepted else status

    def close(self) -> None:
        """The connection is pynetdicom's again, until the next ``store``."""
        if self._borrowed is not None:
            with contextlib.suppress(OSError):
                self._borrowed.settimeout(self._stall_s)
            self._borrowed = None
            self._lent.give_back(bytes(self._inbound))
            self._inbound.clear()

    @property
    def _lent(self) -> LentSocket:
        return cast("LentSocket", self._opened.dul.socket)

    def _borrow(self) -> socket.socket:
        """The connection. Nothing should wait to be read there. Raises NothingSent."""
        if self._borrowed is None:
            self._borrowed = self._lent.lend(LEND_S)
        if self._borrowed is None:
            self._give_up()
            raise NothingSent
        try:
            if self._heard(self._borrowed):
                raise _Ended
        except _Ended as end:
            self._lose(self._borrowed, end)
            raise NothingSent from end
        return self._borrowed

    def _lose(self, connection: socket.socket, end: _Ended) -> None:
        """Let pynetdicom end the Association: by what the peer has said, for want of a connection, or by A-ABORT."""
        foreign = self._foreign()
        if isinstance(end, _Broken) and not foreign:
            self._inbound.clear()
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self.close()
        if foreign or isinstance(end, _Broken):
            self._give_up()
        if self._opened.is_established:
            self._opened.abort()

    def _give_up(self) -> None:
        """pynetdicom is ending the Association already, or cannot finish a PDU that does not come."""
        self._wait_for_end()
        if self._opened.is_established:
            connection = self._lent.socket
            if connection is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
            self._wait_for_end()

    def _wait_for_end(self) -> None:
        until = time.monotonic() + LOST_S
        while self._opened.is_established and time.monotonic() < until:
            time.sleep(_LOOK_S)

    def _send(self, connection: socket.socket, shipment: Shipment, deadline: float) -> None:
        """The request, at most one buffer of whole PDUs at a time."""
        max_length = self._opened.acceptor.maximum_length or 0
        request = store_request(shipment.message_id, shipment.SOPClassUID, shipment.SOPInstanceUID)
        self._write(connection, memoryview(command_pdus(shipment.context_id, request, max_length)), deadline)
        room = BUFFER_BYTES - _DATA_HEADER.size
        if max_length:
            room = min(room, max(max_length - PDV_HEADER_BYTES, 2))
        room -= room % 2
        left = shipment.size
        while True:
            if self._heard(connection) and self._foreign():
                raise _Ended
            filled, left = self._fill(shipment, room, left)
            self._write(connection, self._buffer[:filled], deadline)
            if not left:
                return

    def _fill(self, shipment: Shipment, room: int, left: int) -> tuple[int, int]:
        """Put the next PDUs of ``room`` bytes of content each into the buffer; (its bytes in use, those left to send).

        A fragment has an even number of bytes (PS3.8 annex E.1), but for the last one of a data set that has not.
        """
        filled = 0
        while True:
            count = min(room, left)
            left -= count
            begin = filled + _DATA_HEADER.size
            header = (Kind.P_DATA, 0, count + PDV_HEADER_BYTES, count + 2, shipment.context_id, 0 if left else IS_LAST)
            _DATA_HEADER.pack_into(self._buffer, filled, *header)
            filled = begin + count
            _read_into(shipment.stream, self._buffer[begin:filled])
            if not left or filled + _DATA_HEADER.size + min(room, left) > BUFFER_BYTES:
                return filled, left

    def _write(self, connection: socket.socket, rest: memoryview, deadline: float) -> None:
        while rest:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _Cut
            try:
                connection.settimeout(min(self._stall_s, left))
                rest = rest[connection.send(rest) :]
            except OSError as error:
                raise _Cut from error

    def _answer(self, connection: socket.socket, message_id: int, deadline: float) -> int:
        """The status of the response. What is no response to this request ends the Association."""
        command, taken, awaited, answer = bytearray(), 0, {IS_COMMAND}, None
        while awaited:
            pdu = self._pdu(connection, deadline)
            taken += len(pdu)
            try:
                for control, part in fragments(pdu):
                    if control & IS_COMMAND:
                        command += part
                    if control & IS_LAST:
                        awaited.discard(control & IS_COMMAND)
                    if control & IS_COMMAND and control & IS_LAST:
                        answer = decode_answer(bytes(command))
                        awaited |= {0} if answer.has_data_set else set()
            except (MalformedPdu, MalformedCommand) as error:
                raise _Ended from error
            if taken > MAX_ANSWER_BYTES:
                raise _Ended
        if answer is None or (answer.field, answer.message_id) != (RESPONSE | CommandField.C_STORE, message_id):
            raise _Ended
        return answer.status

    def _pdu(self, connection: socket.socket, deadline: float) -> bytes:
        """The content of the next PDU, which is P-DATA-TF."""
        self._receive(connection, HEADER_BYTES, deadline)
        length = int.from_bytes(self._inbound[2:HEADER_BYTES], "big")
        if self._foreign():
            raise _Ended
        if self._inbound[0] != Kind.P_DATA or length > MAX_ANSWER_BYTES:
            raise _Broken
        self._receive(connection, HEADER_BYTES + length, deadline)
        content = bytes(self._inbound[HEADER_BYTES:])
        self._inbound.clear()
        return content

    def _receive(self, connection: socket.socket, count: int, deadline: float) -> None:
        """Until ``count`` bytes are there, and no more."""
        while len(self._inbound) < count:
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                piece = connection.recv(count - len(self._inbound))
            except TimeoutError as error:
                raise (_Broken if self._inbound else _Ended) from error
            except OSError as error:
                raise _Broken from error
            if not piece:
                raise _Broken
            self._inbound += piece

    def _heard(self, connection: socket.socket) -> bool:
        """Has the peer begun to say something? Takes no more of it than the header of a PDU, and does not wait."""
        if self._inbound:
            return True
        if not _is_readable(connection):
            return False
        try:
            connection.settimeout(0.0)
            self._inbound += connection.recv(HEADER_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError as error:
            raise _Broken from error
        if not self._inbound:
            raise _Broken
        return True

    def _foreign(self) -> bool:
        """Is what the peer says a PDU of another kind than P-DATA-TF? It is for pynetdicom to understand."""
        return self._inbound[:1] in _FOREIGN


def _is_readable(connection: socket.socket) -> bool:
    if isinstance(connection, ssl.SSLSocket) and connection.pending():
        return True
    poll = select.poll()
    try:
        poll.register(connection, select.POLLIN)
    except ValueError as error:
        raise _Broken from error
    return bool(poll.poll(0))


def _read_into(stream: io.FileIO, target: memoryview) -> None:
    while target:
        count = stream.readinto(target)
        if not count:
            raise EOFError("the file is shorter than it was")
        target = target[count:]
