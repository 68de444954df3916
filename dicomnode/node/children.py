"""The child processes: started, watched, restarted with back-off, stopped."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from dicomnode.errors import ConfigError
from dicomnode.node.build import Blueprint
from dicomnode.node.roles import STOP_SIGNALS, Assignment, run_child
from dicomnode.receive.sockets import Sockets

MAX_RESTART_DELAY_S = 60.0
STEADY_S = 60.0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Child:
    """One duty and the process that does it at present. ``owner`` changes with every restart.

    ``sockets``: where it accepts connections; they outlive it, so that peers wait for the next one instead of being
    refused. Stop is told through a pipe: setting a ``multiprocessing.Event`` waits until the other side has woken, and
    so for ever when that process hangs or is frozen.
    """

    duty: str
    blueprint: Blueprint
    role: str
    sockets: Sockets | None = None
    owner: str = ""
    process: SpawnProcess | None = None
    said: dict[str, Any] | None = None
    failures: int = 0
    started_at: float = 0.0
    restart_at: float = 0.0
    _ready: Connection | None = field(default=None, repr=False)
    _stop: Connection | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start a fresh process; it has not said ready yet."""
        context = multiprocessing.get_context("spawn")
        self.owner = f"{self.duty}-{uuid.uuid4().hex[:12]}"
        self._close_pipes()
        self._ready, sender = context.Pipe(duplex=False)
        receiver, self._stop = context.Pipe(duplex=False)
        assignment = Assignment(self.duty, self.owner, self.blueprint, self.sockets)
        arguments = (assignment, receiver, sender, os.getpid())
        self.process = context.Process(target=run_child, args=arguments, name=self.owner, daemon=False)
        with _stop_signals_blocked():
            self.process.start()
        sender.close()
        receiver.close()
        self.started_at, self.said, self.restart_at = time.monotonic(), None, 0.0

    def hear(self, timeout_s: float = 0.0) -> dict[str, Any] | None:
        """What the process said when it was ready; None when it has not yet. Raises ConfigError when it refused."""
        if self.said is None and self._ready is not None:
            try:
                if self._ready.poll(timeout_s):
                    self.said = self._ready.recv()
            except EOFError:
                self._ready = None
        if self.said is not None and "error" in self.said:
            raise ConfigError(str(self.said["error"]))
        return self.said

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self.process is not None and self.process.is_alive()

    @property
    def exit_code(self) -> int | None:
        """Exit status of the process; negative: the signal that ended it; None while it runs."""
        return self.process.exitcode if self.process else None

    @property
    def died(self) -> bool:
        """True once, when the process has ended by itself and no restart is planned yet."""
        return self.process is not None and not self.process.is_alive() and self.restart_at == 0.0

    def plan_restart(self) -> float:
        """Seconds until the next start; doubles with every failure in a row."""
        steady = time.monotonic() - self.started_at > STEADY_S
        self.failures = 1 if steady else self.failures + 1
        delay = min(0.5 * 2.0 ** (self.failures - 1), MAX_RESTART_DELAY_S)
        self.restart_at = time.monotonic() + delay
        return delay

    def ask_to_stop(self) -> None:
        """Tell the process to drain and end; returns at once, whatever state it is in."""
        if self._stop is not None:
            with contextlib.suppress(OSError):
                self._stop.send_bytes(b"stop")

    def wait_stopped(self, until: float) -> None:
        """Wait until the monotonic time ``until``, then end the process by force."""
        if self.process is None:
            return
        self.process.join(max(0.0, until - time.monotonic()))
        if self.process.is_alive():
            _log.warning("child did not stop in time", extra={"owner": self.owner})
            self.process.kill()
            self.process.join(5.0)

    def _close_pipes(self) -> None:
        for pipe in (self._ready, self._stop):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """A process that is started in here inherits the block until it can handle the signals (``run_child``)."""
    multiprocessing.resource_tracker.ensure_running()  # its start lifts the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
