"""The key of a project: what stands between a pseudonym and the patient. No key, no start; there is no default.

The file holds the key in force and, below it, the retired ones, one line of 64 hexadecimal digits each; or nothing but
the 32 raw bytes of one key. A key belongs to a project for life. Rotation opens a new generation: new exports carry new
pseudonyms, and the retired keys stay to compute what the same patient was called before (decision 0026).
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.dicom.private_file import create_private, read_private
from dicomnode.errors import ConfigError
from dicomnode.store.spool import sync_folder

KEY_BYTES = 32
_LEAST_VARIETY = 17
"""Random keys have about 30 different bytes; one of less was typed, or is 32 hexadecimal digits."""
_HEX_KEY = re.compile(rb"[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True)
class ProjectKey:
    """One key; ``retired``: those of the generations before it, the newest first. Never shown or logged."""

    secret: bytes = field(repr=False)
    retired: tuple[ProjectKey, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise ConfigError(f"a key has {KEY_BYTES} bytes")

    @property
    def id(self) -> str:
        """16 hexadecimal digits that name the key in reports and audit rows; nothing of the key follows from them."""
        return hmac.digest(self.secret, b"dicomnode key id", "sha256")[:8].hex()

    @property
    def project(self) -> str:
        """The id of the first generation: it names the project for life."""
        return self.retired[-1].id if self.retired else self.id

    @classmethod
    def load(cls, path: Path, what: str = "the key of the project") -> ProjectKey:
        """Read the key file. ``what``: its name in the message.

        Raises ConfigError when it is missing, open to others (mode 0600 or stricter), no key or no random one.
        """
        secrets_found = _secrets(read_private(path, what), what)
        key: ProjectKey | None = None
        for secret in reversed(secrets_found):
            key = cls(secret, () if key is None else (_alone(key), *key.retired))
        if key is None:
            raise ConfigError(f"{what} is empty")
        return key

    @classmethod
    def create(cls, path: Path) -> ProjectKey:
        """Make a new key file of mode 0600. Raises ConfigError when there is one already: a key is never replaced."""
        key = cls(secrets.token_bytes(KEY_BYTES))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, (key,))
        except FileExistsError as error:
            raise ConfigError("there is a key already; it is never overwritten") from error
        except OSError as error:
            raise ConfigError(f"the key cannot be written: {error.strerror}") from error
        return key

    @classmethod
    def rotate(cls, path: Path) -> ProjectKey:
        """Put a new key in force and retire the one that was; returns the new one. Raises ConfigError.

        The file is replaced in one step: whoever reads it finds the old generation or the new one.
        """
        before = cls.load(path)
        key = cls(secrets.token_bytes(KEY_BYTES), (_alone(before), *before.retired))
        _replace(path, (key, *key.retired))
        return key

    @classmethod
    def forget_retired(cls, path: Path) -> None:
        """Leave only the key in force in the file. Raises ConfigError."""
        _replace(path, (cls.load(path),))


def _alone(key: ProjectKey) -> ProjectKey:
    return ProjectKey(key.secret)


def _secrets(content: bytes, what: str) -> list[bytes]:
    if len(content) == KEY_BYTES:
        found = [content]
    else:
        lines = [line.strip() for line in content.splitlines() if line.strip()]
        if not all(_HEX_KEY.fullmatch(line) for line in lines):
            raise ConfigError(f"{what} is none: {KEY_BYTES} raw bytes, or lines of {2 * KEY_BYTES} hexadecimal digits")
        found = [bytes.fromhex(line.decode()) for line in lines]
    if any(len(set(secret)) < _LEAST_VARIETY for secret in found):
        raise ConfigError(f"{what} is not random: make one with `dicomnode deid key FILE`")
    if len(set(found)) != len(found):
        raise ConfigError(f"{what} stands there twice")
    return found


def _write(path: Path, keys: Iterable[ProjectKey]) -> None:
    """Durable before it is used: pseudonyms made with a key that is lost cannot be linked to anything."""
    create_private(path, "".join(f"{key.secret.hex()}\n" for key in keys).encode("ascii"))
    sync_folder(path.parent)


def _replace(path: Path, keys: Iterable[ProjectKey]) -> None:
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        _write(fresh, keys)
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ConfigError(f"the key cannot be written: {error.strerror}") from error
