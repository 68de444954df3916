"""Results into a folder: ``StudyInstanceUID/SeriesInstanceUID/SOPInstanceUID.dcm``, each whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path

from dicomnode.config.peers import FolderPeer
from dicomnode.deliver.sending import OutboundFile, SentStatus, failed, not_sent, stored, unreadable
from dicomnode.dicom.header import read_header
from dicomnode.dicom.header_source import MalformedHeader
from dicomnode.dicom.references import require_uid
from dicomnode.errors import Permanent, Transient


def write_files(peer: FolderPeer, files: Sequence[OutboundFile]) -> Generator[SentStatus, None, None]:
    """Copy ``files`` byte for byte below the peer's folder and yield one SentStatus for each, in order.

    A file appears under its name only when it is whole and on the disk. The same bytes under that name are fine,
    others are a failure and stay as they are. The folder itself has to exist: in place of a share that is not mounted
    the node would fill its own disk. Disk faults come as transient.
    """
    for file in files:
        try:
            yield _write(peer.folder, file)
        except Permanent as error:
            yield failed(file, str(error))
        except Transient as error:
            yield not_sent(file, str(error))
        except OSError as error:  # of the file itself; those of the folder are Transient
            yield unreadable(file, error)


def _write(folder: Path, file: OutboundFile) -> SentStatus:
    target = _target(folder, file)
    try:
        if target.exists():
            if _digest(target) != _digest(file.path):
                raise Permanent("another file has its name already")
        else:
            _place(file.path, target)
        for changed in (target.parent, target.parent.parent, folder):
            _sync(changed)
    except OSError as error:
        raise Transient(fault(folder) or f"folder: {os.strerror(error.errno or errno.EIO)}") from error
    return stored(file)


def fault(folder: Path) -> str:
    """Why nothing can be written into ``folder``; empty when it can."""
    if not folder.is_dir():
        return "the folder does not exist, or its share is not mounted"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "the folder is not writable for this user"


def _target(folder: Path, file: OutboundFile) -> Path:
    """The name is made of UIDs alone, so that it cannot lead out of ``folder``."""
    try:
        header = read_header(file.path, {"StudyInstanceUID", "SeriesInstanceUID"})
        study, series = (require_uid(str(header[key][0])) for key in ("StudyInstanceUID", "SeriesInstanceUID"))
        return folder / study / series / f"{require_uid(file.SOPInstanceUID)}.dcm"
    except (MalformedHeader, KeyError, ValueError) as error:
        raise Permanent("the file names no Study, Series and Instance") from error


def _place(source: Path, target: Path) -> None:
    """Temporary file, fsync, rename. What a crash left goes first; no link that others put there is followed.

    Raises Permanent when a link stands in the place of a folder.
    """
    for made in (target.parent.parent, target.parent):
        made.mkdir(exist_ok=True)
        if made.is_symlink():
            raise Permanent("a link has the name of its folder")
    temporary = target.with_name(f".{target.stem}.part")
    try:
        temporary.unlink(missing_ok=True)
        with source.open("rb") as content, temporary.open("xb") as file:
            shutil.copyfileobj(content, file, 1024 * 1024)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def _sync(folder: Path) -> None:
    """Network shares that cannot sync a folder say EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
