"""The files of a backup: copied with their digests, listed in ``SHA256SUMS``, described by ``manifest.json``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dicomnode.errors import Permanent, Transient
from dicomnode.store.snapshot import NeededFile
from dicomnode.store.spool import sync_folder

FORMAT = 1
DATABASE = "dicomnode.sqlite3"
SPOOL = "spool"
SUMS = "SHA256SUMS"
MANIFEST = "manifest.json"
BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Read:
    """A file that was read to its end: its size in bytes, SHA-256 of the whole and of its data set."""

    size: int
    whole: str
    tail: str

    def fault(self, needed: NeededFile) -> str:
        """What is wrong with it as the file of ``needed``; empty when it is that file."""
        if self.size < needed.size or (needed.whole and self.size != needed.size):
            return "it is not of the size that was stored"
        return "" if (self.whole if needed.whole else self.tail) == needed.sha256 else "it is not what was stored"


def copy(source: Path, target: Path | None, tail: int = 0, *, link: bool = False) -> Read:
    """Read ``source`` and copy it to the new file ``target``, fsynced; ``tail``: bytes of the data set at its end.

    ``link``: as a hard link where the file system is the same. Raises FileNotFoundError when there is no ``source``,
    Transient when the disk is full or fails.
    """
    try:
        if target is None:
            with source.open("rb") as file:
                return _read(file, tail, None)
        target.parent.mkdir(parents=True, exist_ok=True)
        if link and _linked(source, target):
            return copy(source, None, tail)
        with source.open("rb") as file, target.open("xb") as out:
            read = _read(file, tail, out)
            out.flush()
            os.fsync(out.fileno())
        return read
    except FileNotFoundError:
        if target is not None:
            target.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise Transient(f"{(target or source).name}: {error.strerror}") from error


def _linked(source: Path, target: Path) -> bool:
    with contextlib.suppress(OSError):
        os.link(source, target)
        return True
    return False


def _read(file: BinaryIO, tail: int, out: BinaryIO | None) -> Read:
    start = max(0, os.fstat(file.fileno()).st_size - tail)
    whole, data, position = hashlib.sha256(), hashlib.sha256(), 0
    while block := file.read(BLOCK):
        whole.update(block)
        data.update(memoryview(block)[max(0, start - position) :])
        position += len(block)
        if out is not None:
            out.write(block)
    return Read(position, whole.hexdigest(), data.hexdigest())


def write_lists(folder: Path, sums: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``SHA256SUMS`` and ``manifest.json``, fsynced, and return the manifest. Raises Transient."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items())).encode()
    manifest = {**facts, "format": FORMAT, "sums_sha256": hashlib.sha256(lines).hexdigest()}
    manifest["sha256"] = _self_digest(manifest)
    _write(folder / SUMS, lines)
    _write(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")
    return manifest


def read_lists(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(manifest, path to SHA-256) of the backup in ``folder``. Raises Permanent when one is missing or altered."""
    try:
        content, lines = (folder / MANIFEST).read_bytes(), (folder / SUMS).read_bytes()
    except OSError as error:
        raise Permanent(f"{folder} is no backup: {Path(error.filename or '').name}: {error.strerror}") from error
    try:
        manifest = json.loads(content)
        sound = isinstance(manifest, dict) and manifest.get("sha256") == _self_digest(manifest)
    except (ValueError, RecursionError):
        sound = False
    if not sound:
        raise Permanent(f"{MANIFEST}: it is not what was written")
    if manifest["format"] != FORMAT:
        raise Permanent(f"{MANIFEST}: a backup of format {manifest['format']}, this dicomnode knows {FORMAT}")
    if hashlib.sha256(lines).hexdigest() != manifest["sums_sha256"]:
        raise Permanent(f"{SUMS}: it is not what was written")
    pairs = (line.split("  ", 1) for line in lines.decode().splitlines())
    return manifest, {path: digest for digest, path in pairs}


def _self_digest(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Transient(f"{path.name}: {error.strerror}") from error


def sync_folders(root: Path) -> None:
    """Make the names of everything below ``root`` durable, and ``root``'s own. Raises OSError."""
    for folder in (root.parent, root, *(path for path in root.rglob("*") if path.is_dir())):
        sync_folder(folder)


def sync_file(path: Path) -> None:
    """Make the content of a file durable. Raises OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
