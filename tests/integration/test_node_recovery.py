"""After a kill the next start frees what was held; a killed node is not held against its jobs, a killed worker is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from sqlalchemy import select

from dicomnode.config import Config, parse_config
from dicomnode.errors import ConfigError, Permanent
from dicomnode.jobs import bury, claim, enqueue
from dicomnode.jobs.leases import MAX_CRASHES, MAX_INTERRUPTIONS
from dicomnode.node.locks import exclusive
from dicomnode.node.recovery import beat, child_started, child_stopped, record_dead, recover
from dicomnode.node.requeue import requeue_dead_job
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssignmentRow, AuditRow, JobRow, ProcessRow, SeriesRow
from tests.integration.detect_fixtures import PEER, STUDY, complete_series

CONFIG = Config()


@pytest.fixture
def parts(tmp_path: Path):
    store = Store(f"sqlite:///{tmp_path}/node.sqlite3")
    migrate(store)
    spool = Spool(tmp_path / "spool")
    complete_series(store, spool)
    yield store, spool
    store.close()


def take(store: Store, owner: str) -> None:
    child_started(store, owner, "work", 1, 10.0)
    with store.write() as session:
        assert claim(session, ("detect",), owner, 25.0, 60.0) is not None


def job_of(store: Store) -> JobRow:
    with store.read() as session:
        return session.scalars(select(JobRow)).one()


def test_a_killed_node_frees_its_leases_and_counts_no_attempt(parts) -> None:
    store, spool = parts
    take(store, "detect-1")
    assert recover(store, spool, CONFIG, ("work",), 20.0) == 1
    job = job_of(store)
    assert (job.state, job.attempt, job.crashes, job.interruptions) == ("ready", 0, 0, 1)
    with store.read() as session:
        assert session.get_one(ProcessRow, "detect-1").stopped_at == 20.0
        assert session.scalars(select(AuditRow.kind)).all() == ["node recovered"]


def test_another_role_is_left_alone(parts) -> None:
    store, spool = parts
    take(store, "detect-1")
    assert recover(store, spool, CONFIG, ("receive",), 20.0) == 0
    assert job_of(store).state == "leased"


def test_a_worker_that_dies_again_and_again_ends_in_a_visible_failure(parts) -> None:
    store, spool = parts
    for number in range(MAX_CRASHES):
        take(store, f"detect-{number}")
        child_stopped(store, spool, CONFIG, f"detect-{number}", 20.0, crashed=True)
    job = job_of(store)
    assert (job.state, job.crashes) == ("dead", MAX_CRASHES)
    with store.read() as session:
        assignment = session.scalars(select(AssignmentRow)).one()
        body = json.loads(session.scalars(select(AuditRow.body).where(AuditRow.kind == "dead letter")).one())
    assert assignment.outcome == "failed"
    assert body["StudyInstanceUID"]


def test_a_worker_that_died_too_often_sends_a_status_page_where_the_site_asks_for_it(parts) -> None:
    """The process that notices is not the worker; a failure is announced in the transaction that records it."""
    store, spool = parts
    asking, _ = parse_config(f'{PEER}[results]\nstatus = ["failed"]\n')
    for number in range(MAX_CRASHES):
        take(store, f"detect-{number}")
        child_stopped(store, spool, asking, f"detect-{number}", 20.0, crashed=True)
    with store.read() as session:
        jobs = {job.kind: job.payload for job in session.scalars(select(JobRow))}
        assignment = session.scalars(select(AssignmentRow)).one()
    assert jobs["status"] == {"assignment_id": assignment.id, "outcome": "failed"}


def test_a_dead_status_page_tells_whom_it_was_about(parts) -> None:
    store, spool = parts
    with store.write() as session:
        assignment = session.scalars(select(AssignmentRow)).one()
        enqueue(session, "status", "1:failed", {"assignment_id": assignment.id, "outcome": "failed"}, 1.0)
        job = claim(session, ("status",), "flow-1", 25.0, 60.0)
        assert job is not None
        bury(session, job, "no file is readable", 25.0)
        record_dead(session, spool, CONFIG, [job], 25.0)
        body = json.loads(session.scalars(select(AuditRow.body).where(AuditRow.kind == "dead letter")).one())
    assert (body["kind"], body["StudyInstanceUID"]) == ("status", STUDY)


def test_a_series_that_takes_the_whole_node_down_ends_too(parts) -> None:
    store, spool = parts
    for number in range(MAX_INTERRUPTIONS):
        take(store, f"detect-{number}")
        recover(store, spool, CONFIG, ("work",), 20.0)
    assert job_of(store).state == "dead"


def test_an_operator_gives_a_dead_job_a_new_life(parts) -> None:
    store, spool = parts
    for number in range(MAX_CRASHES):
        take(store, f"detect-{number}")
        child_stopped(store, spool, CONFIG, f"detect-{number}", 20.0, crashed=True)
    requeue_dead_job(store, job_of(store).id, 30.0)
    job = job_of(store)
    assert (job.state, job.crashes, job.attempt) == ("ready", 0, 0)
    with store.read() as session:
        assert session.scalars(select(AssignmentRow.outcome)).one() is None
        assert "requeued by hand" in session.scalars(select(AuditRow.kind)).all()
    with pytest.raises(Permanent):
        requeue_dead_job(store, job.id, 31.0)


def test_a_role_runs_once_per_data_folder(tmp_path: Path) -> None:
    """R16: a kernel lock for each role, free as soon as its process is gone."""
    with exclusive(tmp_path, ("receive", "work")):
        with pytest.raises(ConfigError, match="another node"), exclusive(tmp_path, ("work",)):
            pass
        with exclusive(tmp_path, ("deliver",)):
            pass
    with exclusive(tmp_path, ("work",)):
        pass


def test_a_crashed_process_is_silent_until_its_replacement_started(parts) -> None:
    store, spool = parts
    child_started(store, "flow-1", "work", os.getpid(), 10.0)
    child_stopped(store, spool, CONFIG, "flow-1", 20.0, crashed=True)
    beat(store, 21.0)
    with store.read() as session:
        row = session.get_one(ProcessRow, "flow-1")
        assert (row.heartbeat_at, row.stopped_at) == (0.0, None)
    child_started(store, "flow-2", "work", os.getpid(), 22.0, replaces="flow-1")
    with store.read() as session:
        assert session.get_one(ProcessRow, "flow-1").stopped_at == 22.0


def test_a_series_whose_routing_is_given_up_has_failed_until_it_is_requeued(parts) -> None:
    store, spool = parts
    with store.write() as session:
        series = session.scalars(select(SeriesRow)).first()
        assert series is not None
        payload = {"series_id": series.id, "generation": 7}
        enqueue(session, "route", "poison", payload, 1.0)
        job = claim(session, ("route",), "flow-1", 25.0, 60.0)
        assert job is not None
        bury(session, job, "ValueError", 25.0)
        record_dead(session, spool, CONFIG, [job], 25.0)
    query = select(AssignmentRow.outcome, AssignmentRow.reason).where(AssignmentRow.generation == 7)
    with store.read() as session:
        assert tuple(session.execute(query).one()) == ("failed", "routing failed: ValueError")
        body = json.loads(session.scalars(select(AuditRow.body).where(AuditRow.kind == "dead letter")).one())
        assert body["StudyInstanceUID"]
    requeue_dead_job(store, job.id, 30.0)
    with store.read() as session:
        assert session.execute(query).all() == []
