"""TLS after BCP 195 (PS3.15 B.12; RFC 8996, RFC 9325), as server and as client.

TLS 1.2 or newer, 1.3 where the peer has it; of TLS 1.2 the four cipher suites of RFC 9325 4.2; no compression, no
renegotiation, no session tickets. The contexts are made here and nowhere else, and not by
``ssl.create_default_context``, which writes session keys to the file that ``SSLKEYLOGFILE`` names.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from dicomnode.dicom.private_file import read_private
from dicomnode.errors import ConfigError

CIPHER_SUITES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
"""Of TLS 1.2 (RFC 9325 4.2), by OpenSSL's names; those of TLS 1.3 are all authenticated encryption."""

_SECURITY_LEVEL = 2
"""OpenSSL's: keys of at least 112 bits of security (RSA 2048, ECDSA 224), no signature by SHA-1."""

_UNUSABLE = "no PEM file that can be used"
_FAULTS = {
    "KEY_VALUES_MISMATCH": "the key is not that of the certificate",
    "EE_KEY_TOO_SMALL": "the key of the certificate is too short",
    "CA_KEY_TOO_SMALL": "the key of an authority is too short",
    "CA_MD_TOO_WEAK": "the certificate is signed with a hash that is too weak",
    "NO_CERTIFICATE_OR_CRL_FOUND": "there is no certificate or revocation list in the file",
}


def server_context(
    cert: Path, key: Path, password: bytes | None, ca: Path | None, crl: Path | None = None
) -> ssl.SSLContext:
    """A server's context. ``ca``: authorities of the clients' certificates, which are required then (mutual TLS).

    ``crl``: revocation lists (RFC 5280 5) of the authorities that issue these certificates; a certificate whose issuer
    has no list there, or one that is over, is refused like one that is revoked. Raises ConfigError when a file cannot
    be used or others can read the key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _profile(context)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    context.num_tickets = 0
    _load_pair(context, cert, key, password)
    if ca is not None:
        _use("ca", lambda: context.load_verify_locations(cafile=str(ca)))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_mode = ssl.CERT_REQUIRED
        if crl is not None:
            _look_up(context, crl)
    return context


def client_context(
    ca: Path | None, cert: Path | None, key: Path | None, password: bytes | None, crl: Path | None = None
) -> ssl.SSLContext:
    """A client's context: the peer's certificate and host name are verified. ``cert`` and ``key`` for mutual TLS.

    ``ca`` None: the authorities of the system. ``crl``: as for ``server_context``. Raises ConfigError when a file
    cannot be used or others can read the key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _profile(context)
    if ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _use("ca", lambda: context.load_verify_locations(cafile=str(ca)))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if cert is not None:
        _load_pair(context, cert, key or cert, password)
    if crl is not None:
        _look_up(context, crl)
    return context


def _profile(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{':'.join(CIPHER_SUITES)}:@SECLEVEL={_SECURITY_LEVEL}")
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path, password: bytes | None) -> None:
    """OpenSSL would ask on the terminal for a password that nobody gives, and says nothing of a wrong one."""
    is_encrypted = b"ENCRYPTED" in read_private(key, "key")
    unusable = "the key is encrypted: its password is wrong or not given" if is_encrypted else _UNUSABLE
    _use(
        "cert or key",
        lambda: context.load_cert_chain(str(cert), str(key), password=lambda: password or b""),
        unusable,
    )


def _look_up(context: ssl.SSLContext, crl: Path) -> None:
    """Only the other side's own certificate is looked up; for those above it the root would need a list too."""
    before = context.cert_store_stats()
    _use("crl", lambda: context.load_verify_locations(cafile=str(crl)))
    found = context.cert_store_stats()
    if found["x509"] != before["x509"]:
        raise ConfigError("crl: there are certificates in the file; authorities belong into ca")
    if not found["crl"]:
        raise ConfigError(f"crl: {_UNUSABLE}")
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _use(what: str, load: Callable[[], None], unusable: str = _UNUSABLE) -> None:
    try:
        load()
    except ssl.SSLError as error:
        raise ConfigError(f"{what}: {_FAULTS.get(error.reason or '', unusable)}") from error
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{what}: {unusable}") from error
