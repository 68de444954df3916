"""What a PEM file of certificates or revocation lists says: whose, until when, does the chain hold (RFC 5280)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes

from dicomnode.errors import ConfigError

DAY_S = 86400.0
_CRL_BEGIN = b"-----BEGIN X509 CRL-----"


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """One certificate. Times in seconds since the epoch; ``sha256``: its fingerprint (hex).

    ``names``: its Subject Alternative Names as text. ``issued_by_next``: does the one after it in the file vouch for
    it? None where none comes after it.
    """

    subject: str
    issuer: str
    not_before: float
    not_after: float
    sha256: str
    names: tuple[str, ...]
    issued_by_next: bool | None

    def days_left(self, now: float) -> float:
        """Days until it ends, negative when it has ended."""
        return (self.not_after - now) / DAY_S

    def is_current(self, now: float) -> bool:
        """Valid at ``now``?"""
        return self.not_before <= now < self.not_after


def read_certificates(path: Path) -> tuple[CertificateFacts, ...]:
    """The certificates of a PEM file, in its order. Raises ConfigError when there is none that can be read."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} holds no certificate that can be read") from error
    return tuple(_facts(one, after) for one, after in zip(found, [*found[1:], None], strict=True))


@dataclass(frozen=True, slots=True)
class RevocationFacts:
    """One revocation list. ``next_update``: seconds since the epoch, when it is over; None where it does not say."""

    issuer: str
    next_update: float | None


def read_revocation_lists(path: Path) -> tuple[RevocationFacts, ...]:
    """The revocation lists of a PEM file. Raises ConfigError when there is none that can be read."""
    try:
        parts = path.read_bytes().split(_CRL_BEGIN)[1:]
        found = [x509.load_pem_x509_crl(_CRL_BEGIN + part) for part in parts]
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} holds a revocation list that cannot be read") from error
    if not found:
        raise ConfigError(f"{path} holds no revocation list")
    return tuple(
        RevocationFacts(
            one.issuer.rfc4514_string(), one.next_update_utc.timestamp() if one.next_update_utc is not None else None
        )
        for one in found
    )


def first_to_end(path: Path) -> CertificateFacts:
    """The certificate of the file that ends first. Raises ConfigError."""
    return min(read_certificates(path), key=lambda one: one.not_after)


def expiry(path: Path) -> dict[str, str | float]:
    """For a status page: subject, end and days left of the certificate of the file that ends first.

    Instead ``fault`` when the file cannot be read. By the clock of the machine, as in a handshake.
    """
    try:
        one = first_to_end(path)
    except ConfigError as error:
        return {"fault": str(error)}
    return {"subject": one.subject, "not_after": one.not_after, "days_left": round(one.days_left(time.time()), 1)}


def _facts(one: x509.Certificate, after: x509.Certificate | None) -> CertificateFacts:
    return CertificateFacts(
        one.subject.rfc4514_string(),
        one.issuer.rfc4514_string(),
        one.not_valid_before_utc.timestamp(),
        one.not_valid_after_utc.timestamp(),
        one.fingerprint(hashes.SHA256()).hex(),
        _names(one),
        None if after is None else _vouches(after, one),
    )


def _names(one: x509.Certificate) -> tuple[str, ...]:
    try:
        found = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(str(getattr(name, "value", name)) for name in found)


def _vouches(after: x509.Certificate, one: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(after)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
