"""What a power cut leaves of a folder, worked out from a record of all that was done to it (recorder.c).

The disk is the strictest that POSIX allows: bytes are there once an fsync of their file that began after they were
written has ended, a name once an fsync of its folder has; everything else is lost, or, in a random cut, any part of
it is there in sectors. A file whose name survived and whose bytes did not is empty.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path, PurePosixPath

SECTOR = 512
_HEAD = struct.Struct("=QQQQIHHHHI")


class Kind(IntEnum):
    """What an event was; the numbers of recorder.c."""

    CREATE = 1
    MKDIR = 2
    WRITE = 3
    TRUNCATE = 4
    EXTEND = 5
    RENAME = 6
    LINK = 7
    UNLINK = 8
    RMDIR = 9
    SYNC_BEGIN = 10
    SYNC_END = 11
    SEND = 12
    UNSUPPORTED = 13


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the record. ``offset``: place of a write, new size, or the sequence of the begin of a sync.

    ``inode``: of the file or folder, 0 in a sync for all of them, the peer's port in a SEND.
    """

    sequence: int
    kind: Kind
    inode: int
    offset: int
    pid: int
    path: str
    second: str
    data: bytes


def read_record(path: Path) -> list[Event]:
    """Every event, in order. Raises ValueError for a record with holes."""
    content, at, events = path.read_bytes(), 0, []
    while at < len(content):
        sequence, inode, offset, length, pid, kind, first, second, _, _ = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        names = content[at : at + first].decode(), content[at + first : at + first + second].decode()
        at += first + second
        events.append(Event(sequence, Kind(kind), inode, offset, pid, *names, content[at : at + length]))
        at += length
    if [event.sequence for event in events] != list(range(1, len(events) + 1)):
        raise ValueError("the record is not whole")
    return events


@dataclass(slots=True)
class _Change:
    """A change that no sync covers yet: bytes at ``offset``, a ``size``, or a name that points to ``target``."""

    sequence: int
    offset: int = 0
    data: bytes = b""
    size: int | None = None
    grow: bool = False
    name: str = ""
    target: _Node | None = None


@dataclass(slots=True, eq=False)
class _Node:
    """A file (``names`` is None) or a folder: what is on the disk, and what is only in memory."""

    content: bytearray = field(default_factory=bytearray)
    names: dict[str, _Node] | None = None
    pending: list[_Change] = field(default_factory=list)

    def settle(self, before: int) -> None:
        """A sync that began at ``before`` has ended."""
        for change in self.pending:
            if change.sequence < before:
                _apply(change, self.content, self.names)
        self.pending = [change for change in self.pending if change.sequence >= before]

    def after_cut(self, chance: random.Random | None) -> tuple[bytearray, dict[str, _Node] | None]:
        """What is left; without ``chance`` only what is certain."""
        content, names = bytearray(self.content), None if self.names is None else dict(self.names)
        for change in self.pending if chance else ():
            for part in _sectors(change):
                if chance is not None and chance.random() < 0.5:
                    _apply(part, content, names)
        return content, names


def _apply(change: _Change, content: bytearray, names: dict[str, _Node] | None) -> None:
    if names is not None:
        if change.target is None:
            names.pop(change.name, None)
        else:
            names[change.name] = change.target
        return
    if change.size is not None:
        if not change.grow:
            del content[change.size :]
        content.extend(bytes(max(0, change.size - len(content))))
        return
    content.extend(bytes(max(0, change.offset - len(content))))
    content[change.offset : change.offset + len(change.data)] = change.data


def _sectors(change: _Change) -> Iterator[_Change]:
    """A write goes to the disk sector by sector; everything else at once."""
    if not change.data:
        yield change
        return
    at = 0
    while at < len(change.data):
        step = SECTOR - (change.offset + at) % SECTOR
        yield _Change(change.sequence, change.offset + at, change.data[at : at + step])
        at += step


