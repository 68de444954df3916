"""The listening socket: pynetdicom's server class with our socket settings (its documented ``server_class`` hook)."""

from __future__ import annotations

import socket
import socketserver

from pynetdicom.transport import ThreadedAssociationServer


class AssociationListener(ThreadedAssociationServer):
    """Accepts connections; one thread per Association."""

    request_queue_size = 128
    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept, without delayed small packets (each C-STORE response is one) and without an endless read."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self.ae.network_timeout)
        return connection, address

    def shutdown(self) -> None:
        """Stop listening. The library's own method expects a server that ``AE.start_server`` made."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
