"""Who may associate: called and calling AE title and the peer's address (PS3.8 9.3.4 for the reasons)."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from dicomnode.config import Config, Peer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What an A-ASSOCIATE-RQ says of the two sides. ``address``: the IP address that it came from.

    ``not_only_storage``: it proposes Verification or Storage Commitment too. ``identities``: what its verified client
    certificate shows, None without TLS.
    """

    CallingAETitle: str
    CalledAETitle: str
    address: str
    not_only_storage: bool = False
    identities: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """The association is accepted; ``peer``: name of the configured peer, None for an unknown one.

    ``may_store``: it may send Instances. ``may_report``: it may report on storage commitment.
    """

    peer: str | None
    may_store: bool = True
    may_report: bool = False


@dataclass(frozen=True, slots=True)
class Rejection:
    """Result, source and diagnostic of the A-ASSOCIATE-RJ, and the reason for the audit log."""

    result: int
    source: int
    diagnostic: int
    reason: str


CALLED_UNKNOWN = Rejection(1, 1, 7, "called AE title is not ours")
CALLING_UNKNOWN = Rejection(1, 1, 3, "calling AE title is not a peer that may send")
WRONG_ADDRESS = Rejection(1, 1, 3, "calling AE title comes from another address than its peer's")
CERTIFICATE = Rejection(1, 1, 3, "calling AE title without a certificate of its peer")
LOCAL_LIMIT = Rejection(2, 3, 2, "max_associations reached")
PEER_LIMIT = Rejection(2, 3, 2, "max_associations_per_peer reached")
NO_APPLICATION = Rejection(1, 1, 2, "application context name is not DICOM's")
CONGESTION = Rejection(2, 3, 1, "the node is stopping or its database is not available")


class Admission:
    """Judges association requests by ``[node]``, ``[receive]`` and ``[[peer]]``."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._addresses: dict[str, frozenset[str]] = {}
        self._lock = threading.Lock()

    def judge(self, request: Request, n_open: int = 0, n_from_peer: int = 0) -> Admitted | Rejection:
        """Decide with ``n_open`` associations open already, ``n_from_peer`` of them from the same peer.

        AE titles compare without outer spaces (PS3.5 6.2). A peer that is asked for storage commitment may associate
        to report, whether or not it may send.
        """
        if request.CalledAETitle.strip() != self._config.node.ae_title:
            return CALLED_UNKNOWN
        known = [peer for peer in self._config.entities if peer.ae_title == request.CallingAETitle.strip()]
        at_home = [peer for peer in known if self._is_address_of(peer, request.address)]
        here = [peer for peer in at_home if _shows(peer, request.identities)]
        if not here and any(peer.certificate for peer in known):
            return CERTIFICATE if at_home else WRONG_ADDRESS
        allowed = next((peer for peer in here if peer.may_send), None)
        may_store = allowed is not None or self._config.receive.accept_unknown_peers
        may_report = any(peer.commit for peer in here)
        if not may_store and not (may_report and request.not_only_storage):
            return WRONG_ADDRESS if any(peer.may_send for peer in known) else CALLING_UNKNOWN
        if crowded := self.crowded(n_open, n_from_peer):
            return crowded
        name = allowed.name if allowed else here[0].name if here else None
        return Admitted(name, may_store=may_store, may_report=may_report)

    def crowded(self, n_open: int, n_from_peer: int) -> Rejection | None:
        """Why there is no place for one more, or None."""
        limits = self._config.receive
        if n_open >= limits.max_associations:
            return LOCAL_LIMIT
        if limits.max_associations_per_peer and n_from_peer >= limits.max_associations_per_peer:
            return PEER_LIMIT
        return None

    def speaks_for(self, name: str, request: Request) -> bool:
        """Is an association that was opened by ``request`` one of the peer called ``name``?"""
        peer = self._config.peer_named(name)
        if not isinstance(peer, Peer) or peer.ae_title != request.CallingAETitle.strip():
            return False
        return self._is_address_of(peer, request.address) and _shows(peer, request.identities)

    def _is_address_of(self, peer: Peer, address: str) -> bool:
        return address in self._addresses_of(peer) or _lies_in(address, peer.addresses)

    def _addresses_of(self, peer: Peer) -> frozenset[str]:
        """The peer's addresses; a host name is resolved once, and again only while it does not resolve."""
        with self._lock:
            found = self._addresses.get(peer.host)
            if not found:
                found = self._addresses[peer.host] = _resolve(peer.host)
        return found


def _shows(peer: Peer, identities: frozenset[str] | None) -> bool:
    """A peer with a list of certificates comes over TLS and shows one of them; another as it likes."""
    return not peer.certificate or bool(identities and identities & frozenset(peer.certificate))


def _lies_in(address: str, networks: Iterable[str]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in ipaddress.ip_network(network) for network in networks)


def plain_address(address: str) -> str:
    """Return an IP address in its canonical text form; an IPv4-mapped IPv6 address becomes the IPv4 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def _resolve(host: str) -> frozenset[str]:
    try:
        return frozenset({str(ipaddress.ip_address(host))})
    except ValueError:
        pass
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        _log.warning("the host name of a peer does not resolve")
        return frozenset()
    return frozenset(plain_address(str(entry[4][0])) for entry in entries)
