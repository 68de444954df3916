"""The timers: each tick sweeps or enqueues, none does the work. Losing the scheduler loses nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.schedulers.background import BackgroundScheduler

from dicomnode.assemble import Sweeper
from dicomnode.config import Config
from dicomnode.detect.drift import sweep_drift
from dicomnode.errors import DicomNodeError
from dicomnode.jobs import expire
from dicomnode.node.build import Blueprint
from dicomnode.node.checkpoints import Checkpoints
from dicomnode.node.clocks import ClockWatch
from dicomnode.node.reconciliation import ReconciliationTimer
from dicomnode.node.recovery import beat, record_dead
from dicomnode.node.retention import RetentionTimer
from dicomnode.node.shipping import Shipping
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from dicomnode.store.wal import relieve

SWEEP_S = 0.05
"""A tick looks whether there is a reason to sweep; see ``assemble.Sweeper``."""
EXPIRE_S = 10.0
HEARTBEAT_S = 5.0
WAL_S = 2.0
CHECKPOINT_S = 10.0
"""A tick looks whether a second place is due; see ``checkpoints.Checkpoints``."""
DRIFT_S = 300.0
RETENTION_S = 60.0
RECONCILE_S = 3600.0
SHIPPING_S = 5.0
_log = logging.getLogger(__name__)


class Timers:
    """The scheduler, and the watch on the clock that keeps it going.

    APScheduler plans by the machine's clock: set back by a day, it would do nothing for a day. After each jump every
    timer is due.
    """

    def __init__(self, blueprint: Blueprint, store: Store) -> None:
        self._scheduler = BackgroundScheduler(timezone="UTC", job_defaults={"max_instances": 1, "coalesce": True})
        self._watch = ClockWatch(blueprint.clock, store, self.all_due)

    def every(self, seconds: float, tick: Callable[[], object]) -> None:
        """Call ``tick`` every ``seconds``; one that fails is logged and comes again."""

        def guarded() -> None:
            try:
                tick()
            except DicomNodeError as error:
                _log.warning("timer tick failed", extra={"error": str(error)})

        self._scheduler.add_job(guarded, "interval", seconds=seconds, misfire_grace_time=None)

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()
        self._watch.start()

    def all_due(self) -> None:
        """Every timer ticks now, and goes on from there."""
        for job in self._scheduler.get_jobs():
            job.modify(next_run_time=datetime.now(UTC))

    def shutdown(self, *, wait: bool) -> None:
        """End; with ``wait`` after the ticks that run."""
        self._watch.stop()
        self._scheduler.shutdown(wait=wait)


def start_timers(
    blueprint: Blueprint, store: Store, spool: Spool, checkpoints: Checkpoints, *, working: bool
) -> Timers:
    """Start the timers of this node; ``working``: the role work runs here, so it sweeps and expires."""
    timers, clock, config = Timers(blueprint, store), blueprint.clock, blueprint.config
    timers.every(HEARTBEAT_S, lambda: beat(store, clock()))
    timers.every(WAL_S, lambda: relieve(store))
    timers.every(CHECKPOINT_S, checkpoints.tick)
    if working:
        retention = RetentionTimer(config, store, spool, time.monotonic)
        timers.every(SWEEP_S, Sweeper(store, config, clock).tick)
        timers.every(EXPIRE_S, lambda: _expire(store, spool, config, clock()))
        timers.every(DRIFT_S, lambda: sweep_drift(store, config, clock()))
        timers.every(RETENTION_S, lambda: retention.tick(clock()))
        timers.every(RECONCILE_S, ReconciliationTimer(store, spool, clock).tick)
        timers.every(SHIPPING_S, Shipping(config, store, clock).tick)
    timers.start()
    return timers


def _expire(store: Store, spool: Spool, config: Config, now: float) -> None:
    with store.write() as session:
        record_dead(session, spool, config, expire(session, now), now)
