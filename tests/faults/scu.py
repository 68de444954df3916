"""A Storage SCU down to its bytes, so that a test can break off wherever it wants to and knows what was answered."""

from __future__ import annotations

import hashlib
import socket
import struct
from dataclasses import dataclass

from tests.faults.powerloss import command_values

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT_LE = "1.2.840.10008.1.2"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
_COMMAND, _LAST = 0x01, 0x02


class ConnectionLost(Exception):
    """The node closed, aborted, rejected or did not answer in time."""


@dataclass(frozen=True, slots=True)
class Image:
    """One CT slice to send. ``data``: its data set in implicit VR little endian, ``sha256``: of these bytes."""

    uid: str
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def make_image(root: str, number: int, *, series: int = 1, side: int = 32, fill: int | None = None) -> Image:
    """Slice ``number`` (from 1) of ``series`` of the Study ``root``: ``side`` x ``side`` pixels, 5 mm apart.

    ``fill``: the value of its pixels; images that differ in nothing else have the same UID and other bytes.
    """
    series_uid = f"{root}.{series}"
    uid = f"{series_uid}.{number}"
    value = number if fill is None else fill
    elements = (
        (0x0008, 0x0016, CT_IMAGE.encode()),
        (0x0008, 0x0018, uid.encode()),
        (0x0008, 0x0020, b"20260102"),
        (0x0008, 0x0050, root.rpartition(".")[2][-16:].encode()),
        (0x0008, 0x0060, b"CT"),
        (0x0008, 0x103E, b"faults"),
        (0x0010, 0x0020, b"FAULTS"),
        (0x0018, 0x0050, b"5"),
        (0x0020, 0x000D, root.encode()),
        (0x0020, 0x000E, series_uid.encode()),
        (0x0020, 0x0013, str(number).encode()),
        (0x0020, 0x0032, f"0\\0\\{number * 5}".encode()),
        (0x0020, 0x0037, b"1\\0\\0\\0\\1\\0"),
        (0x0028, 0x0002, struct.pack("<H", 1)),
        (0x0028, 0x0004, b"MONOCHROME2"),
        (0x0028, 0x0010, struct.pack("<H", side)),
        (0x0028, 0x0011, struct.pack("<H", side)),
        (0x0028, 0x0030, b"1\\1"),
        (0x0028, 0x0100, struct.pack("<H", 16)),
        (0x0028, 0x0101, struct.pack("<H", 16)),
        (0x0028, 0x0102, struct.pack("<H", 15)),
        (0x0028, 0x0103, struct.pack("<H", 0)),
        (0x0028, 0x1052, b"0"),
        (0x0028, 0x1053, b"1"),
        (0x7FE0, 0x0010, struct.pack("<H", value % 4096) * (side * side)),
    )
    return Image(uid, b"".join(_element(*element) for element in elements))


def _element(group: int, number: int, value: bytes) -> bytes:
    uid = (group, number) in ((0x0008, 0x0016), (0x0008, 0x0018), (0x0020, 0x000D), (0x0020, 0x000E))
    padded = value + (b"\0" if uid else b" ") * (len(value) % 2)
    return struct.pack("<HHL", group, number, len(padded)) + padded


