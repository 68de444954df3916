"""An Association to a peer, from request to release (PS3.8 section 7), with a plain reason when there is none."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext

from dicomnode.config import Peer, TlsFiles
from dicomnode.deliver.network import why
from dicomnode.dicom.requestor import Requestor
from dicomnode.errors import Permanent, Transient


@dataclass(frozen=True, slots=True)
class SendLimits:
    """Time limits in seconds, rates in bytes per second, sizes in bytes.

    ``stall_s``: how long the peer may read nothing while we write. ``slowest_bytes_s``: a C-STORE may take
    ``dimse_s`` and what its size needs at this rate.
    """

    connect_s: float = 10.0
    acse_s: float = 30.0
    dimse_s: float = 60.0
    stall_s: float = 60.0
    slowest_bytes_s: float = 128 * 1024
    max_pdu: int = 128 * 1024


class NothingAccepted(Permanent):
    """The peer accepted the Association but none of its Presentation Contexts."""


class _Entity(Requestor):
    def __init__(self, calling_ae: str, limits: SendLimits) -> None:
        super().__init__(calling_ae)
        self.connection_timeout = limits.connect_s
        self.acse_timeout = limits.acse_s
        self.dimse_timeout = limits.dimse_s
        self.network_timeout = None


@contextmanager
def association(
    peer: Peer, calling_ae: str, contexts: Sequence[PresentationContext], limits: SendLimits
) -> Iterator[Association]:
    """Hold an Association with ``peer`` open; released at the end, aborted when the block raises.

    Raises Transient with the reason when it is refused, rejected, aborted or not answered in time, and
    NothingAccepted.
    """
    opened = _open(_Entity(calling_ae, limits), peer, contexts, limits)
    try:
        yield opened
    except BaseException as error:
        if not isinstance(error, GeneratorExit):
            opened.abort()
        raise
    finally:
        opened.release()


def _open(entity: _Entity, peer: Peer, contexts: Sequence[PresentationContext], limits: SendLimits) -> Association:
    reason = ""
    for address in _addresses(peer):
        seen = _Seen()
        started = time.monotonic()
        opened = entity.associate(
            address,
            peer.port,
            contexts=list(contexts),
            ae_title=peer.ae_title,
            max_pdu=limits.max_pdu,
            tls_args=_tls_args(peer),
            evt_handlers=[
                (evt.EVT_CONN_OPEN, _on_open, [seen, limits.stall_s]),
                (evt.EVT_PDU_RECV, _on_pdu, [seen]),
            ],
        )
        if opened.is_established:
            return opened
        if seen.connected:
            raise _refusal(opened, seen, time.monotonic() - started, limits)
        reason = _why_unreachable(peer, address, time.monotonic() - started, limits)
    raise Transient(reason)


@dataclass(slots=True)
class _Seen:
    """What happened on the way to an Association."""

    connected: bool = False
    rejection: A_ASSOCIATE_RJ | None = None


def _on_open(event: Any, seen: _Seen, stall_s: float) -> None:
    """pynetdicom writes without a time limit; a peer that stops reading would block it for ever."""
    seen.connected = True
    connection = event.assoc.dul.socket.socket
    connection.settimeout(stall_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _on_pdu(event: Any, seen: _Seen) -> None:
    """A rejection that comes very fast is taken for a lost connection by pynetdicom 3.0."""
    if isinstance(event.pdu, A_ASSOCIATE_RJ):
        seen.rejection = event.pdu


def _addresses(peer: Peer) -> list[str]:
    """The IP addresses of the peer's host, IPv4 first."""
    try:
        found = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Transient("the host name does not resolve") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in sorted(found, key=lambda entry: entry[0])))


def _refusal(refused: Association, seen: _Seen, seconds: float, limits: SendLimits) -> Transient | NothingAccepted:
    """Why the peer, to which we were connected, gave us no Association (PS3.8 9.3.4)."""
    if seen.rejection is not None:
        lasting = "permanent" if seen.rejection.result == 1 else "transient"
        return Transient(f"association rejected: {seen.rejection.reason_str} ({lasting})")
    answer = refused.acceptor.primitive
    if answer is not None and answer.result == 0 and not refused.accepted_contexts:
        return NothingAccepted("the peer accepts none of the presentation contexts")
    if seconds >= limits.acse_s:
        return Transient(f"no answer to the association request within {limits.acse_s:g} s")
    return Transient("the peer aborted the association request or closed the connection")


def _why_unreachable(peer: Peer, address: str, seconds: float, limits: SendLimits) -> str:
    """pynetdicom keeps the reason to itself: connect once more to learn it, unless it was time."""
    if seconds >= limits.connect_s:
        return f"no connection within {limits.connect_s:g} s"
    try:
        with socket.create_connection((address, peer.port), timeout=limits.connect_s) as probe:
            arguments = _tls_args(peer)
            if arguments:
                arguments[0].wrap_socket(probe, server_hostname=arguments[1]).close()
    except TimeoutError:
        return f"no connection within {limits.connect_s:g} s"
    except OSError as error:
        return why(error)
    return "the connection was lost"


def _tls_args(peer: Peer) -> tuple[ssl.SSLContext, str] | None:
    if not isinstance(peer.tls, TlsFiles):
        return None
    return peer.tls.context(), peer.host
