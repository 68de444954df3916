"""The child processes: started, watched, restarted with back-off, stopped."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
import uuid
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event as ProcessEvent
from typing import Any

from dicomnode.errors import ConfigError
from dicomnode.node.build import Blueprint
from dicomnode.node.roles import Assignment, run_child

MAX_RESTART_DELAY_S = 60.0
STEADY_S = 60.0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Child:
    """One duty and the process that does it at present. ``owner`` changes with every restart."""

    duty: str
    blueprint: Blueprint
    role: str
    owner: str = ""
    process: SpawnProcess | None = None
    stop: ProcessEvent | None = None
    said: dict[str, Any] | None = None
    failures: int = 0
    started_at: float = 0.0
    restart_at: float = 0.0
    _ready: Connection | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start a fresh process; it has not said ready yet."""
        context = multiprocessing.get_context("spawn")
        self.owner = f"{self.duty}-{uuid.uuid4().hex[:12]}"
        self.stop = context.Event()
        self._ready, sender = context.Pipe(duplex=False)
        assignment = Assignment(self.duty, self.owner, self.blueprint)
        arguments = (assignment, self.stop, sender, os.getpid())
        self.process = context.Process(target=run_child, args=arguments, name=self.owner, daemon=False)
        self.process.start()
        sender.close()
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
        """Set the stop event."""
        if self.stop is not None and self.alive:
            self.stop.set()

    def wait_stopped(self, until: float) -> None:
        """Wait until the monotonic time ``until``, then end the process by force."""
        if self.process is None:
            return
        self.process.join(max(0.0, until - time.monotonic()))
        if self.process.is_alive():
            _log.warning("child did not stop in time", extra={"owner": self.owner})
            self.process.kill()
            self.process.join(5.0)
