"""A lease is kept while its job is done, its loss is noticed, and a job that never ends takes its worker with it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select, update

from dicomnode.jobs import Heartbeat, Job, enqueue, take
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.tables import JobRow

HANGS = """
import sys, time
from dicomnode.jobs import Heartbeat, take
from dicomnode.store.engine import Store

store = Store(sys.argv[1])
job = take(store, ("k",), "me", 0.0, 60.0)
with Heartbeat(store, job, time.time, 0.06, limit_s=0.1):
    time.sleep(200)
"""


@pytest.fixture
def store(tmp_path: Path):
    made = Store(f"sqlite:///{tmp_path}/node.sqlite3")
    migrate(made)
    with made.write() as session:
        enqueue(session, "k", "1", {}, 0.0)
    yield made
    made.close()


def claimed(store: Store) -> Job:
    job = take(store, ("k",), "me", 0.0, 60.0)
    assert job is not None
    return job


def wait_for(condition) -> bool:
    until = time.monotonic() + 60
    while time.monotonic() < until and not condition():
        time.sleep(0.01)
    return condition()


def test_the_lease_is_extended_while_the_job_is_done(store: Store) -> None:
    with Heartbeat(store, claimed(store), lambda: 1000.0, 0.06):
        assert wait_for(lambda: store.scalar(select(JobRow.lease_until)) == pytest.approx(1000.06))


def test_the_loss_of_the_lease_is_noticed(store: Store) -> None:
    with Heartbeat(store, claimed(store), time.time, 0.06) as heart:
        with store.write() as session:
            session.execute(update(JobRow).values(lease_token="somebody else"))
        assert heart.lost.wait(60)


def test_a_job_that_never_ends_takes_its_process_with_it(store: Store) -> None:
    ended = subprocess.run([sys.executable, "-c", HANGS, store.url], capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1
    assert "takes too long" in ended.stderr
