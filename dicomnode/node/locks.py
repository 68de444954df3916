"""One node on one data folder: a kernel lock per role, which a dead process cannot leave behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dicomnode.errors import ConfigError


@contextmanager
def exclusive(data_dir: Path, roles: Iterable[str]) -> Iterator[None]:
    """Hold the lock of every role. Raises ConfigError when another node holds one."""
    with ExitStack() as stack:
        for role in sorted(roles):
            stack.enter_context(_lock(data_dir / f"{role}.lock", role))
        yield


@contextmanager
def _lock(path: Path, role: str) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"node.data_dir: {path.parent} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(f"node.data_dir: another node already runs the role {role} on it") from error
    try:
        yield
    finally:
        os.close(descriptor)
