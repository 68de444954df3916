"""One child process, seen from the parent: start it, call a function in it, end it."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dicomnode.errors import Permanent, Transient
from dicomnode.sandbox.lent import lent_memory
from dicomnode.sandbox.limits import SandboxLimits
from dicomnode.sandbox.spare import Spare
from dicomnode.sandbox.wire import PLACE, Garbled, Kind, Late, receive, receive_head, receive_into, receive_rest, send

_START_S, _END_S, _MIB = 120.0, 5.0, 1 << 20
_DYING_S = 60.0
"""For a child that has closed its line to be gone: the kernel takes its gigabytes back first."""
_MOST_BLOCKS, _MOST_REASON = 16, 500
_HEAP = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(8 * _MIB),
    "MALLOC_TRIM_THRESHOLD_": str(64 * _MIB),
}
_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """``content``: JSON, as the child sent it, still to be checked. ``blocks``: what it wrote, in the order in which
    it asked for memory; memory of this process, which the child never had."""

    content: bytes
    blocks: tuple[mmap.mmap, ...] = ()


class SandboxProcess:
    """A child that has the named functions ("module:name") imported and is bound to ``limits``.

    What it writes goes to memory of ``spare`` where there is some. Must be made in a thread that lives as long as the
    child: the kernel ends a child with the thread that started it. Raises Transient when no process can be started.
    """

    def __init__(self, functions: Sequence[str], limits: SandboxLimits, spare: Spare) -> None:
        self._limits, self._spare = limits, spare
        self._link, theirs = socket.socketpair()
        self._ready = False
        self.calls = 0
        setting = {"parent": os.getpid(), "functions": list(functions), "cpu_s": limits.cpu_s}
        setting |= {"memory_bytes": limits.memory_bytes, "open_files": limits.open_files}
        command = [sys.executable, "-m", "dicomnode.sandbox.child", str(theirs.fileno()), json.dumps(setting)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            self._link.close()
            raise Transient(f"no reader process can be started: {type(error).__name__}") from error
        finally:
            theirs.close()
        self._end = weakref.finalize(self, _ended, self._process, self._link)

    @property
    def usable(self) -> bool:
        """Whether it lives and has served fewer calls than it may."""
        return self._end.alive and self._process.poll() is None and self.calls < self._limits.calls

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, function: str, request: Any) -> Answer:
        """Run ``function`` on ``request`` (JSON). The child is not usable any more after anything but an answer.

        Raises Permanent with what the function refuses or what limit it broke, Transient when the function does or
        when somebody else ended the child.
        """
        lent: list[mmap.mmap] = []
        self.calls += 1
        try:
            self._wait_ready()
            deadline = time.monotonic() + self._limits.wall_s
            self._link.settimeout(self._limits.wall_s)
            send(self._link, Kind.CALL, json.dumps({"function": function, "request": request}).encode())
            kind, content = self._serve(lent, deadline)
            return self._judged(kind, content, lent)
        except (Late, TimeoutError):
            self.end()
            raise Permanent(f"the reader took longer than {self._limits.wall_s:g} s") from None
        except Garbled:
            self.end()
            raise Permanent("the reader gave an answer that makes no sense") from None
        except (EOFError, ConnectionError):
            raise self._cause_of_death() from None

    def end(self) -> None:
        """End the child by force, and wait for it."""
        self._end()

    def _wait_ready(self) -> None:
        if self._ready:
            return
        try:
            kind, _ = receive(self._link, 0, time.monotonic() + _START_S)
        except (Late, Garbled, EOFError) as error:
            self.end()
            raise Transient("the reader process did not start") from error
        self._ready = kind is Kind.READY

    def _serve(self, lent: list[mmap.mmap], deadline: float) -> tuple[Kind, bytes]:
        """Lend memory and fill it until there is an answer."""
        while True:
            kind, length = receive_head(self._link, deadline)
            if kind is Kind.WRITE:
                self._fill(lent, length, deadline)
                continue
            content = receive_rest(self._link, length, self._limits.answer_bytes, deadline)
            if kind is not Kind.WANT:
                return kind, content
            lent.append(self._lend(content, sum(map(len, lent)), len(lent)))

    def _lend(self, wanted: bytes, lent_bytes: int, blocks: int) -> mmap.mmap:
        if not wanted.isdigit() or len(wanted) > 15 or not int(wanted) or blocks == _MOST_BLOCKS:
            raise Garbled
        if int(wanted) + lent_bytes > self._limits.shared_bytes:
            self.end()
            raise Permanent(f"the images need more than {self._limits.shared_bytes // _MIB} MiB of memory")
        try:
            return self._spare.take(int(wanted)) or lent_memory(int(wanted))
        except OSError as error:
            self.end()
            raise Transient(f"no memory for the images: {type(error).__name__}") from error

    def _fill(self, lent: Sequence[mmap.mmap], length: int, deadline: float) -> None:
        """Take what the child writes to a block, where it says and nowhere else."""
        place = receive_rest(self._link, min(length, PLACE.size), PLACE.size, deadline)
        if len(place) < PLACE.size:
            raise Garbled
        (number, offset), size = PLACE.unpack(place), length - PLACE.size
        if number >= len(lent) or offset + size > len(lent[number]):
            raise Garbled
        with memoryview(lent[number]) as whole, whole[offset : offset + size] as target:
            receive_into(self._link, target, deadline)

    def _judged(self, kind: Kind, content: bytes, lent: Sequence[mmap.mmap]) -> Answer:
        match kind:
            case Kind.ANSWER:
                return Answer(content, tuple(lent))
            case Kind.PERMANENT:
                raise Permanent(_reason(content))
            case Kind.TRANSIENT:
                raise Transient(_reason(content))
            case Kind.MEMORY:
                self.end()
                raise Permanent(f"the reader needed more than {self._limits.memory_bytes // _MIB} MiB of memory")
            case Kind.BROKEN:
                self.end()
                raise Permanent(f"the reader failed: {_reason(content)}")
        raise Garbled

    def _cause_of_death(self) -> Permanent | Transient:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING_S)
        status = self._process.returncode
        self.end()
        if status is None or status >= 0:
            return Permanent("the reader ended without an answer")
        if status == -signal.SIGKILL:
            return Transient("the reader process was killed")
        if status == -signal.SIGXCPU:
            return Permanent(f"the reader computed for more than {self._limits.cpu_s} s")
        return Permanent(f"the reader crashed ({signal.Signals(-status).name})")


def _environment() -> dict[str, str]:
    """No secret of the node reaches the child, and no library in it makes threads.

    Its own threads share one heap, which keeps its pages from image to image: a heap for each would take the address
    space that images need, and to get fresh pages for every image takes longer than to compute it.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONSAFEPATH": "1"}
    return kept | threads | _HEAP | path


def _reason(content: bytes) -> str:
    """What a child says of itself, as one short line."""
    text = content[: 4 * _MOST_REASON].decode(errors="replace")[:_MOST_REASON]
    return "".join(letter if letter.isprintable() else " " for letter in text).strip() or "no reason was given"


def _ended(process: subprocess.Popen[bytes], link: socket.socket) -> None:
    link.close()
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
