"""What a sandboxed call may use, and how a child process binds itself to it before it sees any input (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
from dataclasses import dataclass

from dicomnode.sandbox.system_calls import refuse_system_calls

_MIB = 1 << 20
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Caps of one call.

    ``memory_bytes``: address space beyond what the child has when it is ready. ``cpu_s``: seconds of computing time.
    ``wall_s``: seconds until the parent ends the child. ``answer_bytes``: length of the JSON answer. ``shared_bytes``:
    memory that the parent lends for arrays, all blocks together; it does not count as the child's own.
    ``open_files``: descriptors of the child. ``calls``: a child is replaced after so many.
    """

    memory_bytes: int = 1024 * _MIB
    cpu_s: int = 120
    wall_s: float = 300.0
    answer_bytes: int = 64 * _MIB
    shared_bytes: int = 2048 * _MIB
    open_files: int = 64
    calls: int = 500


def end_with(parent: int) -> None:
    """Have the kernel end this process with ``parent``; end it now when the parent is gone already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def confine(memory_bytes: int, open_files: int) -> None:
    """Bind this process: address space, descriptors, no core dump, no new privileges, no file may be written, and
    where the kernel can, no system call but those of a reader (``system_calls``).

    Writing a file of any size raises OSError (RLIMIT_FSIZE 0); sockets and pipes are not files in this sense.
    """
    _lower(resource.RLIMIT_AS, _address_space() + memory_bytes)
    _lower(resource.RLIMIT_NOFILE, open_files)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, 0)
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    refuse_system_calls()


def allow_cpu(seconds: int) -> None:
    """The kernel ends this process (SIGXCPU) once it has computed for ``seconds`` from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _lower(which: int, value: int) -> None:
    _, most = resource.getrlimit(which)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(which, (value, value))


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as pages:  # noqa: PTH123 - pathlib would be one more import
        return int(pages.read().split()[0]) * resource.getpagesize()


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
