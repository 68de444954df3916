"""The child process: it answers calls until the parent is gone. Nothing of it is trusted."""

from __future__ import annotations

import gc
import importlib
import json
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from dicomnode.errors import Permanent, Transient, place
from dicomnode.sandbox.limits import allow_cpu, confine, end_with
from dicomnode.sandbox.room import Room
from dicomnode.sandbox.wire import Kind, receive, send

_MOST_REQUEST = 256 << 20
Function = Callable[[Any, Room], Any]


def main() -> None:
    """``argv``: descriptor of the link, and as JSON the parent's id, limits and functions by "module:name"."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=int(sys.argv[1]))
    setting = json.loads(sys.argv[2])
    end_with(setting["parent"])
    functions = {name: _function(name) for name in setting["functions"]}
    gc.collect()
    gc.freeze()
    confine(setting["memory_bytes"], setting["open_files"])
    send(link, Kind.READY)
    while True:
        try:
            _, content = receive(link, _MOST_REQUEST)
        except EOFError:
            return
        request = json.loads(content)
        allow_cpu(setting["cpu_s"])
        send(link, *_answer(functions[request["function"]], request["request"], link))


def _function(name: str) -> Function:
    module, _, attribute = name.partition(":")
    found: Function = getattr(importlib.import_module(module), attribute)
    return found


def _answer(function: Function, request: Any, link: socket.socket) -> tuple[Kind, bytes]:
    try:
        return Kind.ANSWER, json.dumps(function(request, Room(link)), allow_nan=False, separators=(",", ":")).encode()
    except Permanent as error:
        return Kind.PERMANENT, str(error).encode(errors="replace")
    except Transient as error:
        return Kind.TRANSIENT, str(error).encode(errors="replace")
    except MemoryError:
        return Kind.MEMORY, b""
    except Exception as error:  # noqa: BLE001 - process edge: its text may hold patient data, type and place do not
        return Kind.BROKEN, f"{type(error).__name__} at {place(error)}".encode()


if __name__ == "__main__":
    main()
