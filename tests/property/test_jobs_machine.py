"""Whatever happens in whatever order: no job is lost, none is done twice, no step works without the lease."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from sqlalchemy import select

from dicomnode.errors import LeaseLost, Permanent
from dicomnode.jobs import Job, bury, claim, enqueue, expire, extend, finish, release_owner, requeue, retry
from dicomnode.jobs.leases import MAX_CRASHES, MAX_INTERRUPTIONS
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.tables import JobRow

LEASE_S = 10.0
KEYS = st.sampled_from("abc")
OWNERS = st.sampled_from(["w1", "w2"])


@functools.cache
def empty_database() -> bytes:
    """The content of a migrated database: migrating for every example would take longer than the example."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/x.sqlite3")
        migrate(store)
        with store.engine.connect() as connection:
            connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.close()
        return store.path.read_bytes()


@dataclass
class Expected:
    """What a job must be. ``token``: of the lease in force. ``results``: how often it was finished."""

    priority: int
    order: int
    state: str = "ready"
    attempt: int = 0
    crashes: int = 0
    interruptions: int = 0
    not_before: float = 0.0
    owner: str = ""
    until: float = 0.0
    token: str = ""
    results: int = 0


class Jobs(RuleBasedStateMachine):
    """The real database beside a model in memory; every rule is one transaction of one process."""

    claimed = Bundle("claimed")

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "x.sqlite3"
        path.write_bytes(empty_database())
        self.store = Store(f"sqlite:///{path}")
        self.now = 1000.0
        self.jobs: dict[str, Expected] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @precondition(lambda self: self.jobs)
    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=KEYS, priority=st.integers(-1, 1), wait=st.sampled_from([0.0, 0.0, 5.0]))
    def add(self, key: str, priority: int, wait: float) -> None:
        with self.store.write() as session:
            options = {"priority": priority, "not_before": self.now + wait if wait else 0.0}
            added = enqueue(session, "detect", key, {"key": key}, self.now, **options)
        assert added == (key not in self.jobs)
        if added:
            expected = Expected(priority, len(self.jobs), not_before=options["not_before"])
            self.jobs[key] = expected

    @rule(target=claimed, owner=OWNERS)
    def take(self, owner: str) -> Any:
        with self.store.write() as session:
            job = claim(session, ["detect"], owner, self.now, LEASE_S)
        ready = [item for item in self.jobs.items() if item[1].state == "ready" and item[1].not_before <= self.now]
        if job is None:
            assert not ready
            return multiple()
        key, expected = max(ready, key=lambda item: (item[1].priority, -item[1].order))
        assert job.dedup_key == key == job.payload["key"]
        expected.state, expected.owner, expected.token = "leased", owner, job.token
        expected.attempt, expected.until = expected.attempt + 1, self.now + LEASE_S
        assert job.attempt == expected.attempt
        return job

    @rule(target=claimed, job=claimed, owner=OWNERS)
    def lose_to_another(self, job: Job, owner: str) -> Any:
        """The worker of ``job`` is taken for dead, and the next one starts while it still works."""
        self.worker_is_gone(self.jobs[job.dedup_key].owner, crashed=False)
        return self.take(owner)

    @rule(job=claimed, seconds=st.sampled_from([1.0, 20.0]))
    def keep(self, job: Job, seconds: float) -> None:
        if self._with_lease(job, lambda session: extend(session, job, self.now, seconds)):
            self.jobs[job.dedup_key].until = self.now + seconds

    @rule(job=claimed)
    def complete(self, job: Job) -> None:
        """The claimed job stays in the bundle, so that a worker that comes back late tries again."""
        if self._with_lease(job, lambda session: finish(session, job, self.now)):
            self.jobs[job.dedup_key].results += 1
            self._leave(job, "done")

    @rule(job=claimed, wait=st.sampled_from([0.0, 5.0]))
    def fail(self, job: Job, wait: float) -> None:
        if self._with_lease(job, lambda session: retry(session, job, "reason", self.now + wait)):
            self._leave(job, "ready").not_before = self.now + wait

    @rule(job=consumes(claimed))
    def give_up(self, job: Job) -> None:
        if self._with_lease(job, lambda session: bury(session, job, "reason", self.now)):
            self._leave(job, "dead")

    @rule(key=KEYS)
    def resurrect(self, key: str) -> None:
        expected = self.jobs.get(key)
        number = self.store.scalar(select(JobRow.id).where(JobRow.dedup_key == key)) or 0
        try:
            with self.store.write() as session:
                requeue(session, number, self.now)
        except Permanent:
            assert expected is None or expected.state != "dead"
            return
        assert expected is not None
        assert expected.state == "dead"
        expected.state, expected.not_before = "ready", self.now
        expected.attempt = expected.crashes = expected.interruptions = 0

    @precondition(lambda self: self._owners())
    @rule(late=st.sampled_from([0.0, LEASE_S / 2, 3 * LEASE_S]))
    def leases_run_out(self, late: float) -> None:
        self.now += late
        with self.store.write() as session:
            dead = expire(session, self.now)
        self._gone(lambda job: job.until < self.now, dead, crashed=True)

    @precondition(lambda self: self._owners())
    @rule(which=st.integers(0, 1), crashed=st.booleans())
    def a_worker_is_gone(self, which: int, crashed: bool) -> None:
        owners = self._owners()
        self.worker_is_gone(owners[which % len(owners)], crashed=crashed)

    def worker_is_gone(self, owner: str, *, crashed: bool) -> None:
        with self.store.write() as session:
            dead = release_owner(session, owner, self.now, crashed=crashed)
        self._gone(lambda job: job.owner == owner, dead, crashed=crashed)

    @invariant()
    def rows_are_what_they_must_be(self) -> None:
        if not hasattr(self, "store"):
            return
        with self.store.read() as session:
            rows = {row.dedup_key: row for row in session.scalars(select(JobRow))}
        assert rows.keys() == self.jobs.keys()
        for key, expected in self.jobs.items():
            row = rows[key]
            assert (row.state, row.attempt, row.crashes) == (expected.state, expected.attempt, expected.crashes)
            assert (row.lease_token or "") == expected.token
            assert (row.lease_until is None) == (row.lease_owner is None) == (row.state != "leased")
            assert (row.finished_at is not None) == (row.state in ("done", "dead"))
            assert expected.results == (row.state == "done")

    def _owners(self) -> list[str]:
        return sorted({job.owner for job in self.jobs.values() if job.state == "leased"})

    def _with_lease(self, job: Job, step: Callable[[Any], None]) -> bool:
        try:
            with self.store.write() as session:
                step(session)
        except LeaseLost:
            assert self.jobs[job.dedup_key].token != job.token
            return False
        assert self.jobs[job.dedup_key].token == job.token
        return True

    def _leave(self, job: Job, state: str) -> Expected:
        expected = self.jobs[job.dedup_key]
        expected.state, expected.token, expected.owner = state, "", ""
        return expected

    def _gone(self, lost: Callable[[Expected], bool], dead: list[Job], *, crashed: bool) -> None:
        died = set()
        for key, job in self.jobs.items():
            if job.state != "leased" or not lost(job):
                continue
            job.crashes += crashed
            job.interruptions += not crashed
            job.attempt -= not crashed
            over = job.crashes >= MAX_CRASHES or job.interruptions >= MAX_INTERRUPTIONS
            died |= {key} if over else set()
            job.state, job.token, job.owner, job.not_before = "dead" if over else "ready", "", "", self.now
        assert {job.dedup_key for job in dead} == died


TestJobs = Jobs.TestCase
TestJobs.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
