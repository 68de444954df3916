"""TLS towards a peer, after BCP 195 (PS3.15 B.12)."""

from __future__ import annotations

import ssl
from pathlib import Path

from dicomnode.errors import Transient


def client_context(ca: Path, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer; the peer's certificate and host name are verified. ``cert`` and ``key`` for mutual TLS.

    Raises Transient when a file cannot be used: the operator can mend it.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert:
            context.load_cert_chain(cert, key)
    except (OSError, ValueError) as error:
        raise Transient("TLS: the certificate or key files of this peer cannot be used") from error
    return context
