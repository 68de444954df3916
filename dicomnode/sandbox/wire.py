"""Messages between parent and child: one byte of kind, four of length, the content. Nothing in them is executed."""

from __future__ import annotations

import socket
import struct
import time
from enum import Enum

from dicomnode.errors import Permanent

_HEAD = struct.Struct(">cI")
PLACE = struct.Struct(">IQ")
"""How the content of WRITE begins: the number of the block, from 0, and the offset in it."""
_AT_ONCE = 1 << 20


class Kind(Enum):
    """What a message is. The content of ANSWER and CALL is JSON, of WANT a number of bytes, of WRITE a PLACE and what
    lies there, of the others text."""

    READY = b"y"
    CALL = b"c"
    WANT = b"w"
    WRITE = b"d"
    ANSWER = b"a"
    PERMANENT = b"p"
    TRANSIENT = b"t"
    MEMORY = b"m"
    BROKEN = b"b"


class Garbled(Permanent):
    """The other side does not keep to the protocol."""


class Late(Permanent):
    """The time to answer is over."""


def send(link: socket.socket, kind: Kind, *content: bytes | memoryview) -> None:
    """Send one message, its content in pieces or in one. Raises OSError when the other side is gone."""
    head = _HEAD.pack(kind.value, sum(map(len, content)))
    if sum(map(len, content)) < _AT_ONCE:
        link.sendall(b"".join((head, *content)))
        return
    link.sendall(b"".join((head, *content[:-1])))
    link.sendall(content[-1])


def receive(link: socket.socket, most: int, deadline: float | None = None) -> tuple[Kind, bytes]:
    """The next message, of at most ``most`` bytes, before the monotonic time ``deadline``.

    Raises EOFError when the other side is gone, Late, and Garbled for what is no message or too long.
    """
    kind, length = receive_head(link, deadline)
    return kind, receive_rest(link, length, most, deadline)


def receive_head(link: socket.socket, deadline: float | None = None) -> tuple[Kind, int]:
    """What the next message is, and the length of its content, which is to be received next. Raises as ``receive``."""
    kind, length = _HEAD.unpack(receive_rest(link, _HEAD.size, _HEAD.size, deadline))
    try:
        return Kind(kind), length
    except ValueError as error:
        raise Garbled from error


def receive_rest(link: socket.socket, size: int, most: int, deadline: float | None = None) -> bytes:
    """``size`` bytes, if that is not over ``most``. Raises as ``receive``."""
    if size > most:
        raise Garbled
    content = bytearray(min(size, _AT_ONCE))
    at = 0
    while at < size:
        if at == len(content):
            content += bytes(min(size - at, at))  # as they come: a length that is only claimed takes no memory
        at += _some(link, memoryview(content)[at:], deadline)
    return bytes(content)


def receive_into(link: socket.socket, target: memoryview, deadline: float | None = None) -> None:
    """Fill ``target``. Raises as ``receive``."""
    at = 0
    while at < len(target):
        at += _some(link, target[at:], deadline)


def _some(link: socket.socket, target: memoryview, deadline: float | None) -> int:
    if deadline is not None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Late
        link.settimeout(left)
    try:
        received = link.recv_into(target)
    except TimeoutError as error:
        raise Late from error
    except ConnectionError as error:
        raise EOFError from error
    if not received:
        raise EOFError
    return received
