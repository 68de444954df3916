"""What a run has done so far, one JSON line per file: a killed run goes on where it was. Holds no patient data."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

from dicomnode.errors import ConfigError

_NAME, _FORMAT = "journal.jsonl", "1"


class State(StrEnum):
    """What became of a file. Only FAILED is tried again by the next run."""

    DONE = "done"
    HELD = "held back"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the source. ``file``: its keyed name. ``size``, ``changed``: bytes and mtime (ns) of the source;
    ``out``: path below the target, ``out_size`` and ``sha256`` (hex) of it."""

    file: str
    size: int
    changed: int
    state: State
    out: str = ""
    out_size: int = 0
    sha256: str = ""
    reason: str = ""
    detail: str = ""
    actions: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def still_holds(self, source: os.stat_result, target: Path) -> bool:
        """Whether the file is as it was then and nothing is left to do for it."""
        if (source.st_size, source.st_mtime_ns) != (self.size, self.changed) or self.state is State.FAILED:
            return False
        if self.state is State.HELD:
            return True
        try:
            return (target / self.out).stat().st_size == self.out_size
        except OSError:
            return False


class Journal:
    """``journal.jsonl`` in ``folder``. One process at a time has it open."""

    def __init__(self, folder: Path, fingerprint: Mapping[str, str], *, resume: bool) -> None:
        """Read what is there. Raises ConfigError when a run goes on, or one with another profile or key has begun."""
        self._path = folder / _NAME
        self.entries: dict[str, Entry] = {}
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ConfigError("another run is writing into this target") from error
        if not resume:
            self._file.truncate(0)
        self._begin({"format": _FORMAT, **fingerprint})

    def _begin(self, head: dict[str, str]) -> None:
        lines = list(_lines(self._file.read()))
        if lines and lines[0] != head:
            self._file.close()
            message = "the target was made with another profile, key or prefix: take another, or start with --no-resume"
            raise ConfigError(message)
        for line in lines[1:]:
            entry = _entry(line)
            self.entries[entry.file] = entry
        self._file.seek(0, os.SEEK_END)
        if not lines:
            self._file.seek(0)
            self._file.truncate()
            self._write([head])

    def add(self, entries: Iterable[Entry]) -> None:
        """Write down what is done. Durable when it returns."""
        found = list(entries)
        self.entries.update((entry.file, entry) for entry in found)
        self._write([asdict(entry) for entry in found])

    def _write(self, lines: list[dict[str, Any]]) -> None:
        self._file.write(b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def _lines(content: bytes) -> Iterable[dict[str, Any]]:
    """The complete lines; the last one may be torn."""
    for line in content.split(b"\n")[:-1]:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _entry(line: dict[str, Any]) -> Entry:
    return Entry(**{**line, "state": State(line["state"]), "warnings": tuple(line["warnings"])})
