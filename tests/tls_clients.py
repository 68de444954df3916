"""TLS clients for tests: every wrong way to begin a TLS connection, and the right ones. All on loopback, bounded."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
import warnings
from collections.abc import Callable

from tests.certificates import Pair

Client = Callable[[socket.socket], object]
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    TLS_1_0, TLS_1_1 = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1

CLIENT_HELLO_HEAD = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""How a ClientHello of 512 bytes begins."""


def lax_context(
    shown: Pair | None = None,
    version: ssl.TLSVersion | None = None,
    ciphers: str = "DEFAULT",
) -> ssl.SSLContext:
    """A client that trusts everybody and would do with TLS 1.0. ``version``: offer no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    if version is not None:
        only(context, version)
    if shown is not None:
        context.load_cert_chain(shown.cert, shown.key)
    return context


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    """Have ``context`` speak no other version, deprecated or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version


def greets(context: ssl.SSLContext, session: list[ssl.SSLSession] | None = None) -> Client:
    """Says one byte after the handshake and waits for one. With TLS 1.3 only that shows whether the server agreed."""

    def client(connection: socket.socket) -> bytes:
        with context.wrap_socket(connection, session=session[-1] if session else None) as wrapped:
            wrapped.sendall(b"?")
            answer = wrapped.recv(1)
            if session is not None and wrapped.session is not None:
                session.append(wrapped.session)
            with contextlib.suppress(OSError):
                wrapped.unwrap()
            return answer

    return client


def says(content: bytes) -> Client:
    """Plain text, whatever the port expects."""

    def client(connection: socket.socket) -> bytes:
        connection.sendall(content)
        return connection.recv(100)

    return client


def drips(pause_s: float) -> Client:
    """A ClientHello, byte by byte, until the server hangs up."""

    def client(connection: socket.socket) -> None:
        connection.sendall(CLIENT_HELLO_HEAD)
        for _ in range(500):
            time.sleep(pause_s)
            connection.sendall(b"a")

    return client


def silent(connection: socket.socket) -> bytes:
    """Says nothing until the server hangs up."""
    return connection.recv(100)


def leaves(connection: socket.socket) -> None:
    """Hangs up at once."""
    connection.close()