class Disk:
    """The folder ``root`` as the record tells it, event by event. It stands empty and durable at the beginning."""

    def __init__(self, root: Path) -> None:
        self._root = PurePosixPath(root)
        self._top = _Node(names={})
        self._live: dict[str, _Node] = {str(root): self._top}
        self._inodes: dict[int, _Node] = {root.stat().st_ino: self._top}

    def play(self, event: Event) -> None:
        """Take in the next event. Raises ValueError for what this model does not know."""
        if event.kind is Kind.UNSUPPORTED:
            raise ValueError(f"{event.path} on {event.second}")
        if event.kind in (Kind.CREATE, Kind.MKDIR):
            node = self._inodes[event.inode] = _Node(names={} if event.kind is Kind.MKDIR else None)
            self._name(event, event.path, node)
        elif event.kind in (Kind.WRITE, Kind.TRUNCATE, Kind.EXTEND):
            size = None if event.kind is Kind.WRITE else event.offset
            grow = event.kind is Kind.EXTEND
            change = _Change(event.sequence, event.offset, event.data, size, grow)
            self._inodes[event.inode].pending.append(change)
        elif event.kind is Kind.RENAME:
            self._name(event, event.second, self._inodes[event.inode])
            self._name(event, event.path, None)
        elif event.kind is Kind.LINK:
            self._name(event, event.path, self._inodes[event.inode])
        elif event.kind in (Kind.UNLINK, Kind.RMDIR):
            self._name(event, event.path, None)
        elif event.kind is Kind.SYNC_END:
            nodes = [self._inodes[event.inode]] if event.inode else list(self._inodes.values())
            for node in nodes:
                node.settle(event.offset)

    def _name(self, event: Event, path: str, target: _Node | None) -> None:
        if not path:
            return
        pure = PurePosixPath(path)
        self._live[str(pure.parent)].pending.append(_Change(event.sequence, name=pure.name, target=target))
        if target is None:
            self._live.pop(path, None)
        else:
            self._live[path] = target

    def cut(self, into: Path, chance: random.Random | None = None) -> None:
        """Write into ``into`` what a power cut leaves now; with ``chance``, random parts of what is not certain too."""
        self._write(self._top, into, chance)

    def _write(self, node: _Node, into: Path, chance: random.Random | None) -> None:
        content, names = node.after_cut(chance)
        if names is None:
            into.write_bytes(content)
            return
        into.mkdir(parents=True, exist_ok=True)
        for name, child in names.items():
            if not name.endswith("-shm"):
                self._write(child, into / name, chance)

    def everything(self) -> dict[str, bytes]:
        """Path within the root to content of every file, as if nothing could be lost; folders are left out."""
        found = {}
        for path, node in self._live.items():
            if node.names is None and not path.endswith("-shm"):
                content = bytearray(node.content)
                for change in node.pending:
                    _apply(change, content, None)
                found[str(PurePosixPath(path).relative_to(self._root))] = bytes(content)
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    """A C-STORE-RSP that began to leave the node at ``sequence``, on the connection of the sender's ``port``."""

    sequence: int
    port: int
    message: int
    status: int


def answers(events: Iterable[Event]) -> list[Answer]:
    """Every C-STORE-RSP (PS3.7 9.3.1.2) in the record, in order."""
    streams: dict[int, list[tuple[int, bytes]]] = {}
    for event in events:
        if event.kind is Kind.SEND:
            streams.setdefault(event.inode, []).append((event.sequence, event.data))
    found = [answer for port, parts in streams.items() for answer in _answers_on(port, parts)]
    return sorted(found, key=lambda answer: answer.sequence)


def _answers_on(port: int, parts: list[tuple[int, bytes]]) -> Iterator[Answer]:
    stream = b"".join(data for _, data in parts)
    starts = [sequence for sequence, data in parts for _ in data]
    at = 0
    while at + 6 <= len(stream):
        kind, length = struct.unpack_from(">BxL", stream, at)
        if kind not in range(1, 8) or length > 1 << 20:
            return
        if kind == 4 and len(stream) >= at + 6 + length:
            values = command_values(stream[at + 12 : at + 6 + length])
            if values.get(0x0100) == 0x8001:
                yield Answer(starts[at], port, values[0x0120], values[0x0900])
        at += 6 + length


def command_values(command: bytes) -> dict[int, int]:
    """The two-byte values of a command set (PS3.7 6.3.1), by element number."""
    found, at = {}, 0
    while at + 8 <= len(command):
        _, number, length = struct.unpack_from("<HHL", command, at)
        if length == 2 and at + 10 <= len(command):
            found[number] = struct.unpack_from("<H", command, at + 8)[0]
        at += 8 + length
    return found


def without_syncs(events: Iterable[Event], suffixes: Collection[str], folders: Collection[str] = ()) -> list[Event]:
    """The record of a node that forgets to sync files with these endings, and folders with these parents' names."""
    kept = []
    for event in events:
        sync = event.kind in (Kind.SYNC_BEGIN, Kind.SYNC_END)
        path = PurePosixPath(event.path)
        if sync and (event.path.endswith(tuple(suffixes)) or path.parent.name in folders):
            continue
        kept.append(event)
    return kept
