"""What each child process does. A child ends when its stop event is set or when its parent dies."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from dicomnode.errors import DicomNodeError, place
from dicomnode.node.build import Blueprint
from dicomnode.node.logs import log_to_stderr
from dicomnode.receive.sockets import Sockets
from dicomnode.store.engine import RECEPTION_TIMEOUT_S

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
COMMIT_STOP_S = 10.0
THREAD_STACK_BYTES = 1024 * 1024
RECEIVE_MEMORY_BYTES = 4 * 1024**3
"""Address space of a receiving process: whatever a peer sends, it cannot take more (trust.md C.2)."""
GARBAGE = (20_000, 20, 100)
"""How rarely reception looks for garbage in circles, of which it makes hardly any (``gc.set_threshold``)."""
_PR_SET_PDEATHSIG = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One child process: what it does, for whom it holds leases, where it accepts if it receives."""

    duty: str
    owner: str
    blueprint: Blueprint
    sockets: Sockets | None = None


def run_child(assignment: Assignment, stop: Connection, ready: Connection, parent: int) -> None:
    """Entry of every child process. It drains when ``stop`` speaks or closes, and on SIGTERM and SIGINT."""
    _die_with(parent)
    log_to_stderr(assignment.duty)
    local = _stop_event(stop)
    try:
        DUTIES[assignment.duty](assignment, local, ready.send)
    except DicomNodeError as error:
        _log.error("stopped by an error", extra={"error": str(error)})
        with contextlib.suppress(OSError):
            ready.send({"error": str(error)})
        sys.exit(2)
    except Exception as error:  # noqa: BLE001 - process edge: its text may hold patient data and must not be printed
        _log.critical("ended by an unexpected error", extra={"exception": type(error).__name__, "at": place(error)})
        sys.exit(1)


def _stop_event(stop: Connection) -> threading.Event:
    """An event that is set when ``stop`` speaks or closes, or at a signal.

    A signal handler may interrupt ``Event.wait`` while that holds the event's lock, so that it must not set the event
    itself; it writes to a pipe, and a thread that waits on both pipes does.
    """
    event, (reader, writer) = threading.Event(), os.pipe()
    os.set_blocking(writer, False)

    def relay() -> None:
        wait([stop, reader])
        event.set()

    def wake(*_: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writer, b"x")

    threading.Thread(target=relay, name="stop", daemon=True).start()
    for number in STOP_SIGNALS:
        signal.signal(number, wake)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    return event


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent (Linux); else nothing would free port and leases."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _receive(assignment: Assignment, stop: threading.Event, say: Callable[[dict[str, object]], None]) -> None:
    from dicomnode.receive import StorageServer

    threading.stack_size(THREAD_STACK_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (RECEIVE_MEMORY_BYTES, RECEIVE_MEMORY_BYTES))
    blueprint = assignment.blueprint
    server = StorageServer(
        blueprint.config,
        blueprint.store(busy_timeout_s=RECEPTION_TIMEOUT_S),
        blueprint.spool(),
        clock=blueprint.clock,
        owner=assignment.owner,
        sockets=assignment.sockets,
    )
    server.start()
    gc.collect()
    gc.freeze()  # what is there now stays: looking for garbage then costs a tenth less of every instance
    gc.set_threshold(*GARBAGE)
    say(dict(server.ports))
    stop.wait()
    server.stop(grace_s=20.0)


def _flow(assignment: Assignment, stop: threading.Event, say: Callable[[dict[str, object]], None]) -> None:
    from dicomnode.node.flow import FlowWorker

    blueprint = assignment.blueprint
    store, spool = blueprint.store(), blueprint.spool()
    worker = FlowWorker(store, spool, blueprint.config, blueprint.detectors(), assignment.owner, blueprint.clock)
    say({})
    worker.run(stop)


def _detect(assignment: Assignment, stop: threading.Event, say: Callable[[dict[str, object]], None]) -> None:
    from dicomnode.detect.warm import WarmDetectors
    from dicomnode.detect.worker import DetectWorker

    blueprint, config = assignment.blueprint, assignment.blueprint.config
    detectors = WarmDetectors(config, blueprint.detectors(), blueprint.registry())
    detectors.warm(config)
    store, spool = blueprint.store(), blueprint.spool()
    worker = DetectWorker(store, spool, config, blueprint.source.sha256, detectors, assignment.owner, blueprint.clock)
    say({"accelerator": detectors.accelerator})
    worker.run(stop)


def _deliver(assignment: Assignment, stop: threading.Event, say: Callable[[dict[str, object]], None]) -> None:
    from dicomnode.deliver.commit_worker import CommitWorker
    from dicomnode.deliver.worker import Deliverer
    from dicomnode.node.outside import outside_workers

    blueprint, store, spool = assignment.blueprint, assignment.blueprint.store(), assignment.blueprint.spool()
    config, owner, clock, gate = blueprint.config, assignment.owner, blueprint.clock, blueprint.gate()
    deliverer = Deliverer(config, store, spool, owner, clock, gate=gate)
    beside: dict[str, Callable[[threading.Event], None]] = {"commit": CommitWorker(config, store, owner, clock).run}
    if gate is not None:
        workers = outside_workers(config, store, spool, gate, owner, clock)
        beside |= {name: worker.run for name, worker in workers.items()}
    say({})
    _beside(deliverer.run, beside, stop)


def _beside(
    first: Callable[[threading.Event], None],
    beside: Mapping[str, Callable[[threading.Event], None]],
    stop: threading.Event,
) -> None:
    """Run ``first`` here and the others in threads of their own; all end when one fails, and its error is raised."""
    faults: list[Exception] = []

    def run(work: Callable[[threading.Event], None]) -> None:
        try:
            work(stop)
        except Exception as error:  # noqa: BLE001 - thread edge: the process has to end with it, and be started again
            faults.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=(work,), name=name, daemon=True) for name, work in beside.items()]
    for thread in threads:
        thread.start()
    first(stop)
    until = time.monotonic() + COMMIT_STOP_S
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    if faults:
        raise faults[0]


def _console(assignment: Assignment, stop: threading.Event, say: Callable[[dict[str, object]], None]) -> None:
    from dicomnode.console.server import serve_console

    blueprint = assignment.blueprint
    store, spool = blueprint.store(), blueprint.spool()
    serve_console(blueprint.config, store, spool, stop, lambda port: say({"port": port}), blueprint.clock)


DUTIES: dict[str, Callable[[Assignment, threading.Event, Callable[[dict[str, object]], None]], None]] = {
    "receive": _receive,
    "flow": _flow,
    "detect": _detect,
    "deliver": _deliver,
    "console": _console,
}
