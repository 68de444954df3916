"""Spool files: durable before anybody is told. Names are digests, never UIDs or anything a peer chose."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dicomnode.errors import Transient
from dicomnode.store.sync import begin_to_write

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-][A-Za-z0-9._-]*")
WHOLE = "whole"
"""Owner of unfinished files that are written in one go."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Spool:
    """A folder of immutable files below ``root``; the rows say what they are.

    ``incoming`` holds unfinished files, which a start removes; ``received`` and ``derived`` hold finished ones.
    """

    def __init__(self, root: Path) -> None:
        """Create the folders. Raises OSError when that is impossible."""
        self.root = root
        self._durable: dict[tuple[str, str], str] = {}
        self._incoming = str(root / "incoming")
        for name in ("incoming", "received", "derived", "journal"):
            (root / name).mkdir(parents=True, exist_ok=True)
        sync_folder(root)
        sync_folder(root.parent)

    @property
    def journal(self) -> Path:
        """The folder of the intake journals."""
        return self.root / "journal"

    def absolute(self, path: str) -> Path:
        """The file of a row's relative ``path``."""
        return self.root / path

    def free_bytes(self) -> int:
        """Free space on the file system of the spool, in bytes. Raises Transient when the disk does not answer."""
        try:
            return shutil.disk_usage(self.root).free
        except OSError as error:
            raise Transient(f"spool: disk error {error.errno}") from error

    def unfinished(self) -> list[str]:
        """Names of the unfinished files; a name begins with what ``begin`` was told of its owner."""
        return [entry.name for entry in os.scandir(self.root / "incoming")]

    def unfinished_age_s(self, name: str) -> float | None:
        """Seconds since an unfinished file was last written, by the clock of the file system; None when it is gone."""
        try:
            return time.time() - (self.root / "incoming" / name).stat().st_mtime
        except FileNotFoundError:
            return None

    def drop_unfinished(self, name: str) -> None:
        """Remove an unfinished file of an owner that is gone."""
        (self.root / "incoming" / name).unlink(missing_ok=True)

    def begin(self, area: str, owner: str) -> SpoolFile:
        """Begin a file of ``area`` that is written piece by piece; ``owner`` is a digit or letter word.

        Raises Transient when the disk is full or fails.
        """
        with _translated():
            temporary = f"{self._incoming}/{owner}-{os.urandom(16).hex()}.part"
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            return SpoolFile(self, area, temporary, descriptor)

    def create(self, area: str, name: str) -> SpoolFile:
        """Begin a file under its final name, for one whose content and name are durable elsewhere.

        What a dead process left of it is known by its name, in which the Association stands, and that no row has it.
        Raises Transient; ValueError for a name that could leave the spool.
        """
        with _translated():
            final = f"{self.folder_of(area, name)}/{name}"
            descriptor = os.open(final, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            return SpoolFile(self, area, final, descriptor)

    def store(self, content: tuple[bytes | memoryview, ...], area: str, name: str) -> str:
        """Write ``content`` (its parts in order) durably as ``area``/xx/``name`` and return that relative path.

        The file and its folder are fsynced before this returns; the same name is replaced atomically.
        Raises Transient when the disk is full or fails; no unfinished file is left then. Raises ValueError for a
        name that could leave the spool.
        """
        with self.begin(area, WHOLE) as file:
            for part in content:
                file.write(part)
            return file.replace(name)

    def prepare(self, area: str) -> None:
        """Make every folder of ``area`` at once, so that no file waits for its own. Raises OSError."""
        for number in range(256):
            folder = self.root / area / f"{number:02x}"
            folder.mkdir(exist_ok=True)
            self._durable[area, folder.name] = str(folder)
        sync_folder(self.root / area)

    @staticmethod
    def path(area: str, name: str) -> str:
        """The path within the spool of a file called ``name``: area/xx/name."""
        return f"{area}/{name[:2]}/{name}"

    def folder_of(self, area: str, name: str) -> str:
        """The folder of a file called ``name``, durably there. Raises ValueError for a name that could leave the spool.

        That it exists is not enough: its maker may not have synced its parent yet.
        """
        if not _NAME.fullmatch(name):
            raise ValueError("a spool file is named by letters, digits, dots, dashes and underscores")
        known = self._durable.get((area, name[:2]))
        if known is not None:
            return known
        folder = self.root / area / name[:2]
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        self._durable[area, name[:2]] = str(folder)
        return str(folder)

    def remove(self, path: str) -> None:
        """Remove a finished file; a missing one is no error."""
        self.absolute(path).unlink(missing_ok=True)


class SpoolFile:
    """A file on its way into the spool; what is neither kept nor has replaced another when the block ends is removed.

    ``size``: bytes written so far. ``descriptor``: for reading them back.
    """

    def __init__(self, spool: Spool, area: str, temporary: str, descriptor: int) -> None:
        self._spool, self._area, self._temporary = spool, area, temporary
        self.descriptor = descriptor
        self.size = 0
        self._folder = ""
        self._path: str | None = temporary

    def __enter__(self) -> SpoolFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, *parts: bytes | memoryview) -> None:
        """Append ``parts``. Raises Transient when the disk is full or fails."""
        with _translated():
            write_all(self.descriptor, parts, self.size)
        self.size += sum(map(len, parts))

    def place(self, name: str) -> str:
        """Give it its name, area/xx/``name``, and return that path within the spool.

        It is not durable yet; nobody is told of it before it is. Raises Transient; ValueError for a name that could
        leave the spool.
        """
        with _translated():
            self._folder = self._spool.folder_of(self._area, name)
            os.replace(self._temporary, f"{self._folder}/{name}")  # noqa: PTH105 - a Path costs more than the call
            self._path = f"{self._folder}/{name}"
        return self._spool.path(self._area, name)

    def sync(self) -> None:
        """Make a placed file durable.

        One journal commit of the file system carries content, name and folder, so that the folder's own fsync finds
        nothing left to do. Raises Transient.
        """
        with _translated():
            os.fsync(self.descriptor)
            if self._folder:
                sync_folder(self._folder)

    def keep(self) -> None:
        """A row names it now: closing leaves it there."""
        self._path = None

    def replace(self, name: str) -> str:
        """Make it durable as area/xx/``name``; a file of this name stays whole until this one is. See ``place``."""
        with _translated():
            folder = self._spool.folder_of(self._area, name)
            os.fsync(self.descriptor)
            os.replace(self._temporary, f"{folder}/{name}")  # noqa: PTH105 - a Path costs more than the call
            self._path = None
            sync_folder(folder)
        return self._spool.path(self._area, name)

    def write_soon(self) -> None:
        """Close the file; the disk gets it now rather than all at once later."""
        begin_to_write(self.descriptor)
        self.close()

    def close(self) -> None:
        """Close the file, and remove it unless it is to stay."""
        if self.descriptor < 0:
            return
        os.close(self.descriptor)
        self.descriptor = -1
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108 - a Path costs more than the call


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "disk full" if error.errno in FULL else f"disk error {error.errno}"
        raise Transient(f"spool: {reason}") from error


def digest(*parts: bytes | memoryview) -> str:
    """SHA-256 over ``parts`` in order, as hex."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def write_all(descriptor: int, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> None:
    """Write ``parts`` in order at ``offset``, however often the kernel has to be asked. Raises OSError."""
    rest = [memoryview(part) for part in parts if len(part)]
    while rest:
        written = os.pwritev(descriptor, rest, offset)
        offset += written
        while rest and written >= len(rest[0]):
            written -= len(rest.pop(0))
        if rest:
            rest[0] = rest[0][written:]


def sync_folder(folder: Path | str) -> None:
    """Make the names in ``folder`` durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
