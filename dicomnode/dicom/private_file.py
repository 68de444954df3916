"""Files that hold a secret: refused where others can read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dicomnode.errors import ConfigError

MAX_BYTES = 64 * 1024


def require_private(path: Path, what: str) -> None:
    """Raise ConfigError unless ``path`` is a file that nobody else can read. ``what``: its name in the message.

    The rule of PostgreSQL for its key file: it belongs to the user that runs the node (mode 0600 or stricter) or to
    root (then its group may read it too: 0640 or stricter).
    """
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{what} is no file")
    _require_private(found, what)


def read_private(path: Path, what: str) -> bytes:
    """The first MAX_BYTES of ``path``; its mode is that of the very file that is read. Raises ConfigError."""
    require_private(path, what)
    try:
        with path.open("rb") as file:
            _require_private(os.fstat(file.fileno()), what)
            return file.read(MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}") from error


def create_private(path: Path, content: bytes) -> None:
    """Write the new file ``path``, mode 0600, and fsync it; its name is the caller's to make durable.

    Raises OSError: FileExistsError when it is there already, since a key is never written over.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _require_private(found: os.stat_result, what: str) -> None:
    ours = os.geteuid()
    if found.st_uid not in (ours, 0):
        raise ConfigError(f"{what} belongs to another user: its owner has to be the user that runs the node, or root")
    by_group = found.st_uid == 0 and ours != 0
    if found.st_mode & (stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP | (0 if by_group else stat.S_IRGRP)):
        allowed = "0640" if by_group else "0600"
        raise ConfigError(f"{what} is open to others: its mode has to be {allowed} or stricter")