class Scu:
    """One Association with the context CT Image Storage, implicit VR little endian (PS3.8 9.3). Context manager."""

    def __init__(self, port: int, *, calling: str = "SCANNER", called: str = "NODE", timeout_s: float = 60.0) -> None:
        """Associate. Raises ConnectionLost when the node does not accept, OSError when nobody listens."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.local_port = int(self._socket.getsockname()[1])
        self._message = 0
        self.sent: dict[int, Image] = {}
        """Message id to what was sent under it."""
        self._max_pdu = 16384
        try:
            self._socket.sendall(_associate(calling, called))
            kind, body = self._pdu()
            if kind != 0x02 or b"\x21\x00" not in body:
                raise ConnectionLost(f"the association was not accepted: PDU {kind}")
            self._read_max_pdu(body)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Scu:
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()

    def store(self, image: Image) -> int:
        """C-STORE; returns the status of the response. Raises ConnectionLost."""
        self.send(image)
        return self.status()

    def send(self, image: Image, *, share: float = 1.0) -> None:
        """Send the request and ``share`` of its data set, and nothing more. Raises ConnectionLost."""
        self._message = self._message % 65535 + 1
        self.sent[self._message] = image
        command = _store_request(image.uid, self._message)
        pieces = [_p_data(command, _COMMAND | _LAST)]
        step = self._max_pdu - 12
        for start in range(0, len(image.data), step):
            last = start + step >= len(image.data)
            pieces.append(_p_data(image.data[start : start + step], _LAST if last else 0))
        wire = b"".join(pieces)
        head = len(pieces[0])
        try:
            self._socket.sendall(wire[: head + int((len(wire) - head) * share)])
        except OSError as error:
            raise ConnectionLost(str(error)) from error

    def status(self) -> int:
        """The status of the next C-STORE-RSP. Raises ConnectionLost."""
        command = b""
        while True:
            kind, body = self._pdu()
            if kind != 0x04:
                raise ConnectionLost(f"PDU {kind} instead of a response")
            length = struct.unpack(">L", body[:4])[0]
            command += body[6 : 4 + length]
            if body[5] & _LAST:
                break
        values = command_values(command)
        if values.get(0x0120) != self._message:
            raise ConnectionLost("a response to another message")
        return values[0x0900]

    def release(self) -> None:
        """A-RELEASE, its answer, and the end of the connection. Raises ConnectionLost."""
        try:
            self._socket.sendall(b"\x05\0\0\0\0\x04\0\0\0\0")
        except OSError as error:
            raise ConnectionLost(str(error)) from error
        answer = self._pdu()[0]
        self._socket.close()
        if answer != 0x06:
            raise ConnectionLost("the release was not answered")

    def abort(self) -> None:
        """A-ABORT by the service user, and the end of the connection."""
        self._socket.sendall(b"\x07\0\0\0\0\x04\0\0\0\0")
        self._socket.close()

    def reset(self) -> None:
        """End the connection with a TCP reset, as a machine that lost its power does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _read_max_pdu(self, body: bytes) -> None:
        at = body.find(b"\x51\x00\x00\x04")
        if at >= 0:
            said = struct.unpack(">L", body[at + 4 : at + 8])[0]
            self._max_pdu = min(said or 1 << 20, 1 << 20)

    def _pdu(self) -> tuple[int, bytes]:
        head = self._exactly(6)
        kind, length = struct.unpack(">BxL", head)
        return kind, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            try:
                part = self._socket.recv(size - len(found))
            except OSError as error:
                raise ConnectionLost(str(error)) from error
            if not part:
                raise ConnectionLost("closed by the node")
            found += part
        return bytes(found)


def _associate(calling: str, called: str) -> bytes:
    context = b"\x01\0\0\0" + _item(0x30, CT_IMAGE.encode()) + _item(0x40, IMPLICIT_LE.encode())
    user = _item(0x51, struct.pack(">L", 1 << 20)) + _item(0x52, b"1.2.826.0.1.3680043.9.3811.3.0.4")
    body = struct.pack(">HH", 1, 0) + called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
    body += _item(0x10, APPLICATION_CONTEXT.encode()) + _item(0x20, context) + _item(0x50, user)
    return struct.pack(">BBL", 1, 0, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def _p_data(value: bytes, control: int) -> bytes:
    return struct.pack(">BBLLBB", 4, 0, len(value) + 6, len(value) + 2, 1, control) + value


def _store_request(uid: str, message: int) -> bytes:
    def text(value: str) -> bytes:
        return value.encode() + b"\0" * (len(value) % 2)

    values = (
        (0x0002, text(CT_IMAGE)),
        (0x0100, struct.pack("<H", 0x0001)),
        (0x0110, struct.pack("<H", message)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 0x0001)),
        (0x1000, text(uid)),
    )
    body = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in values)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body
