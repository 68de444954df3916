"""The AE of the archives in demo and tests, when its peer goes away without a word."""

from __future__ import annotations

import select
import socket
import struct

from dicomnode.dicom.requestor import Acceptor
from dicomnode.dicom.sop_classes import VERIFICATION

LIMIT_S = 60.0


def test_a_connection_that_the_peer_has_reset_is_closed_too() -> None:
    """pynetdicom forgets a socket that cannot be shut down any more: it warns in whatever test comes next."""
    entity = Acceptor("PACS")
    entity.add_supported_context(VERIFICATION)
    server = entity.make_server(("127.0.0.1", 0))
    try:
        peer = socket.create_connection(server.server_address, timeout=LIMIT_S)
        request, address = server.get_request()
        handler = object.__new__(server.RequestHandlerClass)
        handler.request, handler.client_address, handler.server = request, address, server
        association = handler._create_association()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert select.select([request], [], [], LIMIT_S)[0]
        association.dul.socket.close()
        assert request.fileno() == -1
    finally:
        server.server_close()
