"""Spool files: durable before anybody is told. Names are digests, never UIDs or anything a peer chose."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from pathlib import Path

from dicomnode.errors import Transient

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-][A-Za-z0-9._-]*")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Spool:
    """A folder of immutable files below ``root``; the rows say what they are.

    ``incoming`` holds unfinished files, which a start removes; ``received`` and ``derived`` hold finished ones.
    """

    def __init__(self, root: Path) -> None:
        """Create the folders. Raises OSError when that is impossible."""
        self.root = root
        self._durable: set[Path] = set()
        for name in ("incoming", "received", "derived"):
            (root / name).mkdir(parents=True, exist_ok=True)
        _sync_folder(root)
        _sync_folder(root.parent)

    def absolute(self, path: str) -> Path:
        """The file of a row's relative ``path``."""
        return self.root / path

    def free_bytes(self) -> int:
        """Free space on the file system of the spool, in bytes. Raises Transient when the disk does not answer."""
        try:
            return shutil.disk_usage(self.root).free
        except OSError as error:
            raise Transient(f"spool: disk error {error.errno}") from error

    def clear_incoming(self) -> int:
        """Remove what an earlier run left unfinished; returns how many files."""
        leftovers = list((self.root / "incoming").iterdir())
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        return len(leftovers)

    def store(self, content: tuple[bytes | memoryview, ...], area: str, name: str) -> str:
        """Write ``content`` (its parts in order) durably as ``area``/xx/``name`` and return that relative path.

        The file and its folder are fsynced before this returns; the same name is replaced atomically.
        Raises Transient when the disk is full or fails; no unfinished file is left then. Raises ValueError for a
        name that could leave the spool.
        """
        if not _NAME.fullmatch(name):
            raise ValueError("a spool file is named by letters, digits, dots, dashes and underscores")
        folder = self.root / area / name[:2]
        temporary = self.root / "incoming" / f"{uuid.uuid4().hex}.part"
        try:
            self._make(folder)
            with temporary.open("xb") as file:
                for part in content:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(folder / name)
            _sync_folder(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            reason = "disk full" if error.errno in FULL else f"disk error {error.errno}"
            raise Transient(f"spool: {reason}") from error
        return f"{area}/{name[:2]}/{name}"

    def _make(self, folder: Path) -> None:
        """Have ``folder`` on disk. That it exists is not enough: its maker may not have synced its parent yet."""
        if folder not in self._durable:
            folder.mkdir(parents=True, exist_ok=True)
            _sync_folder(folder.parent)
            self._durable.add(folder)

    def remove(self, path: str) -> None:
        """Remove a finished file; a missing one is no error."""
        self.absolute(path).unlink(missing_ok=True)


def digest(*parts: bytes | memoryview) -> str:
    """SHA-256 over ``parts`` in order, as hex."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
