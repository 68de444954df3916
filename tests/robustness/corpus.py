"""The files: from folders and tar archives, unpacked under names of ours, within limits."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

MAX_FILE_BYTES = 256 * 2**20
MAX_TOTAL_BYTES = 4 * 2**30
MAX_FILES = 20_000
ARCHIVES = (".tar", ".tar.xz", ".tar.gz", ".tgz")
ABOUT = {".csv", ".md", ".txt", ".json", ".html"}
"""Suffixes of what describes a corpus and is no part of it."""


class TooMuch(Exception):
    """A corpus beyond the limits, or an archive with something else than plain files and folders in it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One file. ``name``: as its archive or folder calls it; ``category``: the folder part of that; ``path``: here."""

    name: str
    category: str
    path: Path


def gather(sources: Iterable[Path], folder: Path) -> list[Sample]:
    """Copy every file of the sources into the empty ``folder``: all of an archive, ``.dcm`` or no suffix of a folder.

    Names from outside never become paths: the copies are numbered. Raises TooMuch.
    """
    samples: list[Sample] = []
    total = 0
    for name, stream in _members(sources):
        content = stream.read(MAX_FILE_BYTES + 1)
        total += len(content)
        if len(content) > MAX_FILE_BYTES or total > MAX_TOTAL_BYTES or len(samples) >= MAX_FILES:
            raise TooMuch("a file, or all of them, beyond the limits")
        path = folder / f"{len(samples):05d}"
        path.write_bytes(content)
        samples.append(Sample(name, str(PurePosixPath(name).parent), path))
    return samples


def _members(sources: Iterable[Path]) -> Iterator[tuple[str, IO[bytes]]]:
    for source in sources:
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
        for path in files:
            if path.name.endswith(ARCHIVES):
                yield from _archived(path)
            elif path.suffix in ("", ".dcm"):
                name = path.relative_to(source).as_posix() if source.is_dir() else path.name
                with path.open("rb") as stream:
                    yield (f"{source.name}/{name}" if "/" not in name else name), stream


def _archived(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isreg() or member.size > MAX_FILE_BYTES:
                raise TooMuch(f"{path.name} holds a link, a device or a file beyond the limit")
            stream = archive.extractfile(member)
            if stream is not None and PurePosixPath(member.name).suffix not in ABOUT:
                yield member.name, stream
