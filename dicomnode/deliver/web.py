"""One HTTP exchange with a STOW-RS peer, bounded in time and size.

The standard library's client, because it does less: no redirect is followed, no proxy or .netrc of the environment is
used and no cookie kept, so that neither a result nor the token can go where the configuration does not say.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

from dicomnode.config import StowPeer, TlsFiles
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.multipart import MultipartFiles
from dicomnode.deliver.network import why
from dicomnode.deliver.token import bearer_token
from dicomnode.dicom.tls import client_context
from dicomnode.errors import Transient

JSON = "application/dicom+json"
MAX_ANSWER = 4 * 1024 * 1024
MAX_RETRY_AFTER_S = 3600.0

_PATH_SAFE = "/%:@!$&'()*+,;=~"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The peer's answer. ``content``: None when there is more than MAX_ANSWER bytes of it. ``media_type``: of that."""

    status: int
    content: bytes | None
    retry_after_s: float
    media_type: str = ""


def post(peer: StowPeer, resource: str, message: MultipartFiles, limits: SendLimits) -> HttpAnswer:
    """POST ``message`` to ``resource`` below the peer's base URL. Raises Transient with the reason."""
    return _exchange(peer, "POST", resource, message, limits)


def get(peer: StowPeer, resource: str, limits: SendLimits) -> HttpAnswer:
    """GET ``resource`` below the peer's base URL. Raises Transient with the reason."""
    return _exchange(peer, "GET", resource, None, limits)


def _exchange(
    peer: StowPeer, method: str, resource: str, message: MultipartFiles | None, limits: SendLimits
) -> HttpAnswer:
    url, headers = _url(peer), _headers(peer, message)
    target = quote(url.path.rstrip("/"), safe=_PATH_SAFE) + resource
    limit_s = limits.dimse_s + (message.length / limits.slowest_bytes_s if message else 0.0)
    late = f"no complete answer within {limit_s:.0f} s"
    with closing(_connected(url, peer, limits.connect_s)) as connection, _cut_after(connection, limit_s) as cut:
        try:
            connection.sock.settimeout(limits.stall_s)
            _send(connection, method, target, message, headers)
            connection.sock.settimeout(limit_s)
            answer = _receive(connection)
        except (OSError, http.client.HTTPException) as error:
            raise Transient(late if cut.is_set() or isinstance(error, TimeoutError) else _reason(error)) from error
        if cut.is_set():
            raise Transient(late)
        return answer


def _reason(error: OSError | http.client.HTTPException) -> str:
    return why(error) if isinstance(error, OSError) else "the peer does not speak HTTP"


def _headers(peer: StowPeer, message: MultipartFiles | None) -> dict[str, str]:
    headers = {"Accept": JSON, "Connection": "close"}
    if message is not None:
        headers |= {"Content-Type": message.content_type, "Content-Length": str(message.length)}
    token = bearer_token(peer)
    return headers if token is None else {**headers, "Authorization": f"Bearer {token}"}


def _url(peer: StowPeer) -> SplitResult:
    try:
        url = urlsplit(peer.stow)
        _ = url.port
    except ValueError as error:
        raise Transient("the URL of this peer is not valid") from error
    return url


def _connected(url: SplitResult, peer: StowPeer, connect_s: float) -> http.client.HTTPConnection:
    connection = _connection(url, peer, connect_s)
    try:
        connection.connect()
    except TimeoutError as error:
        raise Transient(f"no connection within {connect_s:g} s") from error
    except (OSError, UnicodeError) as error:
        connection.close()
        raise Transient(why(error)) from error
    return connection


def _connection(url: SplitResult, peer: StowPeer, connect_s: float) -> http.client.HTTPConnection:
    host = url.hostname or ""
    if url.scheme == "http":
        return http.client.HTTPConnection(host, url.port or http.client.HTTP_PORT, timeout=connect_s)
    if isinstance(peer.tls, TlsFiles):
        context = peer.tls.context()
    else:
        context = client_context(ca=None, cert=None, key=None, password=None)
    return http.client.HTTPSConnection(host, url.port or http.client.HTTPS_PORT, timeout=connect_s, context=context)


@contextmanager
def _cut_after(connection: http.client.HTTPConnection, limit_s: float) -> Iterator[threading.Event]:
    """End the connection after ``limit_s``: a peer that drips its answer would never meet the limit of one read."""
    opened, cut = connection.sock, threading.Event()

    def end() -> None:
        cut.set()
        with suppress(OSError):
            socket.socket.shutdown(opened, socket.SHUT_RDWR)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield cut
    finally:
        timer.cancel()


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    message: MultipartFiles | None,
    headers: dict[str, str],
) -> None:
    """A peer that refuses may answer and hang up before it has read all: its answer is still there to read."""
    try:
        with suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            connection.request(method, target, message.pieces() if message else None, headers)
    except TimeoutError as error:
        raise Transient("the peer stalled: it reads no more of the request") from error


def _receive(connection: http.client.HTTPConnection) -> HttpAnswer:
    """Into a buffer of our size: with a negative chunk size ``read`` would take all that comes."""
    buffer = bytearray(MAX_ANSWER + 1)
    with connection.getresponse() as response:
        length = response.readinto(buffer)
        wanted = response.headers.get("Retry-After", "")
        retry_after_s = min(float(wanted), MAX_RETRY_AFTER_S) if wanted.isdecimal() else 0.0
        content = bytes(buffer[:length]) if length <= MAX_ANSWER else None
        return HttpAnswer(response.status, content, retry_after_s, response.headers.get_content_type())
