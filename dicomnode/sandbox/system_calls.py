"""What a child may ask of the kernel once it is ready: to read files, to compute, to speak over its link. No more.

Two walls, each without the other where the kernel has only one: a filter of system calls (seccomp(2)), and a Landlock
domain (landlock(7)), which also keeps the child out of the memory and the environment of the node in /proc. Whatever
code a broken codec lets in gets no socket, no program and no other process, and writes and removes nothing.
Numbers of calls: the kernel's ``asm/unistd_64.h`` (x86-64) and ``asm-generic/unistd.h`` (aarch64).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_SECCOMP_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Of classic BPF: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_J…|BPF_K, BPF_RET|BPF_K (linux/bpf_common.h)."""

_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in ``struct seccomp_data``; of an argument of 64 bits the low half is looked at (little endian)."""

_CLONE_THREAD = 0x00010000
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_X32 = 0x40000000

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT, _LANDLOCK_VERSION, _PATH_BENEATH = 444, 445, 446, 1, 1
_FILES, _TRUNCATE, _TCP, _SCOPES = 0x1FFF, 1 << 14, 3, 3
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
"""LANDLOCK_ACCESS_FS_EXECUTE to MAKE_SYM; TRUNCATE since ABI 3; TCP to bind and connect since ABI 4; abstract sockets
and signals of others since ABI 6 (linux/landlock.h)."""

_OF_PROC = tuple(Path("/proc", name) for name in ("self", "cpuinfo", "meminfo", "stat", "sys"))
"""What libraries ask for the machine; of other processes nothing."""


@dataclass(frozen=True, slots=True)
class _Machine:
    """The numbers of one architecture. ``opening``: a call that opens files, and which argument holds its flags."""

    audit_name: int
    seccomp: int
    opening: tuple[tuple[int, int], ...]
    clone: int
    on_processes: tuple[int, ...]
    refused: tuple[int, ...]


_SAME_EVERYWHERE = (*range(424, 435), 438, 440, 442, 452)
"""pidfd_send_signal to pidfd_open (io_uring, open_tree to fspick between them), pidfd_getfd, process_madvise,
mount_setattr, fchmodat2."""

_NOT_THERE = (435, 437)
"""clone3 and openat2, whose flags lie in memory where no filter can look: the C library goes on with the older call."""

_MACHINES = {
    "x86_64": _Machine(
        0xC000003E, 317, ((2, 1), (257, 2)), 56, (62, 234, 302),
        (
            *range(41, 44), 49, 50, 53, 288,
            57, 58, 59, 322, 101, 310, 311, 129, 200, 297,
            76, *range(82, 89), *range(90, 95), 133, 132, 235, 261, *range(258, 261), *range(263, 267), 268, 280, 316,
            *range(188, 191), *range(197, 200), 155, 161, 163, 165, 166, 167, 168, 169, 170, 179, 303, 304,
            175, 176, 313, 246, 320, 164, 227, 248, 249, 250, 272, 308, 298, 319, 321, 323, 447,
        ),
    ),
    "aarch64": _Machine(
        0xC00000B7, 277, ((56, 2),), 220, (129, 131, 261),
        (
            *range(198, 204), 242,
            221, 281, 117, 270, 271, 130, 138, 240,
            45, *range(33, 39), 276, *range(52, 56), 88,
            *range(5, 8), *range(14, 17), 39, 40, 41, 51, 60, 89, 142, 161, 224, 225, 264, 265,
            104, 105, 106, 273, 294, 112, 170, 217, 218, 219, 97, 268, 241, 279, 280, 282, 447,
        ),
    ),
}  # fmt: skip


def refuse_system_calls() -> bool:
    """Bind this process with all its threads, for good. False where the kernel or the machine has no such filter.

    From then on these calls raise PermissionError: sockets, programs, new processes, signals and limits of others,
    opening files for anything but reading, and every change of the file system. Needs PR_SET_NO_NEW_PRIVS.
    """
    machine = _MACHINES.get(os.uname().machine)
    if machine is None or struct.calcsize("P") != 8:
        return False
    system = ctypes.CDLL(None, use_errno=True).syscall
    _enter_landlock(system)
    program = b"".join(_filter(machine, os.getpid()))
    held = ctypes.create_string_buffer(program)
    bpf = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held)))
    return bool(system(machine.seccomp, _SECCOMP_SET_MODE_FILTER, _ALL_THREADS, bpf) == 0)


def _filter(machine: _Machine, own: int) -> Iterator[bytes]:
    """The instructions (``struct sock_filter``); the first rule that fits decides."""
    yield from (_load(_ARCHITECTURE), _step(_EQUAL, machine.audit_name, 1, 0), _refuse(errno.EPERM), _load(_NUMBER))
    if machine.audit_name == _MACHINES["x86_64"].audit_name:
        yield from (_step(_AT_LEAST, _X32, 0, 1), _refuse(errno.EPERM))
    for number, place in machine.opening:
        yield from _judge(number, place, _step(_ANY_BIT, _CHANGES, 0, 1))
    yield from _judge(machine.clone, 0, _step(_ANY_BIT, _CLONE_THREAD, 1, 0))
    for number in machine.on_processes:
        yield from _judge(number, 0, _step(_EQUAL, own, 2, 0), _step(_EQUAL, 0, 1, 0))
    for number in _NOT_THERE:
        yield from (_step(_EQUAL, number, 0, 1), _refuse(errno.ENOSYS))
    for number in (*machine.refused, *_SAME_EVERYWHERE):
        yield from (_step(_EQUAL, number, 0, 1), _refuse(errno.EPERM))
    yield _step(_RETURN, _ALLOW)


def _judge(number: int, place: int, *tests: bytes) -> Iterator[bytes]:
    """One call by its argument at ``place``: behind ``tests`` stand, in this order, the refusal and the consent."""
    yield from (_step(_EQUAL, number, 0, len(tests) + 3), _load(_FIRST_ARGUMENT + 8 * place))
    yield from tests
    yield from (_refuse(errno.EPERM), _step(_RETURN, _ALLOW))


def _load(offset: int) -> bytes:
    return _step(_LOAD, offset)


def _refuse(error: int) -> bytes:
    return _step(_RETURN, _REFUSE | error)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _enter_landlock(system: Callable[..., int]) -> None:
    """A domain in which files are read, those of other processes in /proc excepted, and nothing else is done.

    A kernel that has no such domains, or older ones, gives what it has.
    """
    version = system(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return
    files = _FILES | (_TRUNCATE if version >= 3 else 0)
    asked = struct.pack("=QQQ", files, _TCP, _SCOPES)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = system(_LANDLOCK_CREATE, asked, len(asked), 0)
    if ruleset >= 0:
        for path in (*(place for place in Path("/").iterdir() if place.name != "proc"), *_OF_PROC):
            _allow_reading(system, ruleset, path)
        system(_LANDLOCK_RESTRICT, ruleset, 0)
        os.close(ruleset)


def _allow_reading(system: Callable[..., int], ruleset: int, path: Path) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    rights = _READ_FILE | (_READ_DIR if stat.S_ISDIR(os.fstat(place).st_mode) else 0)
    system(_LANDLOCK_ADD, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    os.close(place)
