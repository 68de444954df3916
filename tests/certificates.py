"""Certificates for tests and trials: an authority, and whatever it issues: good, expired, weak, for another purpose.

``python -m tests.certificates FOLDER`` writes a set for a trial with ``[receive.tls]``; never for patients' data.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Pair:
    """PEM files of a certificate and its key. ``sha256``: its fingerprint, as an identity."""

    cert: Path
    key: Path
    certificate: x509.Certificate

    @property
    def sha256(self) -> str:
        return f"sha256:{self.certificate.fingerprint(hashes.SHA256()).hex()}"


@dataclass
class Authority:
    """A certificate authority that writes into ``folder``; ``ca`` is its own certificate."""

    folder: Path
    name: str = "Test Authority"
    parent: Authority | None = None
    secret: Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        builder = _builder(subject, self.parent.certificate.subject if self.parent else subject, self.secret, -1, 365)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign((self.parent or self).secret, hashes.SHA256())
        self.ca = self.folder / f"{self.name.lower().replace(' ', '-')}.pem"
        self.ca.write_bytes(_pem(self.certificate))

    def issue(
        self,
        file: str,
        *,
        dns: Sequence[str] = (),
        ip: Sequence[str] = (),
        uri: Sequence[str] = (),
        cn: str = "test",
        days: tuple[float, float] = (-1, 90),
        secret: Key | None = None,
        password: bytes | None = None,
        purposes: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    ) -> Pair:
        """Write ``file``.pem (with the authorities between) and ``file``.key (0600). ``days``: validity from now."""
        secret = secret or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
        builder = _builder(subject, self.certificate.subject, secret, *days)
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ip]
        names += [x509.UniformResourceIdentifier(name) for name in uri]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        certificate = builder.sign(self.secret, hashes.SHA256())
        chain = _pem(certificate) + (_pem(self.certificate) if self.parent else b"")
        return self._write(file, chain, certificate, secret, password)

    def revoke(self, *revoked: Pair, days: tuple[float, float] = (-1, 7), file: str = "revoked") -> Path:
        """Write ``file``.crl, the list of the certificates that count no more. ``days``: validity from now."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder(issuer_name=self.certificate.subject)
        builder = builder.last_update(now + timedelta(days=days[0])).next_update(now + timedelta(days=days[1]))
        for pair in revoked:
            entry = x509.RevokedCertificateBuilder(serial_number=pair.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - timedelta(hours=1)).build())
        path = self.folder / f"{file}.crl"
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_bytes(builder.sign(self.secret, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return fresh.replace(path)

    def _write(
        self, file: str, chain: bytes, certificate: x509.Certificate, secret: Key, password: bytes | None
    ) -> Pair:
        """Each file whole or not there, as a renewing program replaces them."""
        hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        encoded = secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
        pair = Pair(self.folder / f"{file}.pem", self.folder / f"{file}.key", certificate)
        for path, content, mode in ((pair.cert, chain, 0o644), (pair.key, encoded, 0o600)):
            fresh = path.with_name(f".{path.name}.new")
            fresh.unlink(missing_ok=True)
            fresh.touch(mode=mode)
            fresh.write_bytes(content)
            fresh.replace(path)
        return pair


def weak_key() -> rsa.RSAPrivateKey:
    """An RSA key that BCP 195 does not allow."""
    return rsa.generate_private_key(65537, 1024)


def _builder(subject: x509.Name, issuer: x509.Name, secret: Key, start: float, end: float) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=secret.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now + timedelta(days=start)).not_valid_after(now + timedelta(days=end))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def main() -> None:
    """Write an authority, a node's and a scanner's certificate, and ones that have to be refused."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="localhost", help="name or address of the node")
    given = parser.parse_args()
    try:
        address, names = [str(ipaddress.ip_address(given.host))], []
    except ValueError:
        address, names = [], [given.host]
    authority, foreign = Authority(given.folder), Authority(given.folder, "Foreign Authority")
    node = authority.issue("node", cn="node", dns=names, ip=address)
    scanner = authority.issue("scanner", cn="CT1", dns=["ct1.test"])
    authority.issue("expired", cn="CT1", dns=["ct1.test"], days=(-30, -1))
    authority.issue("weak", cn="CT1", dns=["ct1.test"], secret=weak_key())
    foreign.issue("foreign", cn="CT1", dns=["ct1.test"])
    sys.stdout.write(f'[receive.tls]\ncert = "{node.cert}"\nkey = "{node.key}"\nca = "{authority.ca}"\n')
    sys.stdout.write(f'# of the peer: certificate = ["ct1.test"] or ["{scanner.sha256}"]\n')


if __name__ == "__main__":
    main()
