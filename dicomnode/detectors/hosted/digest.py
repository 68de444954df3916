"""The hash that lets a hosted model in: of one file, or of a folder with all its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dicomnode.errors import ConfigError

_CHUNK = 1024 * 1024


def digest(path: Path) -> str:
    """SHA-256 (hex) of a file, or of a folder: of the lines that ``sha256sum`` prints of its files, in order of path.

    In a shell, inside the folder: ``find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum``, and
    ``sha256sum`` of that. Raises ConfigError for what does not exist or cannot be read, and for a
    link inside the folder: what it leads to could change while the hash stays.
    """
    try:
        return _of_folder(path) if path.is_dir() else _of_file(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from error


def _of_folder(folder: Path) -> str:
    lines = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ConfigError(f"{folder}: {name} is a link; a hosted model holds plain files only")
        if path.is_file():
            lines.append((name, f"{_of_file(path)}  {name}\n"))
    if not lines:
        raise ConfigError(f"{folder}: there is no file in it")
    return hashlib.sha256("".join(line for _, line in sorted(lines)).encode()).hexdigest()


def _of_file(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def require(path: Path, sha256: str) -> None:
    """Raises ConfigError when ``path`` has not the SHA-256 that the configuration allows."""
    found = digest(path)
    if found != sha256:
        raise ConfigError(f"{path.name} has SHA-256 {found[:12]}…, the configuration allows {sha256[:12]}… only")
