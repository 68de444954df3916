"""Functions that tests run in a sandbox, most of them badly behaved."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dicomnode.errors import Permanent, Transient
from dicomnode.sandbox import Room
from dicomnode.sandbox.wire import PLACE, Kind

kept: list[object] = []


def echo(request: Any, room: Room) -> Any:
    return request


def process(request: Any, room: Room) -> Any:
    return os.getpid()


def arrays(request: Any, room: Room) -> Any:
    first, second = room.block(5000), room.block(10_000)
    first.write(0, b"begin")
    first.write(4097, b"page")
    second.write(9_998, memoryview(bytes([7, 8])))
    return "written"


def outside(request: Any, room: Room) -> Any:
    room.block(10).write(8, b"abc")


def much(request: Any, room: Room) -> Any:
    return room.block(1 << 40).size


def many_writers(request: Any, room: Room) -> Any:
    """Writes from several threads at once, each into places of its own, larger than what one message holds."""
    block = room.block(request * 8)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda place: block.write(place * request, bytes([place + 1]) * request), range(8)))


def astray(request: Any, room: Room) -> Any:
    """Writes where it has no memory: ``request`` is the number of the block, the offset and how many bytes."""
    number, offset, size = request
    room.block(100)
    room.send(Kind.WRITE, PLACE.pack(number, offset), bytes(size))
    return "done"


def eat(request: Any, room: Room) -> Any:
    return len(bytearray(request))


def spin(request: Any, room: Room) -> Any:
    while True:
        pass


def sleep(request: Any, room: Room) -> Any:
    time.sleep(600)


def crash(request: Any, room: Room) -> Any:
    ctypes.string_at(0)


def die(request: Any, room: Room) -> Any:
    os.kill(os.getpid(), 9)


def leave(request: Any, room: Room) -> Any:
    os._exit(0)


def garbage(request: Any, room: Room) -> Any:
    room._link.sendall(request.encode("latin-1"))
    time.sleep(600)


def refuse(request: Any, room: Room) -> Any:
    raise Permanent(request)


def try_later(request: Any, room: Room) -> Any:
    raise Transient("the disk is tired")


def fail(request: Any, room: Room) -> Any:
    raise KeyError("DOE^JANE")


def not_a_number(request: Any, room: Room) -> Any:
    return float("nan")


def write_file(request: Any, room: Room) -> Any:
    with contextlib.suppress(OSError), Path(request).open("wb", buffering=0) as file:
        file.write(b"x" * 10)
    return None


def descriptors(request: Any, room: Room) -> Any:
    """How many can be opened at once."""
    with contextlib.suppress(OSError):
        kept.extend(os.dup(0) for _ in range(10_000))
    return len(kept)


def surroundings(request: Any, room: Room) -> Any:
    core = resource.getrlimit(resource.RLIMIT_CORE)
    return {"environment": dict(os.environ), "torch": "torch" in sys.modules, "core": core}
