"""The node in the foreground: start, watch, drain, stop."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import dicomnode
from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.errors import ConfigError, Transient
from dicomnode.node.build import Blueprint
from dicomnode.node.checkpoints import Checkpoints
from dicomnode.node.children import Child
from dicomnode.node.clocks import take_up_clock
from dicomnode.node.locks import exclusive
from dicomnode.node.recovery import child_started, child_stopped, recover
from dicomnode.node.starts import record_start
from dicomnode.node.timers import start_timers
from dicomnode.receive.sockets import Sockets, bind
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from dicomnode.store.wal import make_room

ROLES = ("receive", "work", "deliver", "console")
DRAIN_S = 25.0
START_S = 120.0
WATCH_S = 0.2
MAX_RECEIVERS = 4
_log = logging.getLogger(__name__)


class Node:
    """One running node: the supervisor and its child processes."""

    def __init__(self, blueprint: Blueprint, roles: Collection[str] = ROLES) -> None:
        """Check everything that can be wrong before a socket is opened. Raises ConfigError."""
        self._blueprint, self._roles = blueprint, tuple(roles)
        self._stopping = False
        blueprint.check_secrets()
        gate = blueprint.gate()
        if gate is not None:
            gate.close()
        self._models = blueprint.check_models(blueprint.detectors())
        self._store: Store = blueprint.store()
        self._checkpoints = Checkpoints(blueprint.config, self._store)
        self._spool: Spool
        self._children: list[Child] = []
        self._sockets: Sockets | None = None

    def stop(self) -> None:
        """Ask the node to drain and end; returns at once. Safe in a signal handler, which setting an event is not."""
        self._stopping = True

    def run(self, on_ready: Callable[[dict[str, Any]], None]) -> None:
        """Run until ``stop``. ``on_ready`` gets the ports once every process works. Raises ConfigError."""
        with ExitStack() as stack:
            stack.enter_context(exclusive(self._blueprint.config.node.data_dir, self._roles, self._store.path))
            stack.callback(self._store.close)
            self._spool = self._blueprint.spool()
            migrate(self._store)
            self._blueprint = replace(self._blueprint, clock=take_up_clock(self._store, self._roles))
            recover(self._store, self._spool, self._blueprint.config, self._roles, self._blueprint.clock())
            if "receive" in self._roles:
                make_room(self._store)
            self._audit(Event.APPLICATION_START)
            self._checkpoint()
            try:
                self._run(on_ready)
            finally:
                self._audit(Event.APPLICATION_STOP)
                self._checkpoint()

    def _run(self, on_ready: Callable[[dict[str, Any]], None]) -> None:
        self._children = self._plan()
        timers = None
        try:
            for child in self._children:
                self._start(child)
            ports = self._wait_ready()
            working = "work" in self._roles
            timers = start_timers(self._blueprint, self._store, self._spool, self._checkpoints, working=working)
            if not self._stopping:
                on_ready(ports)
            while not self._stopping:
                self._watch()
                time.sleep(WATCH_S)
        finally:
            self._drain()
            if timers is not None:
                timers.shutdown(wait=True)

    def _plan(self) -> list[Child]:
        receivers = self._blueprint.config.receive.processes or receivers_for(os.cpu_count() or 1)
        duties = {
            "receive": ["receive"] * receivers,
            "work": ["flow", *["detect"] * self._blueprint.config.node.workers],
            "deliver": ["deliver"],
            "console": ["console"],
        }
        if "receive" in self._roles:
            self._sockets = bind(self._blueprint.config)
        return [
            Child(duty, self._blueprint, role, self._sockets if duty == "receive" else None)
            for role in self._roles
            for duty in duties[role]
        ]

    def _start(self, child: Child) -> None:
        before = child.owner
        child.start()
        pid = child.process.pid if child.process else None
        child_started(self._store, child.owner, child.role, pid or 0, self._blueprint.clock(), replaces=before)

    def _wait_ready(self) -> dict[str, Any]:
        """What every process said when it was ready. Raises ConfigError when one refuses or dies."""
        until = time.monotonic() + START_S
        said: dict[str, Any] = {}
        for child in self._children:
            while not self._stopping:
                words = child.hear(0.1)
                if words is not None:
                    said.update({f"{child.duty}_{key}": value for key, value in words.items()})
                    break
                if not child.alive:
                    raise ConfigError(f"the {child.duty} process ended at start")
                if time.monotonic() > until:
                    raise ConfigError(f"the {child.duty} process did not get ready within {START_S:.0f} s")
        return said

    def _watch(self) -> None:
        """Restart what died; what it held is free at once."""
        for child in self._children:
            try:
                if child.died:
                    self._stopped(child, crashed=True)
                    delay = child.plan_restart()
                    extra = {"owner": child.owner, "exit_code": child.exit_code, "restart_in_s": delay}
                    _log.error("child died", extra=extra)
                elif child.restart_at and time.monotonic() >= child.restart_at:
                    self._start(child)
            except Transient as error:
                _log.error("database not available", extra={"error": str(error)})

    def _drain(self) -> None:
        if self._sockets is not None:
            self._sockets.close()
        for child in self._children:
            child.ask_to_stop()
        until = time.monotonic() + DRAIN_S
        for child in self._children:
            child.wait_stopped(until)
        for child in self._children:
            if child.owner:
                self._stopped(child, crashed=False)

    def _stopped(self, child: Child, *, crashed: bool) -> None:
        child_stopped(
            self._store, self._spool, self._blueprint.config, child.owner, self._blueprint.clock(), crashed=crashed
        )

    def _checkpoint(self) -> None:
        """A second place that cannot be written is no reason to turn patients away; it is told."""
        try:
            self._checkpoints.now()
        except Transient as error:
            _log.error("no checkpoint of the audit log", extra={"error": str(error)})

    def _audit(self, event: Event) -> None:
        body = {
            "roles": sorted(self._roles),
            "software_version": dicomnode.__version__,
            "config_sha256": self._blueprint.source.sha256,
            "models": self._models,
            "ae_title": self._blueprint.config.node.ae_title,
        }
        with self._store.write() as session:
            if event is Event.APPLICATION_START:
                record_start(session, body)
            else:
                append(session, event, body)


def stop_on_signals(node: Node) -> None:
    """SIGTERM and SIGINT drain the node."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: node.stop())


def receivers_for(cores: int) -> int:
    """Receiving processes for so many cores: half of them, four at most; one shares its commits better than two."""
    return max(1, min(cores // 2, MAX_RECEIVERS))
