"""A file that several processes, and nodes, append lines to: no line is torn, none is written into another."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from dicomnode.errors import Transient
from dicomnode.store.spool import sync_folder

LOCK_S = 5.0
_LOOK_AGAIN_S = 0.02


def append_line(path: Path, line: str) -> None:
    """Append ``line`` and its end in one write under a lock, fsynced.

    A line that a power cut tore stays torn; the new one begins behind it. Raises Transient when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(descriptor)
            _write(descriptor, line)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(path.parent)
    except OSError as error:
        raise Transient(f"audit checkpoint: cannot be written: {error.strerror}") from error


def _lock(descriptor: int) -> None:
    """The lock of the file, which ends with it. Raises Transient when another process does not give it back."""
    until = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise Transient("audit checkpoint: cannot be written: another process holds the file") from error
            time.sleep(_LOOK_AGAIN_S)
        else:
            return


def _write(descriptor: int, line: str) -> None:
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    whole = f"{chr(10) * torn}{line}\n".encode()
    if os.write(descriptor, whole) != len(whole):
        raise Transient("audit checkpoint: cannot be written: the disk is full")
    os.fsync(descriptor)
