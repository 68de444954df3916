"""Syslog over TLS (RFC 5424, RFC 5425): how audit messages reach an audit record repository (PS3.15 A.6).

The protocol has no acknowledgement. What is sent counts as received when the server has closed the connection in
order after us: it has read everything that stood before. Anything else is sent again, so a message may arrive twice.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from dicomnode.errors import Transient

_T = TypeVar("_T")

FACILITY = 10
"""Security and authorization messages (RFC 5424 6.2.1; PS3.15 A.6)."""
NOTICE = 5
WARNING = 4
ERROR = 3
DICOM_MESSAGE = "DICOM+RFC3881"
"""MSGID of an audit message (PS3.15 A.6)."""
_APP_NAME = "dicomnode"
_BOM = b"\xef\xbb\xbf"
_NAME_LENGTHS = {"hostname": 255, "msgid": 32}
_READ_BYTES = 16384
_CLOSE_WAIT = 8
"""TCP state (linux/tcp_states.h)."""


@dataclass(frozen=True, slots=True)
class SyslogMessage:
    """One message. ``text``: its content (UTF-8). ``severity``: RFC 5424 6.2.1, 0 to 7."""

    text: str
    at: datetime
    msgid: str = DICOM_MESSAGE
    severity: int = NOTICE

    def encode(self, hostname: str) -> bytes:
        """The SYSLOG-MSG of RFC 5424 6, without structured data."""
        time = self.at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        names = (_name("hostname", hostname), _APP_NAME, str(os.getpid()), _name("msgid", self.msgid))
        head = f"<{FACILITY * 8 + self.severity}>1 {time} {' '.join(names)} - "
        return head.encode("ascii") + _BOM + self.text.encode("utf-8", "replace")


def framed(message: bytes) -> bytes:
    """Octet counting: MSG-LEN SP SYSLOG-MSG (RFC 5425 4.3)."""
    return b"%d %b" % (len(message), message)


@dataclass(frozen=True, slots=True)
class SyslogSender:
    """A server to which messages are sent. ``tls``: a client's context (``dicom.tls``); None only for tests.

    ``timeout_s``: seconds for each wait on the network. ``hostname``: what the messages name as their origin.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    timeout_s: float = 15.0
    hostname: str = ""

    def send(self, messages: Sequence[SyslogMessage]) -> None:
        """Send ``messages`` over one connection, and see it closed in order. Raises Transient when it was not.

        Then nobody knows how many of them arrived: all have to be sent again.
        """
        origin = self.hostname or socket.gethostname()
        try:
            with socket.create_connection((self.host, self.port), timeout=self.timeout_s) as plain:
                channel = _Plain(plain) if self.tls is None else _Tls(plain, self.tls, self.host)
                for message in messages:
                    channel.send(framed(message.encode(origin)))
                channel.close()
        except ssl.SSLCertVerificationError as error:
            raise Transient(f"syslog server: its certificate is not accepted: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise Transient(f"syslog server: TLS: {error.reason or 'the connection broke'}") from error
        except OSError as error:
            raise Transient(f"syslog server: {error.strerror or error or type(error).__name__}") from error


class _Plain:
    """Without encryption, for tests."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, content: bytes) -> None:
        """Send all of it."""
        self._connection.sendall(content)

    def close(self) -> None:
        """End our side and wait for the other."""
        self._connection.shutdown(socket.SHUT_WR)
        while self._connection.recv(_READ_BYTES):
            pass


class _Tls:
    """TLS whose end is looked at closely. Every method may raise OSError, of which ssl.SSLError is one.

    ``SSLSocket.unwrap`` takes a fatal alert for a goodbye: with TLS 1.3 a server that refuses our certificate says so
    after the handshake, and what was sent would count as received. So the records are moved here, and the answer to our
    close_notify is read as data would be, which tells one from the other.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._until_done(self._tls.do_handshake)

    def send(self, content: bytes) -> None:
        """Send all of it."""
        rest = memoryview(content)
        while rest:
            rest = rest[self._until_done(partial(self._tls.write, rest)) :]

    def close(self) -> None:
        """Say close_notify and read the server's (RFC 5425 4.4).

        Some servers end the connection instead when they have read ours: that counts, unless it was ended before. One
        that died, or closed with something unread, resets the connection.
        """
        if _ended(self._connection):
            raise ConnectionResetError("the server had ended the connection before all was sent")
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()
        with contextlib.suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):
            while self._until_done(lambda: self._tls.read(_READ_BYTES)):
                pass

    def _until_done(self, step: Callable[[], _T]) -> _T:
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            else:
                self._flush()
                return done

    def _flush(self) -> None:
        self._connection.sendall(self._outgoing.read())

    def _fill(self) -> None:
        content = self._connection.recv(_READ_BYTES)
        if content:
            self._incoming.write(content)
        else:
            self._incoming.write_eof()


def _ended(connection: socket.socket) -> bool:
    """Whether the other side has ended the connection; where the system does not tell (Linux does), False."""
    if not hasattr(socket, "TCP_INFO"):
        return False
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSE_WAIT


def _name(what: str, value: str) -> str:
    """A header field of RFC 5424: printable US-ASCII without spaces, cut to its length; ``-`` for nothing."""
    shown = "".join(sign if "!" <= sign <= "~" else "_" for sign in value)
    return shown[: _NAME_LENGTHS[what]] or "-"
