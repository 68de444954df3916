"""Which walls stand around a child, asked from the inside: kernels differ, and none of them says no by itself."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode.sandbox.limits import SandboxLimits
from dicomnode.sandbox.pool import Sandbox
from dicomnode.sandbox.room import Room

_LOOK = "dicomnode.sandbox.walls:look"


@dataclass(frozen=True, slots=True)
class Walls:
    """``seccomp``: the filter of system calls holds; ``landlock``: other processes cannot be looked into."""

    seccomp: bool
    landlock: bool


def walls() -> Walls:
    """Start a child as readers are started, and look. Raises Transient, Permanent when it does not work at all."""
    with Sandbox([_LOOK], SandboxLimits()) as sandbox:
        said = json.loads(sandbox.call(_LOOK, None).content)
    return Walls(bool(said["seccomp"]), bool(said["landlock"]))


def look(_request: Any, _room: Room) -> dict[str, bool]:
    """What the child finds: no socket is to be had, and its parent's state in /proc is closed to it."""
    return {
        "seccomp": _is_refused(lambda: socket.socket().close()),
        "landlock": _is_refused(lambda: Path("/proc", str(os.getppid()), "status").read_bytes()),
    }


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except PermissionError:
        return True
    return False
