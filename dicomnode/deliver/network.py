"""Why a connection failed, in words of an operator."""

from __future__ import annotations

import socket
import ssl


def why(error: OSError | UnicodeError) -> str:
    """The reason behind ``error``, which a socket raised; a foreign exception's own text stays untold."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"TLS: the certificate of the peer is not valid: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS: {error.reason or 'handshake failed'}"
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionError():
            return "the peer closed the connection"
        case socket.gaierror() | UnicodeError():
            return "the host name does not resolve"
        case _:
            return f"no connection: {error.strerror or 'network error'}"
