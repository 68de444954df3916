"""One peer's socket: bounded reading with deadlines, no matter what the peer sends or does not send.

Nothing is allocated by a length that a peer claims: bytes pass through one buffer of fixed size, and what is handed
out lies in it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

from dicomnode.errors import Transient

TICK_S = 0.25
BUFFER_BYTES = 512 * 1024


class WireError(Transient):
    """The connection is of no use any more."""


class PeerGone(WireError):
    """The peer closed or reset the connection."""


class TooSlow(WireError):
    """The peer was silent, or dripped, beyond its deadline."""


class Wire:
    """Reads from ``connection`` and writes to it. One thread reads; others: ``interrupt``, and ``send``
    where ``takes_another_writer``.

    ``unit_s``: longest time from the first to the last byte of what ``unit`` begins, in seconds.
    """

    def __init__(self, connection: socket.socket, unit_s: float) -> None:
        connection.settimeout(TICK_S)
        self._socket, self._unit_s = connection, unit_s
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._start = self._end = 0
        self._deadline = 0.0
        self._writing = threading.Lock()

    def opening(self, within_s: float) -> None:
        """What follows has to be here, to its last byte, ``within_s`` seconds from now."""
        self._deadline = time.monotonic() + within_s

    def unit(self, idle_s: float) -> None:
        """Wait ``idle_s`` seconds at most for a first byte; from it on the unit's own deadline runs.

        Raises PeerGone, TooSlow.
        """
        if self._start == self._end:
            self._deadline = time.monotonic() + idle_s
            self._fill()
        self._deadline = time.monotonic() + self._unit_s

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes, which are no more than the buffer holds. Raises PeerGone, TooSlow."""
        if self._end - self._start < count:
            self._move_to_front()
            while self._end < count:
                self._fill()
        self._start += count
        return bytes(self._buffer[self._start - count : self._start])

    def fragments(self, count: int) -> Iterator[memoryview]:
        """The next ``count`` bytes as they come; each piece is valid until the next is asked for."""
        while count:
            if self._start == self._end:
                self._fill()
            piece = self._buffer[self._start : min(self._end, self._start + count)]
            self._start += len(piece)
            count -= len(piece)
            yield piece

    def send(self, data: bytes) -> None:
        """Write all of ``data``. Raises PeerGone when the peer takes nothing any more."""
        deadline = time.monotonic() + self._unit_s
        rest = memoryview(data)
        with self._writing:
            while rest:
                try:
                    rest = rest[self._socket.send(rest) :]
                except TimeoutError as error:
                    if time.monotonic() > deadline:
                        raise TooSlow from error
                except OSError as error:
                    raise PeerGone from error

    def finish(self, seconds: float) -> None:
        """After the last PDU: let the peer close first, as PS3.8 9.2 (Sta13) wants it, for ``seconds`` at most."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv_into(self._buffer):
                    break
        self.close()

    def interrupt(self) -> None:
        """End the connection; whoever reads or writes gets PeerGone. For threads that do not own it.

        The method of the plain socket: that of an ``SSLSocket`` takes the TLS state from under the reading thread.
        """
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    @property
    def takes_another_writer(self) -> bool:
        """May a thread write while another reads? OpenSSL keeps one state for both directions."""
        return not isinstance(self._socket, ssl.SSLSocket)

    def close(self) -> None:
        """Close it, in the thread that reads: its number may mean another connection at once."""
        self.interrupt()
        self._socket.close()

    def _move_to_front(self) -> None:
        rest = bytes(self._buffer[self._start : self._end])
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def _fill(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        while True:
            try:
                count = self._socket.recv_into(self._buffer[self._end :])
            except TimeoutError as error:
                if time.monotonic() >= self._deadline:
                    raise TooSlow from error
                continue
            except (OSError, ValueError) as error:
                raise PeerGone from error
            if count == 0:
                raise PeerGone
            self._end += count
            if time.monotonic() >= self._deadline:
                raise TooSlow
            return
