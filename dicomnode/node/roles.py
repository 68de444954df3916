"""What each child process does. A child ends when its stop event is set or when its parent dies."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event as ProcessEvent

from dicomnode.errors import DicomNodeError
from dicomnode.node.build import Blueprint
from dicomnode.node.logs import log_to_stderr

_PR_SET_PDEATHSIG = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One child process: what it does, for whom it holds leases, how it hears stop and says ready."""

    duty: str
    owner: str
    blueprint: Blueprint


def run_child(assignment: Assignment, stop: ProcessEvent, ready: Connection, parent: int) -> None:
    """Entry of every child process."""
    _die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    log_to_stderr(assignment.duty)
    local = threading.Event()
    threading.Thread(target=_relay, args=(stop, local), name="stop", daemon=True).start()
    try:
        DUTIES[assignment.duty](assignment, local, ready.send)
    except DicomNodeError as error:
        _log.error("stopped by an error", extra={"error": str(error)})
        with contextlib.suppress(OSError):
            ready.send({"error": str(error)})
        sys.exit(2)


def _relay(stop: ProcessEvent, local: threading.Event) -> None:
    stop.wait()
    local.set()


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent (Linux); else nothing would free port and leases."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _receive(assignment: Assignment, stop: threading.Event, say: Callable[[dict[str, object]], None]) -> None:
    from dicomnode.receive import StorageServer

    blueprint = assignment.blueprint
    server = StorageServer(blueprint.config, blueprint.store(), blueprint.spool())
    port = server.start()
    say({"port": port})
    stop.wait()
    server.stop(grace_s=20.0)


def _flow(assignment: Assignment, stop: threading.Event, say: Callable[[dict[str, object]], None]) -> None:
    from dicomnode.node.flow import FlowWorker

    blueprint = assignment.blueprint
    worker = FlowWorker(blueprint.store(), blueprint.config, blueprint.detectors(), assignment.owner)
    say({})
    worker.run(stop)


def _detect(assignment: Assignment, stop: threading.Event, say: Callable[[dict[str, object]], None]) -> None:
    from dicomnode.detect.warm import WarmDetectors
    from dicomnode.detect.worker import DetectWorker

    blueprint, config = assignment.blueprint, assignment.blueprint.config
    detectors = WarmDetectors(config, blueprint.detectors(), blueprint.registry())
    detectors.warm(config)
    store, spool = blueprint.store(), blueprint.spool()
    worker = DetectWorker(store, spool, config, blueprint.source.sha256, detectors, assignment.owner)
    say({"accelerator": detectors.accelerator})
    worker.run(stop)


def _deliver(assignment: Assignment, stop: threading.Event, say: Callable[[dict[str, object]], None]) -> None:
    from dicomnode.deliver.worker import Deliverer

    blueprint = assignment.blueprint
    deliverer = Deliverer(blueprint.config, blueprint.store(), blueprint.spool(), assignment.owner)
    say({})
    deliverer.run(stop)


def _console(assignment: Assignment, stop: threading.Event, say: Callable[[dict[str, object]], None]) -> None:
    from dicomnode.console.server import serve_console

    blueprint = assignment.blueprint
    serve_console(blueprint.config, blueprint.store(), blueprint.spool(), stop, lambda port: say({"port": port}))


DUTIES: dict[str, Callable[[Assignment, threading.Event, Callable[[dict[str, object]], None]], None]] = {
    "receive": _receive,
    "flow": _flow,
    "detect": _detect,
    "deliver": _deliver,
    "console": _console,
}
