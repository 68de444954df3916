"""R1 as an order of system calls: what ``strace`` saw, and whether each answer left after what it promises."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.faults.powerloss import Event, Kind

_TRACED = (
    "creat,write,writev,pwrite64,pwritev,pwritev2,rename,renameat,renameat2,link,linkat,mkdir,mkdirat,"
    "fsync,fdatasync,sync,syncfs,sendto,sendmsg,sendfile,splice,copy_file_range"
)
STRACE = (
    "strace",
    "-f",
    "-qq",
    "-yy",
    "-xx",
    "-s",
    "9000",
    "--seccomp-bpf",
    "-e",
    "signal=none",
    "-e",
    f"trace={_TRACED}",
)
_LINE = re.compile(r"^(\d+)\s+(?:<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*))$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^-?\w+<(?:((?:\\x[0-9a-f]{2})*)|(TCP[^>]*->[^>]*))>")
_PEER = re.compile(r"^TCP(?:v6)?:\[.*->.*:(\d+)\]$")
_SYNCS = ("fsync", "fdatasync", "syncfs", "sync")
_UNFINISHED = "<unfinished ...>"


@dataclass(slots=True)
class _Call:
    name: str
    arguments: str
    pid: int
    begun: int
    ended: int = 0
    result: str = ""

    @property
    def succeeded(self) -> bool:
        return bool(re.match(r"\d", self.result))


@dataclass(slots=True)
class _Files:
    """Which file a name means at present; a rename takes the file along."""

    known: dict[str, int] = field(default_factory=dict)

    def of(self, path: str) -> int:
        return self.known.setdefault(path, len(self.known) + 1_000_000 * path.count("(deleted)") + 1)

    def renamed(self, old: str, new: str) -> int:
        number = self.of(old)
        self.known[f"{old} (renamed {len(self.known)})"] = self.known.pop(old)
        self.known[new] = number
        return number


def read_trace(path: Path, root: Path) -> list[Event]:
    """The calls of a trace that touch files below ``root`` or send over TCP, in order.

    A write, a new name and a sync count from the moment they have ended, an answer from the moment it begins, a sync
    covers what had ended when it began. Raises ValueError for calls that this reader does not understand.
    """
    files, events = _Files(), []
    moments = []
    for call in _calls(path.read_text()):
        moments += _moments(call, str(root))
    for line, kind, names, data in sorted(moments, key=lambda moment: moment[0]):
        number = 0
        if kind is Kind.RENAME:
            number = files.renamed(*names)
        elif kind is Kind.SEND:
            number = int(names[0])
        elif names[0]:
            number = files.of(names[0])
        text = "" if kind is Kind.SEND else names[0]
        events.append(Event(line, kind, number, int(names[1]) if kind is Kind.SYNC_END else 0, 0, text, names[1], data))
    return events


def _calls(trace: str) -> Iterator[_Call]:
    open_calls: dict[int, _Call] = {}
    for number, line in enumerate(trace.splitlines(), 1):
        match = _LINE.match(line)
        if match is None:
            continue
        pid = int(match[1])
        if match[2]:
            call = open_calls.pop(pid, None)
            if call is None:
                continue
            call.arguments += match[3]
        else:
            call = _Call(match[4], match[5], pid, number)
            if call.arguments.endswith(_UNFINISHED):
                call.arguments = call.arguments.removesuffix(_UNFINISHED)
                open_calls[pid] = call
                continue
        call.ended, call.result = number, call.arguments.rpartition(" = ")[2].strip()
        yield call
    for call in open_calls.values():
        if call.name in ("sendto", "sendmsg", "write", "writev"):
            call.result = "0"
            yield call


def _moments(call: _Call, root: str) -> Iterator[tuple[int, Kind, tuple[str, str], bytes]]:
    if not call.succeeded:
        return
    strings = [_text(found) for found in _STRING.findall(call.arguments)]
    descriptor = _DESCRIPTOR.match(call.arguments)
    target = (descriptor[2] or _text(descriptor[1]).decode()) if descriptor else ""
    inside = target == root or target.startswith(f"{root}/")
    if call.name in _SYNCS:
        name = "" if call.name in ("sync", "syncfs") else target
        if inside or not name:
            yield call.begun, Kind.SYNC_BEGIN, (name, ""), b""
            yield call.ended, Kind.SYNC_END, (name, str(call.begun)), b""
    elif call.name in ("rename", "renameat", "renameat2", "link", "linkat", "mkdir", "mkdirat", "creat"):
        yield from _names(call, [string.decode() for string in strings], root)
    elif _PEER.match(target):
        yield call.begun, Kind.SEND, (_PEER.match(target)[1], ""), b"".join(strings)
    elif inside and call.name in ("sendfile", "splice", "copy_file_range"):
        yield call.ended, Kind.WRITE, (target, ""), b""
    elif inside:
        yield call.ended, Kind.WRITE, (target, ""), b"".join(strings)


def _names(call: _Call, names: list[str], root: str) -> Iterator[tuple[int, Kind, tuple[str, str], bytes]]:
    if not any(name.startswith(root) for name in names):
        if any(not name.startswith("/") for name in names) and root in call.arguments:
            raise ValueError(f"{call.name} with a relative name")
        return
    if call.name.startswith("rename"):
        yield call.ended, Kind.RENAME, (names[0], names[1]), b""
    elif call.name.startswith("mkdir"):
        yield call.ended, Kind.MKDIR, (names[0], ""), b""
    elif call.name == "creat":
        yield call.ended, Kind.CREATE, (names[0], ""), b""
    else:
        raise ValueError(f"{call.name} is not understood")


def _text(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def out_of_order(events: Sequence[Event], answered: int, path: str, uid: str, data: bytes) -> list[str]:
    """What was not on the disk when the Success for ``uid``, whose file is ``path``, began to leave; empty: all was.

    In this order: the bytes in a synced file under its synced name, or a copy of all of ``data`` in a synced journal
    under its own; then the row, known by the UID in what is written outside the spool, and its sync; then the answer.
    """
    before = [event for event in events if event.sequence < answered]
    faults, by_itself = _file_durable(before, path)
    in_journal = _copy_durable(before, path, data)
    durable = min(filter(None, (by_itself, in_journal)), default=0)
    if durable:
        faults = []
    rows = [e for e in before if e.kind is Kind.WRITE and "/spool/" not in e.path and uid.encode() in e.data]
    rows = [event for event in rows if event.sequence > durable]
    if not rows:
        return [*faults, "no row was written after the file was durable"]
    if all(_synced(before, event.inode, event.sequence) is None for event in rows):
        faults.append("the row was not synced")
    return faults


def _file_durable(before: Sequence[Event], path: str) -> tuple[list[str], int | None]:
    """What is wrong with the file itself, and from when on it was durable, None when it was not."""
    folder = str(PurePosixPath(path).parent)
    named = [e for e in before if path in (e.second, e.path) and e.kind in (Kind.RENAME, Kind.LINK, Kind.CREATE)]
    file = named[-1].inode if named else next((e.inode for e in before if e.path == path), -1)
    written = [event.sequence for event in before if event.kind is Kind.WRITE and event.inode == file]
    if not written:
        return ["no byte of the file was written"], None
    synced = _synced(before, file, written[-1])
    entered = _synced(before, _inode_of(before, folder), named[-1].sequence if named else written[0])
    made = [event.sequence for event in before if event.kind is Kind.MKDIR and event.path == folder]
    parent = _inode_of(before, str(PurePosixPath(folder).parent))
    doubts = {
        "the file was not synced after its last byte": synced is None,
        "the folder of the file was not synced after the file got its name": entered is None,
        "the folder's own name was not synced": bool(made) and _synced(before, parent, made[-1]) is None,
    }
    faults = [words for words, true in doubts.items() if true]
    return faults, None if faults else max(synced or 0, entered or 0)


def _copy_durable(before: Sequence[Event], path: str, data: bytes) -> int | None:
    """From when on a copy of ``data`` in another file of the spool was durable, None when it was not."""
    for event in before:
        if event.kind is not Kind.WRITE or "/journal/" not in event.path or data not in event.data:
            continue
        first = next(e.sequence for e in before if e.kind is Kind.WRITE and e.inode == event.inode)
        synced = _synced(before, event.inode, event.sequence)
        folder = str(PurePosixPath(event.path).parent)
        if event.path != path and synced and _synced(before, _inode_of(before, folder), first):
            return synced
    return None


def _inode_of(events: Sequence[Event], path: str) -> int:
    found = [event.inode for event in events if event.path == path and event.kind is not Kind.SEND]
    return found[-1] if found else -1


def _synced(events: Sequence[Event], inode: int, after: int) -> int | None:
    """When the first sync of ``inode`` that began later than ``after`` had ended."""
    for event in events:
        if event.kind is Kind.SYNC_END and event.inode in (inode, 0) and event.offset > after:
            return event.sequence
    return None
