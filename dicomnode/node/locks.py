"""One node on one data folder and one database: a kernel lock per role, which a dead process cannot leave behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dicomnode.errors import ConfigError
from dicomnode.store.spool import sync_folder


@contextmanager
def exclusive(data_dir: Path, roles: Iterable[str], database: Path | None = None) -> Iterator[None]:
    """Hold the lock of every role on the folder and the ``database`` file. Raises ConfigError when another node does.

    Roles of one node may run as several processes on one data folder, each role once. A database that lies elsewhere
    is locked too: two nodes with data folders of their own and one database would take each other's jobs.
    """
    with ExitStack() as stack:
        for role in sorted(roles):
            stack.enter_context(_lock(data_dir / f"{role}.lock", role, "node.data_dir"))
            if database is not None:
                path = database.with_name(f"{database.name}.{role}.lock")
                stack.enter_context(_lock(path, role, "node.database"))
        yield


@contextmanager
def _lock(path: Path, role: str, setting: str) -> Iterator[None]:
    try:
        _make_durable(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{setting}: {path.parent} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(f"{setting}: another node already runs the role {role} on it") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _make_durable(folder: Path) -> None:
    """Make ``folder`` and sync the folders that new names were written to: a power cut must not take it away."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in new:
        sync_folder(path.parent)
