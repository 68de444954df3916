"""``[receive.tls]`` and ``tls`` of a peer: certificates, keys, and the identities that a certificate may show."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from dicomnode.config.table import Table
from dicomnode.dicom.private_file import read_private
from dicomnode.dicom.tls import client_context
from dicomnode.errors import ConfigError, Transient

DICOM_TLS_PORT = 2762
"""The registered port of DICOM over TLS, dicom-tls (PS3.8 9.1.1)."""

EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def identity(text: str) -> str:
    """An identity in the form in which certificates are compared: ``dns:``, ``ip:``, ``uri:``, ``cn:``, ``sha256:``.

    Without one of these words: an address is an ``ip:``, what has a scheme a ``uri:``, anything else a ``dns:``.
    Raises ValueError when it can be none of them.
    """
    kind, colon, value = text.partition(":")
    if not colon or kind.lower() not in ("dns", "ip", "uri", "cn", "sha256"):
        kind, value = _kind_of(text), text
    match kind.lower():
        case "ip":
            return f"ip:{ipaddress.ip_address(value)}"
        case "sha256":
            digest = value.replace(":", "").lower()
            if not _FINGERPRINT.fullmatch(digest):
                raise ValueError("a sha256: identity has 64 hexadecimal digits")
            return f"sha256:{digest}"
        case "dns":
            if not value or any(sign.isspace() for sign in value):
                raise ValueError(f"{text!r} is no DNS name; the subject's name is written cn:NAME")
            return f"dns:{value.rstrip('.').lower()}"
        case other:
            if not value:
                raise ValueError(f"nothing stands behind {other}:")
            return f"{other}:{value}"


def _kind_of(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return "uri" if "://" in text or text.startswith("urn:") else "dns"
    return "ip"


Identity = Annotated[str, AfterValidator(identity)]


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))


Network = Annotated[str, AfterValidator(_network)]
"""An address or a network (``10.1.0.0/16``), in its canonical form."""


class _KeyPassword(Table):
    key_password_file: Path | None = None
    key_password_env: EnvironmentName | None = None

    @model_validator(mode="after")
    def _one_password(self) -> _KeyPassword:
        if self.key_password_file is not None and self.key_password_env is not None:
            raise ValueError("give key_password_file or key_password_env, not both")
        return self

    def key_password(self) -> bytes | None:
        """The password of the key, None when it has none. Raises ConfigError when it is missing or open to others."""
        if self.key_password_file is not None:
            password = read_private(self.key_password_file, "key_password_file").rstrip(b"\r\n")
            place = "key_password_file"
        elif self.key_password_env is not None:
            password = os.environ.get(self.key_password_env, "").encode()
            place = f"the environment variable {self.key_password_env}"
        else:
            return None
        if not password:
            raise ConfigError(f"{place} is empty or missing")
        return password


class TlsFiles(_KeyPassword):
    """``tls`` of a peer: PEM files for connections to it (PS3.15 B.12). ``cert`` and ``key`` for mutual TLS.

    ``crl``: the revocation lists of the authorities that issue the peer's certificate, None: nothing is revoked.
    ``key_password_file`` or ``key_password_env``: where the password of an encrypted key is read from.
    """

    ca: Path
    crl: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _key_has_its_certificate(self) -> TlsFiles:
        if self.key is not None and self.cert is None:
            raise ValueError("a key without its cert shows the peer nothing: give cert too")
        return self

    def context(self) -> ssl.SSLContext:
        """The context for one connection to the peer; made anew for each, so that renewed files count at once.

        Raises Transient when a file cannot be used: the operator can mend it.
        """
        try:
            return client_context(self.ca, self.cert, self.key, self.key_password(), self.crl)
        except ConfigError as error:
            raise Transient(f"TLS: the certificate or key files of this peer cannot be used: {error}") from error


class ReceiveTls(_KeyPassword):
    """``[receive.tls]``: the port on which associations are encrypted (PS3.15 B.12). PEM files.

    ``cert``: our certificate and those between it and its authority; ``key``: its private key. ``ca``: the authorities
    of the clients' certificates; ``crl``: the revocation lists of these that issue them, None: nothing is revoked.
    ``client_certificate``: "required" (mutual TLS) or "none". ``plain``: is
    ``[node]`` ``port`` open too, without encryption?
    """

    port: Annotated[int, Field(ge=0, le=65535)] = DICOM_TLS_PORT
    cert: Path
    key: Path
    ca: Path | None = None
    crl: Path | None = None
    client_certificate: Literal["required", "none"] = "required"
    plain: bool = False

    @model_validator(mode="after")
    def _clients_have_an_authority(self) -> ReceiveTls:
        if self.client_certificate == "required" and self.ca is None:
            raise ValueError('give ca, the authorities of the clients\' certificates, or client_certificate = "none"')
        if self.client_certificate == "none" and self.ca is not None:
            raise ValueError('ca says nothing where client_certificate = "none"')
        if self.client_certificate == "none" and self.crl is not None:
            raise ValueError('crl says nothing where client_certificate = "none"')
        return self
