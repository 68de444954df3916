"""A Storage SCU on a bare socket (PS3.7, PS3.8): sends data sets as bytes, whatever they hold, and costs little.

Nothing of pynetdicom, pydicom or the node is in it, so that a fault of theirs cannot hide one of the receiver's.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
IMPLEMENTATION = b"2.25.338273945551836"
SUCCESS = 0x0000
_COMMAND, _LAST = 1, 2
_REPLY_LIMIT = 1 << 20
"""No honest answer to a C-STORE is longer."""


class Refused(Exception):
    """The peer took no association (A-ASSOCIATE-RJ), or none of its contexts."""


class Ended(Exception):
    """The peer aborted or closed the association."""


@dataclass(frozen=True, slots=True)
class Context:
    """One Presentation Context to propose: a SOP Class in one transfer syntax."""

    sop_class: str
    transfer_syntax: str


@dataclass(slots=True)
class Message:
    """One C-STORE request as it goes over the wire, every PDU of it; ``spots``: where each named text stands."""

    wire: bytearray
    spots: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def put(self, name: str, text: str) -> None:
        """Write another text of the same length over each place of ``name``."""
        for spot in self.spots[name]:
            self.wire[spot : spot + len(text)] = text.encode("ascii")


class RawAssociation:
    """An association to a Storage SCP on this machine. Raises Refused, Ended, TimeoutError and other OSError."""

    def __init__(
        self,
        port: int,
        called: str,
        calling: str,
        contexts: Iterable[Context],
        *,
        timeout_s: float = 60.0,
        secure: Callable[[socket.socket], socket.socket] = lambda plain: plain,
    ) -> None:
        """Connect and negotiate. ``accepted``: context to its id; ``max_pdu``: what the peer announced, in bytes.

        ``secure``: makes the connection one of TLS.
        """
        self._socket = secure(socket.create_connection(("127.0.0.1", port), timeout_s))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sent = 0
        try:
            proposed = dict(enumerate(contexts))
            self._socket.sendall(_associate(called, calling, proposed))
            kind, body = self._read_pdu()
            if kind != 2:
                raise Refused(f"PDU type {kind}, {tuple(body[1:4]) if kind == 3 else ''}")
            ids, self.max_pdu = _accepted(body)
            self.accepted = {context: 2 * n + 1 for n, context in proposed.items() if 2 * n + 1 in ids}
            if not self.accepted:
                raise Refused("no presentation context")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> RawAssociation:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def store(self, message: Message) -> int:
        """Send a prepared request; returns the status of its response."""
        self._socket.sendall(message.wire)
        return self.read_status()

    def echo(self, context: Context) -> int:
        """C-ECHO (PS3.7 9.1.5); returns the status."""
        content = b"".join(
            _element(element, value)
            for element, value in (
                (0x0002, context.sop_class.encode("ascii")),
                (0x0100, struct.pack("<H", 0x0030)),
                (0x0110, struct.pack("<H", 1)),
                (0x0800, struct.pack("<H", 0x0101)),
            )
        )
        command = _element(0x0000, struct.pack("<I", len(content))) + content
        self._socket.sendall(_pdv(self.accepted[context], _COMMAND | _LAST, command))
        return self.read_status()

    def store_stream(self, context: Context, instance: str, pieces: Iterable[bytes | memoryview]) -> int:
        """Send a data set piece by piece, a PDU for each at most ``max_pdu`` long; returns the status."""
        number = self.accepted[context]
        self._sent += 1
        command = _store_request(context.sop_class, instance, self._sent)
        self._socket.sendall(_pdv(number, _COMMAND | _LAST, command))
        before: bytes | memoryview | None = None
        for piece in _cut(pieces, self.piece_limit):
            if before is not None:
                self._send_piece(number, 0, before)
            before = piece
        self._send_piece(number, _LAST, before or b"")
        return self.read_status()

    @property
    def piece_limit(self) -> int:
        """Bytes of data set that fit into one P-DATA-TF PDU here."""
        return (self.max_pdu or 1 << 20) - 6

    def _send_piece(self, number: int, flags: int, piece: bytes | memoryview) -> None:
        self._socket.sendall(_pdv(number, flags, piece))

    def read_status(self) -> int:
        """The Status (0000,0900) of the next response."""
        command = bytearray()
        while True:
            kind, body = self._read_pdu()
            if kind != 4:
                raise Ended(f"PDU type {kind}")
            at = 0
            while at + 6 <= len(body):
                length, _, flags = struct.unpack_from(">IBB", body, at)
                command += body[at + 6 : at + 4 + length]
                at += 4 + length
                if flags & _LAST:
                    return _status(command)

    def release(self) -> None:
        """A-RELEASE, then close."""
        self._socket.sendall(struct.pack(">BBII", 5, 0, 4, 0))
        kind, _ = self._read_pdu()
        self._socket.close()
        if kind != 6:
            raise Ended(f"PDU type {kind} instead of A-RELEASE-RP")

    def _read_pdu(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBI", self._read(6))
        if length > _REPLY_LIMIT:
            raise Ended("an answer beyond all measure")
        return kind, self._read(length)

    def _read(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            part = self._socket.recv(length - len(parts))
            if not part:
                raise Ended("closed by the peer")
            parts += part
        return bytes(parts)


def store_message(
    context: Context, number: int, instance: str, data: bytes, max_pdu: int, texts: Iterable[str]
) -> Message:
    """Lay out one C-STORE request in PDUs of ``max_pdu``; ``texts``: what of it is to be replaced later.

    Raises ValueError when the end of a PDU cuts one of these texts in two.
    """
    wire = bytearray(_pdv(number, _COMMAND | _LAST, _store_request(context.sop_class, instance, 1)))
    limit = (max_pdu or 1 << 20) - 6
    for at in range(0, max(len(data), 1), limit):
        wire += _pdv(number, _LAST if at + limit >= len(data) else 0, data[at : at + limit])
    spots = {text: tuple(_find(wire, text.encode("ascii"))) for text in texts}
    for text, found in spots.items():
        if len(found) != data.count(text.encode("ascii")) + (text == instance):
            raise ValueError("a PDU ends in the middle of a UID")
    return Message(wire, spots)


def _find(wire: bytearray, text: bytes) -> Iterator[int]:
    at = wire.find(text)
    while at >= 0:
        yield at
        at = wire.find(text, at + 1)


def _cut(pieces: Iterable[bytes | memoryview], limit: int) -> Iterator[bytes | memoryview]:
    for piece in pieces:
        for at in range(0, len(piece), limit):
            yield piece[at : at + limit]


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def _associate(called: str, calling: str, contexts: dict[int, Context]) -> bytes:
    items = _item(0x10, APPLICATION_CONTEXT)
    for number, context in contexts.items():
        names = _item(0x30, context.sop_class.encode("ascii")) + _item(0x40, context.transfer_syntax.encode("ascii"))
        items += _item(0x20, bytes([2 * number + 1, 0, 0, 0]) + names)
    items += _item(0x50, _item(0x51, struct.pack(">I", 16384)) + _item(0x52, IMPLEMENTATION))
    titles = called.encode("ascii").ljust(16) + calling.encode("ascii").ljust(16)
    body = struct.pack(">HH", 1, 0) + titles + bytes(32) + items
    return struct.pack(">BBI", 1, 0, len(body)) + body


def _accepted(body: bytes) -> tuple[set[int], int]:
    """The ids of accepted contexts and the peer's maximum length (0: none), out of an A-ASSOCIATE-AC."""
    ids, longest, at = set(), 0, 68
    while at + 4 <= len(body):
        kind, _, length = struct.unpack_from(">BBH", body, at)
        content = body[at + 4 : at + 4 + length]
        if kind == 0x21 and content[2] == 0:
            ids.add(content[0])
        if kind == 0x50:
            inner = 0
            while inner + 4 <= len(content):
                what, _, size = struct.unpack_from(">BBH", content, inner)
                if what == 0x51:
                    longest = struct.unpack_from(">I", content, inner + 4)[0]
                inner += 4 + size
        at += 4 + length
    return ids, longest


def _pdv(number: int, flags: int, content: bytes | memoryview) -> bytes:
    return b"".join((struct.pack(">BBIIBB", 4, 0, len(content) + 6, len(content) + 2, number, flags), content))


def _element(element: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, element, len(value)) + value


def _store_request(sop_class: str, instance: str, message_id: int) -> bytes:
    content = (
        _element(0x0002, sop_class.encode("ascii"))
        + _element(0x0100, struct.pack("<H", 0x0001))
        + _element(0x0110, struct.pack("<H", message_id % 0xFFFF or 1))
        + _element(0x0700, struct.pack("<H", 0))
        + _element(0x0800, struct.pack("<H", 0))
        + _element(0x1000, instance.encode("latin-1"))
    )
    return _element(0x0000, struct.pack("<I", len(content))) + content


def _status(command: bytes | bytearray) -> int:
    at = 0
    while at + 8 <= len(command):
        group, element, length = struct.unpack_from("<HHI", command, at)
        if (group, element) == (0, 0x0900):
            return int(struct.unpack_from("<H", command, at + 8)[0])
        at += 8 + length
    raise Ended("a response without a status")
