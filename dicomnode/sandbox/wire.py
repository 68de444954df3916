"""Messages between parent and child: one byte of kind, four of length, the content. Nothing in them is executed."""

from __future__ import annotations

import socket
import struct
import time
from enum import Enum

from dicomnode.errors import Permanent

_HEAD = struct.Struct(">cI")


class Kind(Enum):
    """What a message is. The content of ANSWER and CALL is JSON, of WANT a number of bytes, of the others text."""

    READY = b"y"
    CALL = b"c"
    WANT = b"w"
    ANSWER = b"a"
    PERMANENT = b"p"
    TRANSIENT = b"t"
    MEMORY = b"m"
    BROKEN = b"b"


class Garbled(Permanent):
    """The other side does not keep to the protocol."""


class Late(Permanent):
    """The time to answer is over."""


def send(link: socket.socket, kind: Kind, content: bytes = b"", lent: int | None = None) -> None:
    """Send one message, with the descriptor ``lent`` when given. Raises OSError when the other side is gone."""
    head = _HEAD.pack(kind.value, len(content))
    if lent is not None:
        socket.send_fds(link, [head], [lent])
        head = b""
    link.sendall(head + content)


def receive(link: socket.socket, most: int, deadline: float | None = None) -> tuple[Kind, bytes]:
    """The next message, of at most ``most`` bytes, before the monotonic time ``deadline``.

    Raises EOFError when the other side is gone, Late, and Garbled for what is no message or too long. Descriptors
    that come along are not taken.
    """
    kind, length = _HEAD.unpack(_exactly(link, _HEAD.size, deadline))
    if length > most:
        raise Garbled
    try:
        return Kind(kind), _exactly(link, length, deadline)
    except ValueError as error:
        raise Garbled from error


def _exactly(link: socket.socket, size: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Late
            link.settimeout(left)
        try:
            part = link.recv(min(size - len(parts), 1 << 20))
        except TimeoutError as error:
            raise Late from error
        except ConnectionError as error:
            raise EOFError from error
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
