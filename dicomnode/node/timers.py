"""The timers: each tick sweeps or enqueues, none does the work. Losing the scheduler loses nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from apscheduler.schedulers.background import BackgroundScheduler

from dicomnode.assemble import EvidenceMemory, sweep
from dicomnode.audit import write_checkpoint
from dicomnode.config import Config
from dicomnode.detect.drift import sweep_drift
from dicomnode.errors import DicomNodeError
from dicomnode.jobs import expire
from dicomnode.node.build import Blueprint
from dicomnode.node.recovery import beat, record_dead
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool

SWEEP_S = 0.5
EXPIRE_S = 10.0
HEARTBEAT_S = 5.0
CHECKPOINT_S = 3600.0
DRIFT_S = 300.0
_log = logging.getLogger(__name__)


def start_timers(blueprint: Blueprint, store: Store, spool: Spool, *, working: bool) -> BackgroundScheduler:
    """Start the timers of this node; ``working``: the role work runs here, so it sweeps and expires."""
    scheduler = BackgroundScheduler(timezone="UTC", job_defaults={"max_instances": 1, "coalesce": True})
    _every(scheduler, HEARTBEAT_S, lambda: beat(store, time.time()))
    if working:
        memory = EvidenceMemory()
        _every(scheduler, SWEEP_S, lambda: sweep(store, blueprint.config, time.time(), memory))
        _every(scheduler, EXPIRE_S, lambda: _expire(store, spool, blueprint.config))
        _every(scheduler, DRIFT_S, lambda: sweep_drift(store, blueprint.config, time.time()))
        _every(scheduler, CHECKPOINT_S, lambda: checkpoint(blueprint, store))
    scheduler.start()
    return scheduler


def checkpoint(blueprint: Blueprint, store: Store) -> None:
    """Write a checkpoint of the audit log to its second place, where one is configured."""
    path = blueprint.config.audit.checkpoint_path
    if path is not None:
        with store.read() as session:
            write_checkpoint(session, path, blueprint.config.node.ae_title)


def _expire(store: Store, spool: Spool, config: Config) -> None:
    now = time.time()
    with store.write() as session:
        record_dead(session, spool, config, expire(session, now), now)


def _every(scheduler: BackgroundScheduler, seconds: float, tick: Callable[[], object]) -> None:
    def guarded() -> None:
        try:
            tick()
        except DicomNodeError as error:
            _log.warning("timer tick failed", extra={"error": str(error)})

    scheduler.add_job(guarded, "interval", seconds=seconds, misfire_grace_time=None)
