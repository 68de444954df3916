"""Ed25519 signatures (RFC 8032) for what leaves the database: checkpoints, archives, bundles.

Whoever holds the database can compute a new chain; without this key he cannot sign its checkpoints.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from dicomnode.dicom.private_file import create_private, read_private
from dicomnode.errors import ConfigError, Permanent
from dicomnode.store.spool import sync_folder

KEY_ID_DIGITS = 16
_WHAT = "audit.signing_key_file"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies. ``id``: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""

    _key: Ed25519PublicKey

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """Raises Permanent when ``pem`` is no Ed25519 public key."""
        try:
            key = load_pem_public_key(pem)
        except ValueError as error:
            raise Permanent("it is no public key in PEM") from error
        if not isinstance(key, Ed25519PublicKey):
            raise Permanent("it is no Ed25519 key")
        return cls(key)

    @classmethod
    def load(cls, path: Path) -> PublicKey:
        """Raises Permanent when the file cannot be read or holds no such key."""
        try:
            return cls.from_pem(path.read_bytes())
        except OSError as error:
            raise Permanent(f"public key {path}: {error.strerror}") from error
        except Permanent as error:
            raise Permanent(f"public key {path}: {error}") from error

    @property
    def id(self) -> str:
        """By which signatures name it."""
        return hashlib.sha256(self._key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:KEY_ID_DIGITS]

    @property
    def pem(self) -> str:
        """SubjectPublicKeyInfo in PEM, what openssl reads."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` (64 bytes) is of ``data`` by this key."""
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs."""

    _key: Ed25519PrivateKey

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Raises ConfigError when others can read the file or it holds no Ed25519 key."""
        try:
            key = load_pem_private_key(read_private(path, _WHAT), password=None)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{_WHAT}: it holds no private key in PEM without a password") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"{_WHAT}: it is no Ed25519 key")
        return cls(key)

    @classmethod
    def make(cls, path: Path) -> SigningKey:
        """A new key in the new file ``path``, mode 0600, fsynced. Raises ConfigError when it cannot be written."""
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            create_private(path, pem)
            sync_folder(path.parent)
        except FileExistsError as error:
            raise ConfigError(f"{path}: it is there already; a key is never written over") from error
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        return cls(key)

    @property
    def public(self) -> PublicKey:
        """What verifies its signatures."""
        return PublicKey(self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        """The signature of ``data``, 64 bytes."""
        return self._key.sign(data)
