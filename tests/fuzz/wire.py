"""DICOM's upper layer and command sets byte by byte (PS3.8 9.3, PS3.7 6.3): nothing here checks what it sends."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from types import TracebackType

APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
VERIFICATION = b"1.2.840.10008.1.1"
COMMITMENT = b"1.2.840.10008.1.20.1"
CT_IMAGE = b"1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT, BIG, DEFLATED = (
    b"1.2.840.10008.1.2",
    b"1.2.840.10008.1.2.1",
    b"1.2.840.10008.1.2.2",
    b"1.2.840.10008.1.2.1.99",
)
REJECTED, ACCEPTED, DATA, RELEASED, ABORTED = 3, 2, 4, 6, 7
C_STORE, C_GET, C_ECHO, C_FIND, C_MOVE, N_EVENT, N_ACTION = 0x0001, 0x0010, 0x0030, 0x0020, 0x0021, 0x0100, 0x0130
NO_DATA_SET = 0x0101
RELEASE_REQUEST = struct.pack(">BBII", 5, 0, 4, 0)
ABORT = struct.pack(">BBIBBBB", 7, 0, 4, 0, 0, 0, 0)


def item(kind: int, value: bytes) -> bytes:
    """An item of a variable PDU field."""
    return struct.pack(">BBH", kind, 0, len(value)) + value


def associate_request(
    contexts: Sequence[tuple[bytes, Sequence[bytes]]],
    calling: bytes = b"FUZZ",
    called: bytes = b"NODE",
    max_length: int = 16384,
    more: bytes = b"",
) -> bytes:
    """A-ASSOCIATE-RQ; context identifiers are 1, 3, 5 …"""
    fields = item(0x10, APPLICATION_CONTEXT)
    for index, (abstract, transfers) in enumerate(contexts):
        inner = item(0x30, abstract) + b"".join(item(0x40, transfer) for transfer in transfers)
        fields += item(0x20, bytes((2 * index + 1, 0, 0, 0)) + inner)
    user = item(0x51, struct.pack(">I", max_length)) + item(0x52, b"1.2.3.4") + item(0x55, b"FUZZ") + more
    body = struct.pack(">HH", 1, 0) + called.ljust(16)[:16] + calling.ljust(16)[:16] + bytes(32)
    body += fields + item(0x50, user)
    return struct.pack(">BBI", 1, 0, len(body)) + body


def data_pdu(context: int, value: bytes, *, command: bool, last: bool = True) -> bytes:
    """P-DATA-TF with one presentation data value."""
    header = (1 if command else 0) | (2 if last else 0)
    inner = struct.pack(">IBB", len(value) + 2, context, header) + value
    return struct.pack(">BBI", 4, 0, len(inner)) + inner


def message(context: int, command: bytes, data: bytes | None = None, size: int = 8000) -> bytes:
    """A whole DIMSE message in P-DATA-TF PDUs."""
    found = data_pdu(context, command, command=True)
    if data is not None:
        pieces = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
        for index, piece in enumerate(pieces):
            found += data_pdu(context, piece, command=False, last=index == len(pieces) - 1)
    return found


def element(tag: int, value: bytes) -> bytes:
    """Implicit VR Little Endian, padded to even length."""
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def command_set(fields: dict[int, bytes]) -> bytes:
    """A command set with its group length."""
    body = b"".join(element(tag, fields[tag]) for tag in sorted(fields))
    return element(0x00000000, struct.pack("<I", len(body))) + body


def us(number: int) -> bytes:
    return struct.pack("<H", number)


def store_request(instance: bytes, sop_class: bytes = CT_IMAGE, message_id: int = 1) -> bytes:
    return command_set(
        {
            0x00000002: sop_class,
            0x00000100: us(C_STORE),
            0x00000110: us(message_id),
            0x00000700: us(2),
            0x00000800: us(1),
            0x00001000: instance,
        }
    )


def echo_request(message_id: int = 1) -> bytes:
    return command_set(
        {0x00000002: VERIFICATION, 0x00000100: us(C_ECHO), 0x00000110: us(message_id), 0x00000800: us(NO_DATA_SET)}
    )


def any_request(field: int, sop_class: bytes, *, data: bool, more: dict[int, bytes] | None = None) -> bytes:
    """A request of any kind, also of one that does not exist."""
    kind = us(1 if data else NO_DATA_SET)
    fields = {0x00000002: sop_class, 0x00000100: us(field), 0x00000110: us(1), 0x00000800: kind}
    return command_set(fields | (more or {}))


def parse_command(data: bytes) -> dict[int, bytes]:
    """Elements of a command set by tag."""
    found, position = {}, 0
    while position + 8 <= len(data):
        group, number, length = struct.unpack_from("<HHI", data, position)
        found[group << 16 | number] = data[position + 8 : position + 8 + length]
        position += 8 + length
    return found


class Peer:
    """A socket that speaks DICOM as far as it is told to."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted: dict[int, bytes] = {}

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def exactly(self, count: int) -> bytes:
        """``count`` bytes, or EOFError."""
        found = b""
        while len(found) < count:
            piece = self.socket.recv(count - len(found))
            if not piece:
                raise EOFError("the connection was closed")
            found += piece
        return found

    def pdu(self) -> tuple[int, bytes]:
        """The next PDU: type and body."""
        kind, _, length = struct.unpack(">BBI", self.exactly(6))
        return kind, self.exactly(length)

    def associate(self, contexts: Sequence[tuple[bytes, Sequence[bytes]]], **how: bytes) -> int:
        """Ask, keep the contexts that were accepted (identifier to transfer syntax), return the type of the answer."""
        self.send(associate_request(contexts, **how))
        kind, body = self.pdu()
        if kind == ACCEPTED:
            self.accepted = dict(_accepted_contexts(body))
        return kind

    def answer(self) -> tuple[int, dict[int, bytes]]:
        """The next command set that comes, with the type of the PDU that ended it; a data set is passed over."""
        value = b""
        while True:
            kind, body = self.pdu()
            if kind != DATA:
                return kind, {}
            position = 0
            while position + 6 <= len(body):
                length, _, header = struct.unpack_from(">IBB", body, position)
                if header & 1:
                    value += body[position + 6 : position + 4 + length]
                    if header & 2:
                        return kind, parse_command(value)
                position += 4 + length

    def status(self) -> int | None:
        """The status of the next answer; None when the peer ended the association instead."""
        kind, fields = self.answer()
        return struct.unpack("<H", fields[0x00000900])[0] if kind == DATA else None

    def release(self) -> int:
        self.send(RELEASE_REQUEST)
        return self.pdu()[0]


def _accepted_contexts(body: bytes) -> list[tuple[int, bytes]]:
    found, position = [], 68
    while position + 4 <= len(body):
        kind, _, length = struct.unpack_from(">BBH", body, position)
        value = body[position + 4 : position + 4 + length]
        if kind == 0x21 and value[2] == 0:
            found.append((value[0], value[8:].rstrip(b"\0")))
        position += 4 + length
    return found
