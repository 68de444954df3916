"""The node clock: one for every process, taken anew at a start, with the rows of the last run brought along."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from dicomnode.node.clocks import ClockWatch, take_up_clock
from dicomnode.store.clock import NodeClock, new_clock, running
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.tables import (
    AssignmentRow,
    AssociationRow,
    AuditRow,
    ClockRow,
    CommitmentRow,
    JobRow,
    ProcessRow,
    SeriesRow,
    StudyRow,
)

DAY_S = 86_400.0
ROLES = ("receive", "work", "deliver", "console")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/x.sqlite3")
    migrate(made)
    yield made
    made.close()


def process(store: Store, role: str, at: float, pid: int = 0, *, stopped: bool = False) -> None:
    with store.write() as session:
        row = ProcessRow(owner=f"{role}-{at}", role=role, pid=pid or os.getpid(), started_at=at, heartbeat_at=at)
        row.stopped_at = at if stopped else None
        session.add(row)


def test_it_goes_on_with_monotonic_time_and_survives_the_way_to_another_process() -> None:
    """R14: what the machine's clock says later does not matter."""
    clock = pickle.loads(pickle.dumps(NodeClock(1000.0, time.monotonic() - 5.0, "boot")))
    first = clock()
    assert 1005.0 <= first < 1060.0
    assert clock() >= first
    assert clock.machine_ahead_s() == pytest.approx(time.time() - clock(), abs=60.0)


def test_supervisors_with_other_roles_on_the_same_database_share_one_clock(store: Store) -> None:
    """R14: otherwise one would hold the other's leases for expired after a jump between their starts."""
    first = take_up_clock(store, ("receive",))
    process(store, "receive", first())
    assert take_up_clock(store, ("work",)) == first
    assert running(store) == first


def test_a_clock_of_an_earlier_run_or_start_of_the_machine_is_not_taken_over(store: Store) -> None:
    """R14: CLOCK_MONOTONIC begins again with the machine; a restart takes the time that was set right meanwhile."""
    first = take_up_clock(store, ROLES)
    process(store, "work", first())
    assert take_up_clock(store, ROLES) != first
    with store.write() as session:
        session.scalars(select(ClockRow)).one().boot = "another start"
    assert abs(running(store)() - time.time()) < 60.0
    assert running(store).boot == new_clock().boot


def test_nothing_waits_for_tomorrow_after_the_clock_was_set_back_while_the_node_was_stopped(store: Store) -> None:
    """R14: what was due in ten minutes is due in ten minutes; nothing was received tomorrow."""
    tomorrow = time.time() + DAY_S
    process(store, "work", tomorrow, stopped=True)
    with store.write() as session:
        session.add(StudyRow(StudyInstanceUID="1.2", created_at=tomorrow))
        session.flush()
        times = {"first_received_at": tomorrow - 9, "last_received_at": tomorrow - 5}
        session.add(SeriesRow(study_id=1, SeriesInstanceUID="1.3", CallingAETitle="A", **times))
        titles = {"CallingAETitle": "A", "CalledAETitle": "B", "address": "127.0.0.1"}
        session.add(AssociationRow(**titles, opened_at=tomorrow - 9, ended_at=tomorrow - 4, ended="released"))
        payload = {"assignment_id": 1, "destination": "pacs", "waiting_since": tomorrow - 60}
        due = {"not_before": tomorrow + 600, "created_at": tomorrow - 60}
        session.add(JobRow(kind="deliver", dedup_key="1", payload=payload, state="ready", **due))
        session.add(
            JobRow(kind="route", dedup_key="2", payload={}, state="leased", lease_until=tomorrow + 60, created_at=1)
        )
    clock = take_up_clock(store, ROLES)
    now = clock()
    with store.read() as session:
        series, association = session.scalars(select(SeriesRow)).one(), session.scalars(select(AssociationRow)).one()
        waits, leased = session.scalars(select(JobRow).order_by(JobRow.id))
        (told,) = session.scalars(select(AuditRow.body).where(AuditRow.kind == "clock changed"))
    assert max(series.first_received_at, series.last_received_at, association.ended_at or 0, waits.created_at) <= now
    assert waits.not_before - now == pytest.approx(600, abs=60)
    assert waits.payload == {**payload, "waiting_since": pytest.approx(now, abs=20)}
    assert (leased.lease_until or 0) - now == pytest.approx(60, abs=20)
    assert '"while":"the node was stopped"' in told


def test_a_question_about_commitment_asked_tomorrow_is_put_again_in_time(store: Store) -> None:
    """R14, R13: its answer is waited for as long as it would have been."""
    tomorrow = time.time() + DAY_S
    process(store, "deliver", tomorrow, stopped=True)
    with store.write() as session:
        session.add(StudyRow(StudyInstanceUID="1.2", created_at=1.0))
        session.flush()
        session.add(
            SeriesRow(study_id=1, SeriesInstanceUID="1", CallingAETitle="A", first_received_at=1, last_received_at=1)
        )
        session.flush()
        session.add(AssignmentRow(id=1, series_id=1, generation=1, route="r", send_to=[], created_at=1.0))
        session.flush()
        row = CommitmentRow(TransactionUID="1", assignment_id=1, destination="pacs", instances=[], state="requested")
        row.requested_at, row.expires_at = tomorrow - 60, tomorrow + 540
        session.add(row)
    now = take_up_clock(store, ROLES)()
    with store.read() as session:
        row = session.scalars(select(CommitmentRow)).one()
    assert row.requested_at <= now
    assert row.expires_at - now == pytest.approx(540, abs=20)


def test_a_start_after_a_pause_changes_nothing(store: Store) -> None:
    """R14: a clock that only went on is no news."""
    process(store, "work", time.time() - 3600, stopped=True)
    with store.write() as session:
        session.add(JobRow(kind="deliver", dedup_key="1", payload={}, not_before=time.time() + 600, created_at=1.0))
    take_up_clock(store, ROLES)
    with store.read() as session:
        assert session.scalars(select(JobRow.not_before)).one() - time.time() == pytest.approx(600, abs=60)
        assert session.scalars(select(AuditRow)).all() == []


def test_a_jump_is_noticed_once_and_audited_when_it_is_large(store: Store) -> None:
    """R14: order in the log is ``seq``; how far its times are off is said in it."""
    at, jumps = time.time(), []
    honest = NodeClock(at, time.monotonic(), "boot")
    watch = ClockWatch(honest, store, lambda: jumps.append(1))
    watch.look()
    assert jumps == []
    watch._clock = NodeClock(at + DAY_S, honest.since, "boot")
    watch.look()
    watch.look()
    assert jumps == [1]
    watch._clock = NodeClock(at + DAY_S + 5.0, honest.since, "boot")
    watch.look()
    assert jumps == [1, 1]
    with store.read() as session:
        told = session.scalars(select(AuditRow.body)).all()
    assert len(told) == 1
    assert '"by_s":-864' in told[0]
