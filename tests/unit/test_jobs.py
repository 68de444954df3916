"""Durable jobs: what each step promises, and that only the holder of the lease may take it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from dicomnode.errors import LeaseLost, Permanent
from dicomnode.jobs import (
    Job,
    bury,
    claim,
    enqueue,
    expire,
    extend,
    finish,
    release_owner,
    renew,
    requeue,
    retry,
    waiting,
    wake,
)
from dicomnode.jobs.leases import FARTHEST_S, MAX_CRASHES, MAX_INTERRUPTIONS
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.tables import AGEING_S, JobRow

KINDS = ("detect", "deliver")
NOW = 1000.0
LEASE_S = 60.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path / 'x.sqlite3'}")
    migrate(made)
    yield made
    made.close()


def add(store: Store, key: str = "a", kind: str = "detect", **options: Any) -> bool:
    with store.write() as session:
        return enqueue(session, kind, key, {"series_id": 1}, NOW, **options)


def take(store: Store, now: float = NOW, owner: str = "w1", kinds: tuple[str, ...] = KINDS) -> Job | None:
    with store.write() as session:
        return claim(session, kinds, owner, now, LEASE_S)


def taken(store: Store, now: float = NOW, owner: str = "w1") -> Job:
    job = take(store, now, owner)
    assert job
    return job


def row(store: Store, key: str = "a") -> JobRow:
    found = store.scalar(select(JobRow).where(JobRow.dedup_key == key))
    assert isinstance(found, JobRow)
    return found


def do(store: Store, step: Callable[..., Any], *values: Any, **options: Any) -> Any:
    with store.write() as session:
        return step(session, *values, **options)


def test_a_job_is_claimed_once_and_carries_its_payload(store: Store) -> None:
    add(store)
    job = taken(store)
    assert (job.kind, job.dedup_key, job.payload, job.attempt) == ("detect", "a", {"series_id": 1}, 1)
    assert len(job.token) == 32
    assert take(store) is None


def test_the_same_kind_and_key_is_one_job_for_ever(store: Store) -> None:
    assert add(store)
    assert not add(store)
    assert add(store, kind="deliver")
    do(store, finish, taken(store), NOW)
    assert not add(store)


def test_urgent_jobs_go_first_then_the_oldest(store: Store) -> None:
    for key, priority in (("a", 0), ("b", 5), ("c", 5), ("d", -1)):
        add(store, key, priority=priority)
    assert [taken(store).dedup_key for _ in range(4)] == ["b", "c", "a", "d"]


def test_routine_work_that_has_waited_long_enough_goes_before_newer_urgent_work(store: Store) -> None:
    """STAT goes first, but nothing starves: each AGEING_S of waiting is worth one priority."""
    add(store, "routine")
    with store.write() as session:
        for key, after in (("stat", 9.9 * AGEING_S), ("late stat", 10.1 * AGEING_S)):
            enqueue(session, "detect", key, {"series_id": 1}, NOW + after, priority=10)
    assert [taken(store, NOW + 11 * AGEING_S).dedup_key for _ in range(3)] == ["stat", "routine", "late stat"]


def test_only_the_wanted_kinds_are_claimed(store: Store) -> None:
    add(store, kind="route")
    assert take(store) is None
    assert take(store, kinds=("route",))


def test_a_job_is_not_claimed_before_its_time(store: Store) -> None:
    add(store, not_before=NOW + 5)
    assert take(store, NOW + 4.9) is None
    with store.read() as session:
        assert not waiting(session, KINDS, NOW + 4.9)
        assert waiting(session, KINDS, NOW + 5)
        assert not waiting(session, ("route",), NOW + 5)
    assert take(store, NOW + 5)


def test_finish_frees_the_lease_and_stays(store: Store) -> None:
    add(store)
    job = taken(store)
    do(store, retry, job, "PACS away", NOW)
    do(store, finish, taken(store), NOW + 1)
    done = row(store)
    assert (done.state, done.finished_at, done.error, done.lease_token) == ("done", NOW + 1, "", None)
    assert take(store, NOW + 1e9) is None


def test_retry_waits_and_counts_attempts(store: Store) -> None:
    add(store)
    for attempt in (1, 2, 3):
        job = taken(store, NOW + attempt * 10)
        assert job.attempt == attempt
        do(store, retry, job, f"reason {attempt}", NOW + (attempt + 1) * 10)
        assert take(store, NOW + (attempt + 1) * 10 - 1) is None
    assert (row(store).error, row(store).state) == ("reason 3", "ready")


def test_a_buried_job_rests_until_it_is_requeued(store: Store) -> None:
    add(store)
    do(store, bury, taken(store), "no longer there", NOW)
    dead = row(store)
    assert (dead.state, dead.error, dead.finished_at) == ("dead", "no longer there", NOW)
    assert take(store, NOW + 1e9) is None
    again = do(store, requeue, dead.id, NOW + 5)
    assert (again.dedup_key, again.attempt, again.payload) == ("a", 0, {"series_id": 1})
    assert taken(store, NOW + 5).attempt == 1


@pytest.mark.parametrize("state", ["ready", "leased", "done", "missing"])
def test_only_a_dead_job_can_be_requeued(store: Store, state: str) -> None:
    add(store)
    number = row(store).id if state != "missing" else 99
    if state in ("leased", "done"):
        job = taken(store)
        if state == "done":
            do(store, finish, job, NOW)
    with pytest.raises(Permanent, match=f"no dead job {number}"):
        do(store, requeue, number, NOW)


STEPS: dict[str, Callable[[Store, Job], None]] = {
    "finish": lambda store, job: do(store, finish, job, NOW),
    "retry": lambda store, job: do(store, retry, job, "", NOW),
    "bury": lambda store, job: do(store, bury, job, "", NOW),
    "extend": lambda store, job: do(store, extend, job, NOW, LEASE_S),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("lost_by", ["expiry", "second claim", "finish", "release"])
def test_who_lost_the_lease_changes_nothing(store: Store, step: str, lost_by: str) -> None:
    add(store)
    job = taken(store)
    if lost_by == "finish":
        do(store, finish, job, NOW)
    elif lost_by == "release":
        do(store, release_owner, "w1", NOW, crashed=False)
    else:
        do(store, expire, NOW + LEASE_S + 1)
        if lost_by == "second claim":
            taken(store, NOW + LEASE_S + 1, "w2")
    before = {column.name: getattr(row(store), column.name) for column in JobRow.__table__.columns}
    with pytest.raises(LeaseLost, match=f"job {job.id}"):
        STEPS[step](store, job)
    assert {column.name: getattr(row(store), column.name) for column in JobRow.__table__.columns} == before


def test_a_lost_lease_rolls_back_the_results_written_with_it(store: Store) -> None:
    add(store)
    job = taken(store)
    do(store, expire, NOW + LEASE_S + 1)

    def work() -> None:
        with store.write() as session:
            enqueue(session, "deliver", "result", {}, NOW)
            finish(session, job, NOW)

    with pytest.raises(LeaseLost):
        work()
    assert store.scalar(select(JobRow.id).where(JobRow.kind == "deliver")) is None


def test_extending_keeps_the_lease(store: Store) -> None:
    add(store)
    job = taken(store)
    do(store, extend, job, NOW + 50, LEASE_S)
    assert do(store, expire, NOW + LEASE_S + 1) == []
    assert row(store).state == "leased"
    do(store, expire, NOW + 50 + LEASE_S + 1)
    assert row(store).state == "ready"


def test_a_series_that_crashes_its_worker_three_times_is_a_dead_letter(store: Store) -> None:
    """R19: three crashes end it; what a failed attempt said before is kept."""
    add(store)
    do(store, retry, taken(store), "GPU memory", NOW)
    for crash in range(MAX_CRASHES):
        job = taken(store)
        dead = do(store, release_owner, "w1", NOW, crashed=True)
        assert [item.id for item in dead] == ([job.id] if crash == MAX_CRASHES - 1 else [])
    assert (row(store).state, row(store).finished_at) == ("dead", NOW)
    assert row(store).error == "the worker was lost 3 times; before that: GPU memory"


def test_an_expired_lease_counts_as_a_crash(store: Store) -> None:
    add(store)
    now, ended = NOW, []
    for _ in range(MAX_CRASHES):
        assert ended == []
        taken(store, now)
        now += LEASE_S + 1
        ended = do(store, expire, now)
    assert [job.dedup_key for job in ended] == ["a"]
    assert row(store).error == "the worker was lost 3 times"


def test_a_job_that_a_wrong_clock_put_off_is_not_stranded_when_the_clock_is_set_back(store: Store) -> None:
    add(store)
    do(store, retry, taken(store), "connection refused", NOW + 365 * 86_400.0)
    assert do(store, expire, NOW) == []
    assert taken(store).attempt == 2


def test_a_job_that_is_put_off_for_a_day_waits_for_it(store: Store) -> None:
    add(store)
    do(store, retry, taken(store), "not yet", NOW + FARTHEST_S)
    do(store, expire, NOW)
    assert row(store).not_before == NOW + FARTHEST_S


def test_a_restart_of_the_node_costs_the_job_nothing(store: Store) -> None:
    add(store)
    for _ in range(MAX_CRASHES * 3):
        assert taken(store).attempt == 1
        assert do(store, release_owner, "w1", NOW, crashed=False) == []
    assert row(store).crashes == 0


def test_a_job_that_never_lives_through_a_restart_ends_at_last(store: Store) -> None:
    add(store)
    for _ in range(MAX_INTERRUPTIONS):
        taken(store)
        dead = do(store, release_owner, "w1", NOW, crashed=False)
    assert [job.dedup_key for job in dead] == ["a"]
    assert row(store).error == "interrupted too often"


def test_only_what_the_owner_held_is_given_back(store: Store) -> None:
    add(store, "a")
    add(store, "b")
    taken(store, owner="w1")
    other = taken(store, owner="w2")
    do(store, release_owner, "w1", NOW, crashed=True)
    assert (row(store, "a").state, row(store, "b").state) == ("ready", "leased")
    do(store, finish, other, NOW)


def test_a_job_given_back_and_claimed_in_one_transaction_has_a_new_lease(store: Store) -> None:
    add(store)
    old = taken(store)
    with store.write() as session:
        release_owner(session, "w1", NOW, crashed=True)
        new = claim(session, KINDS, "w2", NOW, LEASE_S)
        assert new
        assert new.token != old.token
        assert new.attempt == 2
    held = row(store)
    assert (held.lease_owner, held.lease_token, held.lease_until) == ("w2", new.token, NOW + LEASE_S)
    do(store, finish, new, NOW)


def test_a_claim_that_is_rolled_back_never_happened(store: Store) -> None:
    add(store)

    def break_off() -> None:
        with store.write() as session:
            claim(session, KINDS, "w1", NOW, LEASE_S)
            raise LookupError

    with pytest.raises(LookupError):
        break_off()
    assert taken(store).attempt == 1


def work_off(url: str, owner: str, done: Any) -> None:
    """Claim and finish until nothing is left; tell what was done."""
    store = Store(url)
    while (job := take(store, owner=owner)) is not None:
        do(store, finish, job, NOW)
        done.put((owner, job.dedup_key))
    store.close()
    done.put((owner, None))


def test_processes_that_claim_at_once_do_every_job_exactly_once(store: Store) -> None:
    keys = [str(number) for number in range(90)]
    for key in keys:
        add(store, key)
    spawn = multiprocessing.get_context("spawn")
    done = spawn.Queue()
    owners = ["w1", "w2", "w3"]
    processes = [spawn.Process(target=work_off, args=(store.url, owner, done)) for owner in owners]
    for process in processes:
        process.start()
    worked, ended = [], 0
    while ended < len(owners):
        _owner, key = done.get(timeout=120)
        ended += key is None
        worked += [key] if key is not None else []
    for process in processes:
        process.join(60)
    assert sorted(worked, key=int) == keys
    assert store.scalar(select(JobRow.id).where((JobRow.state != "done") | (JobRow.attempt != 1))) is None


def test_a_waiting_job_is_woken_a_leased_one_is_left_alone_and_an_ended_one_is_not_alive(store: Store) -> None:
    with store.write() as session:
        enqueue(session, "commit", "a", {}, 0.0, not_before=900.0)
        assert wake(session, "commit", "a", 50.0)
        assert claim(session, ["commit"], "w", 49.0, 60.0) is None
        assert wake(session, "commit", "a", 70.0)
        job = claim(session, ["commit"], "w", 50.0, 60.0)
        assert job is not None, "waking never puts a job off"
        assert wake(session, "commit", "a", 51.0)
        assert session.get_one(JobRow, job.id).lease_token == job.token
        finish(session, job, 60.0)
        assert not wake(session, "commit", "a", 61.0)
        assert not wake(session, "commit", "b", 61.0)


def test_an_ended_job_gets_a_new_life_and_a_living_one_does_not(store: Store) -> None:
    with store.write() as session:
        enqueue(session, "commit", "a", {"n": 1}, 0.0)
        assert not renew(session, "commit", "a", {"n": 2}, 1.0)
        job = claim(session, ["commit"], "w", 1.0, 60.0)
        assert job is not None
        bury(session, job, "no", 2.0)
        assert renew(session, "commit", "a", {"n": 3}, 3.0)
        again = claim(session, ["commit"], "w", 3.0, 60.0)
        assert again is not None
        assert (again.id, again.payload, again.attempt) == (job.id, {"n": 3}, 1)
        assert session.get_one(JobRow, job.id).error == ""
        assert not renew(session, "commit", "b", {}, 3.0)
