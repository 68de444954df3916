"""One DICOM file in, one out: temporary file, fsync, rename. The pixels are copied as they lie there."""

from __future__ import annotations

import hashlib
import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from secrets import token_hex

import pydicom
from pydicom.dataset import FileDataset

from dicomnode.deid.engine import Applied, Deidentifier
from dicomnode.deid.part10 import Part10, parse_part10
from dicomnode.deid.pixel_values import UNDECODABLE
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.tree import Span
from dicomnode.errors import Transient
from dicomnode.store.spool import sync_folder

_PIECE = 4 << 20
_DEFERRED = 1 << 16


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """``applied``: what was done. ``before``, ``after``: SHA-256 (hex) of both files. ``size``: bytes after."""

    applied: Applied
    before: str
    after: str
    size: int


@contextmanager
def planned(source: Path, deidentifier: Deidentifier) -> Iterator[tuple[Part10, Applied, bool]]:
    """The new tree of ``source``, what was done, and whether its spans lie in the file itself.

    They lie elsewhere when the data set was inflated or its pixels were masked. Raises Quarantined, OSError.
    """
    with source.open("rb", buffering=0) as stream:
        part = parse_part10(stream)
        inside = part.in_file
        dataset = _dataset(source)
        decision = deidentifier.examine(dataset)
        if decision.masked:
            part, inside = parse_part10(_encoded(dataset)), False
        new, applied = deidentifier.transform(part, decision)
        yield new, applied, inside


def deidentify_file(
    source: Path,
    target: Path,
    deidentifier: Deidentifier,
    *,
    temporary: Path | None = None,
    before_release: Callable[[FileOutcome], None] | None = None,
) -> FileOutcome:
    """De-identify ``source`` into ``target``, in this process: for files that can be trusted to be well-formed.

    ``temporary``: folder on the same file system for the unfinished file, else that of ``target``. ``before_release``:
    called when the new file is durable and before it has its name: what must be recorded first. Raises Quarantined;
    Transient when a disk fails.
    """
    try:
        with planned(source, deidentifier) as (new, applied, _):
            before = file_sha256(source)
            with written(new.whole_pieces(), temporary or target.parent) as (unfinished, after, size):
                outcome = FileOutcome(applied, before, after, size)
                if before_release is not None:
                    before_release(outcome)
                place(unfinished, target)
        return outcome
    except OSError as error:
        raise Transient(f"de-identification: disk error {error.errno}") from error


@contextmanager
def written(pieces: Iterable[bytes | memoryview], folder: Path) -> Iterator[tuple[Path, str, int]]:
    """A durable file of ``pieces`` in ``folder``, its SHA-256 and size. Gone at the end unless it was renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{token_hex(16)}.part"
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=1 << 20) as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
                size += len(piece)
            file.flush()
            os.fsync(file.fileno())
        yield unfinished, digest.hexdigest(), size
    finally:
        unfinished.unlink(missing_ok=True)


def place(unfinished: Path, target: Path) -> None:
    """Give a durable file its name; the name is durable too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished.replace(target)
    sync_folder(target.parent)


def copied(source: Path, span: Span) -> Iterator[bytes]:
    """The bytes of ``span`` of a file. Raises Quarantined when it has become shorter."""
    with source.open("rb", buffering=0) as file:
        file.seek(span.start)
        left = span.length
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise Quarantined(Reason.CHANGED)
            left -= len(piece)
            yield piece


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dataset(source: Path) -> FileDataset:
    """For the pixel policy. Long values are read when they are asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pydicom.dcmread(source, force=True, defer_size=_DEFERRED)
        except RecursionError:
            raise Quarantined(Reason.TOO_DEEP) from None
        except (zlib.error, *UNDECODABLE) as error:
            if isinstance(error, OSError) and error.errno is not None:  # without: pydicom's own word for nonsense
                raise
            raise Quarantined(Reason.MALFORMED, "the pixel gate cannot read it") from None


def _encoded(dataset: FileDataset) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(buffer)
    return buffer.getvalue()
