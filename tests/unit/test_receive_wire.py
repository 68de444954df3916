"""A connection that another thread ends while one reads (trust.md R1, R17): over TLS only one of them touches it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.dicom.tls import client_context, server_context
from dicomnode.receive.wire import PeerGone, Wire
from tests.certificates import Authority

SENT = b"A" * 100


@contextlib.contextmanager
def connected(folder: Path | None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A peer and its node's side of a connection; over TLS with certificates of ``folder``, in the clear without."""
    peer, ours = socket.socketpair()
    with contextlib.ExitStack() as held:
        if folder is not None:
            pair = (authority := Authority(folder)).issue("node", cn="node", ip=["127.0.0.1"])
            server = server_context(pair.cert, pair.key, None, None)
            client = client_context(authority.ca, None, None, None)
            plain_peer, secured = peer, list[ssl.SSLSocket]()
            greeting = threading.Thread(
                target=lambda: secured.append(client.wrap_socket(plain_peer, server_hostname="127.0.0.1"))
            )
            greeting.start()
            ours = server.wrap_socket(ours, server_side=True)
            greeting.join(60)
            peer = secured[0]
        held.callback(peer.close)
        held.callback(ours.close)
        peer.settimeout(60)
        yield peer, ours


def until_it_ends(wire: Wire) -> bytes:
    read = bytearray()
    try:
        while True:
            read += wire.take(1)
    except PeerGone:
        return bytes(read)


@pytest.mark.parametrize("secure", [True, False])
def test_r17_an_interrupted_connection_gives_what_was_sent_or_ends(tmp_path: Path, secure: bool) -> None:
    """R1: neither the bytes of TLS itself nor anything in the clear passes for the peer's; nobody writes any more."""
    with connected(tmp_path if secure else None) as (peer, ours):
        wire = Wire(ours, 30.0)
        wire.opening(30.0)
        peer.sendall(SENT)
        assert wire.take(10) == SENT[:10]
        peer.sendall(SENT)
        ending = threading.Thread(target=wire.interrupt)
        ending.start()
        ending.join(60)
        assert ours.fileno() >= 0, "its number may mean another connection while the reading thread uses it"
        assert set(until_it_ends(wire)) <= set(SENT)
        with pytest.raises(PeerGone):
            wire.send(b"late")
        wire.close()
        assert ours.fileno() < 0


def test_r17_only_a_connection_in_the_clear_takes_another_writer(tmp_path: Path) -> None:
    """R1: OpenSSL keeps one state for both directions."""
    with connected(None) as (_, ours):
        assert Wire(ours, 1.0).takes_another_writer
    with connected(tmp_path) as (_, ours):
        assert not Wire(ours, 1.0).takes_another_writer
