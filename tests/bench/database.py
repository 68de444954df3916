"""Audit log and jobs: rows per second, and how long a claim takes among many jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicomnode.audit import append, verify
from dicomnode.audit.events import Event
from dicomnode.jobs import claim, enqueue, finish
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate

BATCH = 100


@dataclass(frozen=True, slots=True)
class Times:
    """Latencies in milliseconds of ``count`` operations."""

    count: int
    p50_ms: float
    p95_ms: float
    max_ms: float

    @classmethod
    def of(cls, seconds: list[float]) -> Times:
        p50, p95 = (float(value) * 1000 for value in np.percentile(seconds, (50, 95)))
        return cls(len(seconds), p50, p95, max(seconds) * 1000)


@dataclass(frozen=True, slots=True)
class Database:
    """``append_single_s``: one row per durable transaction; ``append_batch_s``: 100; ``verify_s``: rows per second."""

    audit_rows: int
    append_single_s: float
    append_batch_s: float
    verify_s: float
    jobs: int
    claim: Times
    finish: Times


def measure_database(
    work: Path,
    progress: Callable[[], None],
    *,
    single: int = 300,
    batched: int = 20_000,
    jobs: int = 10_000,
    claims: int = 300,
) -> Database:
    """Fill a database in ``work`` and measure; ``progress`` is called after each of four steps.

    Raises RuntimeError when the log that was written does not verify.
    """
    store = Store(f"sqlite:///{work / 'bench.sqlite3'}")
    try:
        migrate(store)
        single_rate = _append(store, single, 1)
        progress()
        batch_rate = _append(store, batched, BATCH)
        progress()
        rows, verify_rate = _verify(store)
        progress()
        claimed, finished = _claim(store, jobs, claims)
        progress()
    finally:
        store.close()
    return Database(rows, single_rate, batch_rate, verify_rate, jobs, claimed, finished)


def _append(store: Store, count: int, per_transaction: int) -> float:
    body = {
        "association": 1,
        "peer": "scanner",
        "StudyInstanceUID": "1.2.3.4",
        "PatientID": "BENCH",
        "sha256": "0" * 64,
    }
    started = time.perf_counter()
    for first in range(0, count, per_transaction):
        with store.write() as session:
            for number in range(first, min(first + per_transaction, count)):
                append(session, Event.INSTANCE_STORED, {**body, "SOPInstanceUID": f"1.2.3.4.{number}"})
    return count / (time.perf_counter() - started)


def _verify(store: Store) -> tuple[int, float]:
    started = time.perf_counter()
    with store.read() as session:
        verdict = verify(session)
    if not verdict.ok:
        raise RuntimeError(f"the log does not verify: {verdict.reason}")
    return verdict.rows, verdict.rows / (time.perf_counter() - started)


def _claim(store: Store, jobs: int, claims: int) -> tuple[Times, Times]:
    with store.write() as session:
        for number in range(jobs):
            enqueue(session, "detect", str(number), {"assignment_id": number}, 0.0, priority=number % 3)
    claiming, finishing = [], []
    for _ in range(claims):
        started = time.perf_counter()
        with store.write() as session:
            job = claim(session, ("detect",), "bench", 1.0, 60.0)
        claiming.append(time.perf_counter() - started)
        if job is None:
            raise RuntimeError("there was no job to claim")
        started = time.perf_counter()
        with store.write() as session:
            finish(session, job, 2.0)
        finishing.append(time.perf_counter() - started)
    return Times.of(claiming), Times.of(finishing)
