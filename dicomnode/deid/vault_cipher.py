"""How one row of the vault is sealed: AES-256-GCM (NIST SP 800-38D), bound to its project, number and lookup.

Two keys are derived from the key of the vault (HKDF, RFC 5869): one seals, the other makes the lookups. A lookup is an
HMAC of the pseudonym, so that a stolen file cannot even be asked whether a known pseudonym is in it.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dicomnode.deid.keys import ProjectKey
from dicomnode.errors import Permanent

NONCE_BYTES = 12
_PADDED_TO = 256
"""The length of what is sealed says nothing about it either."""


class VaultCipher:
    """Seals and opens rows with one key."""

    def __init__(self, key: ProjectKey) -> None:
        self.key_id = key.id
        self._sealing, self._index = AESGCM(_derived(key, b"seal")), _derived(key, b"index")

    def lookup(self, project: str, kind: str, pseudonym: str) -> bytes:
        """By which a row is found: 32 bytes that nobody can compute without the key."""
        return hmac.digest(self._index, f"{project}\0{kind}\0{pseudonym}".encode("utf-8", "surrogatepass"), "sha256")

    def seal(self, content: Mapping[str, Any], project: str, row: int, lookup: bytes) -> tuple[bytes, bytes]:
        """(nonce, sealed) of ``content`` (JSON) for this place and no other."""
        plain = json.dumps(dict(content), separators=(",", ":")).encode()
        padded = plain.ljust(-(-len(plain) // _PADDED_TO) * _PADDED_TO)
        nonce = os.urandom(NONCE_BYTES)
        return nonce, self._sealing.encrypt(nonce, padded, _place(project, row, lookup))

    def open(self, nonce: bytes, sealed: bytes, project: str, row: int, lookup: bytes) -> dict[str, Any]:
        """What was sealed. Raises Permanent when it was altered, moved from another row, or sealed with another key."""
        try:
            content: dict[str, Any] = json.loads(self._sealing.decrypt(nonce, sealed, _place(project, row, lookup)))
        except (InvalidTag, ValueError) as error:
            raise Permanent(f"vault: row {row} is not what was written there") from error
        return content


def _place(project: str, row: int, lookup: bytes) -> bytes:
    return b"\0".join((b"dicomnode vault 1", project.encode(), str(row).encode(), lookup))


def _derived(key: ProjectKey, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"dicomnode vault " + purpose).derive(key.secret)
