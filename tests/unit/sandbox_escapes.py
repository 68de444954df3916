"""What code that took a reader over would try: each function says what it got, "refused" when the kernel forbade it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicomnode.sandbox import Room

PTRACE_ATTACH, X32_GETPID, IO_URING_SETUP, OPENAT2 = 16, 0x40000000 | 39, 425, 437


def _tried(way: Callable[[], object]) -> str:
    try:
        return f"got {way()}"[:100]
    except PermissionError:
        return "refused"


def _asked(number: int, *arguments: Any) -> str:
    system = ctypes.CDLL(None, use_errno=True)
    return "refused" if system.syscall(number, *arguments) == -1 else "got"


def _write(path: str) -> object:
    return Path(path).write_bytes(b"")


def _speak(family: int) -> object:
    with socket.socket(family) as made:
        return made.fileno()


def escapes(request: dict[str, Any], room: Room) -> dict[str, str]:
    """``request``: a ``file`` that is there, a ``folder`` to write to, the ``parent``."""
    file, folder, parent = request["file"], request["folder"], request["parent"]
    system = ctypes.CDLL(None, use_errno=True)
    return {
        "TCP": _tried(lambda: _speak(socket.AF_INET)),
        "local socket": _tried(lambda: _speak(socket.AF_UNIX)),
        "socket pair": _tried(socket.socketpair),
        "fork": _tried(os.fork),
        "a program": _tried(lambda: subprocess.run(["/bin/true"], check=False)),
        "another program in its place": _tried(lambda: os.execv("/bin/true", ["true"])),
        "a new file": _tried(lambda: _write(f"{folder}/new")),
        "an old file": _tried(lambda: _write(file)),
        "append": _tried(lambda: os.open(file, os.O_WRONLY | os.O_APPEND)),
        "remove": _tried(lambda: Path(file).unlink()),
        "rename": _tried(lambda: Path(file).rename(f"{folder}/other")),
        "folder": _tried(lambda: Path(folder, "made").mkdir()),
        "mode": _tried(lambda: Path(file).chmod(0o777)),
        "memory to run": _tried(lambda: os.memfd_create("a")),
        "signal": _tried(lambda: os.kill(parent, 0)),
        "signal to its group": _tried(lambda: os.killpg(os.getpgid(parent), signal.SIGCONT)),
        "limits of another": _tried(lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE)),
        "environment of another": _tried(Path(f"/proc/{parent}/environ").read_bytes),
        "memory of another": _tried(Path(f"/proc/{parent}/mem").open),
        "trace": "refused" if system.ptrace(PTRACE_ATTACH, parent, 0, 0) == -1 else "got",
        "calls of the x32 kind": _asked(X32_GETPID) if os.uname().machine == "x86_64" else "refused",
        "io_uring": _asked(IO_URING_SETUP, 1, ctypes.create_string_buffer(120)),
        "openat2": _asked(OPENAT2, -100, file.encode(), ctypes.create_string_buffer(24), 24),
    }


def work(request: str, room: Room) -> list[object]:
    """What readers do all the same: read a file, start a thread, compute, end themselves by a limit of their own."""
    done: list[object] = [Path(request).read_text(), sorted(path.name for path in Path(request).parent.iterdir())]
    thread = threading.Thread(target=lambda: done.append("thread"))
    thread.start()
    thread.join()
    os.kill(os.getpid(), 0)
    with Path("/proc/self/statm").open(encoding="ascii") as pages:
        return [*done, int(pages.read().split()[0]) > 0]


def libraries(request: object, room: Room) -> list[float]:
    """Image processing that is first loaded here, behind the wall."""
    import imagecodecs
    import numpy as np
    import SimpleITK as itk

    plane = np.arange(4096, dtype="u2").reshape(64, 64)
    coded = imagecodecs.jpeg2k_encode(plane, codecformat="j2k", reversible=True)
    smooth = itk.SmoothingRecursiveGaussian(itk.GetImageFromArray(plane.astype("f4")), 1.0)
    levels = np.linalg.svd(plane.astype("f8"))[1]
    return [
        float(imagecodecs.jpeg2k_decode(coded).sum()),
        float(itk.GetArrayFromImage(smooth).mean()),
        float(levels[0]),
    ]
