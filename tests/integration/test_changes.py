"""Who waits for work is woken by what others commit, and by nothing else; without the signal he looks as before."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from dicomnode.assemble import Sweeper
from dicomnode.assemble.facts import open_series as open_series_of
from dicomnode.assemble.sweep import SWEEP_S
from dicomnode.config import parse_config
from dicomnode.jobs import enqueue, run_until, take
from dicomnode.store.changes import Changes
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.tables import AssociationRow, InstanceRow, JobRow, SeriesRow, StudyRow

LONG_S = 120.0


@pytest.fixture
def store(tmp_path: Path):
    store = Store(f"sqlite:///{tmp_path}/node.sqlite3")
    migrate(store)
    yield store
    store.close()


def add_job(store: Store, key: str) -> None:
    with store.write() as session:
        enqueue(session, "route", key, {}, 1.0)


def test_a_commit_is_a_change_and_a_look_or_a_rollback_is_none(store: Store) -> None:
    """Only commits of others wake a worker."""
    changes = Changes(store)
    assert changes.look()
    assert not changes.look()
    with store.read() as session:
        session.connection()
    assert not changes.look()
    with store.write() as session:
        enqueue(session, "route", "1", {}, 1.0)
        session.rollback()
    assert not changes.look()
    add_job(store, "1")
    assert changes.look()
    assert not changes.look()
    changes.close()


def test_waiting_ends_with_a_commit_of_another_connection(store: Store) -> None:
    """The pause between two stages is as long as it takes to notice a commit, not as long as a timer."""
    changes, stop = Changes(store), threading.Event()
    changes.look()
    threading.Timer(0.2, add_job, (store, "1")).start()
    begun = time.monotonic()
    changes.wait(stop, LONG_S)
    assert time.monotonic() - begun < LONG_S
    assert store.scalar(select(func.count()).select_from(JobRow)) == 1
    changes.close()


def test_what_is_committed_between_the_look_and_the_wait_is_not_missed(store: Store) -> None:
    """No lost wake-up: the look comes before the search for work."""
    changes = Changes(store)
    changes.look()
    add_job(store, "1")
    begun = time.monotonic()
    changes.wait(threading.Event(), LONG_S)
    assert time.monotonic() - begun < LONG_S
    changes.close()


def test_a_poke_and_a_stop_end_the_wait_too(store: Store) -> None:
    """A Destination that is free again is no row; a node that stops does not wait."""
    changes, stop = Changes(store), threading.Event()
    changes.look()
    changes.poke()
    changes.wait(stop, LONG_S)
    stop.set()
    changes.wait(stop, LONG_S)
    changes.close()


def test_without_a_database_the_wait_is_a_plain_pause(tmp_path: Path) -> None:
    """A signal that cannot be had costs one pause and no error."""
    store = Store(f"sqlite:///{tmp_path}/missing/node.sqlite3")
    changes = Changes(store)
    assert not changes.look()
    changes.wait(threading.Event(), 0.05)
    changes.close()


def test_a_worker_takes_jobs_as_they_are_committed(store: Store) -> None:
    """The loop of every worker: all jobs are done, those too that come while it rests."""
    stop, done = threading.Event(), []

    def step() -> bool:
        job = take(store, ("route",), "w", 10.0, 60.0)
        done.append(job)
        if sum(one is not None for one in done) == 3:
            stop.set()
        return job is not None

    worker = threading.Thread(target=run_until, args=(stop, step, store))
    worker.start()
    for key in ("1", "2", "3"):
        add_job(store, key)
        time.sleep(0.1)
    worker.join(LONG_S)
    assert not worker.is_alive()


class Times:
    """The clocks of a Sweeper."""

    def __init__(self) -> None:
        self.now, self.steady = 1000.0, 50.0

    def pass_by(self, seconds: float) -> None:
        self.now, self.steady = self.now + seconds, self.steady + seconds


def open_series(store: Store, now: float) -> None:
    """One image that says it is the only one of its acquisition, over an Association that is released."""
    with store.write() as session:
        study = StudyRow(StudyInstanceUID="1.2.3", created_at=now)
        association = AssociationRow(CallingAETitle="CT", CalledAETitle="NODE", address="192.0.2.1", opened_at=now)
        association.ended, association.ended_at, association.n_stored = "released", now, 1
        session.add_all([study, association])
        session.flush()
        series = SeriesRow(
            study_id=study.id,
            SeriesInstanceUID="1.2.3.4",
            Modality="DX",
            CallingAETitle="CT",
            association_id=association.id,
            first_received_at=now,
            last_received_at=now,
        )
        session.add(series)
        session.flush()
        session.add(
            InstanceRow(
                series_id=series.id,
                association_id=association.id,
                SOPInstanceUID="1.2.3.4.5",
                SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
                TransferSyntaxUID="1.2.840.10008.1.2.1",
                sha256="ab",
                size=1,
                path="received/x",
                header={"Modality": ["DX"], "ImagesInAcquisition": [1]},
                generation=1,
                received_at=now,
            )
        )


def test_a_series_is_swept_when_it_is_due_and_not_when_a_timer_comes_round(store: Store) -> None:
    """Issue part 4: completeness is noticed when it becomes evident: right after the pause of ``settle_s``."""
    times, (config, _) = Times(), parse_config("[assemble]\nuse_c_find = false\n")
    sweeper = Sweeper(store, config, lambda: times.now, lambda: times.steady)
    sweeper.tick()
    open_series(store, times.now)
    times.pass_by(0.2)
    assert sweeper.tick() == 0
    times.pass_by(config.assemble.settle_s - 0.2 - 0.01)
    sweeper.tick()
    with store.read() as session:
        assert session.scalars(select(SeriesRow)).one().state == "open"
    times.pass_by(0.011)
    assert sweeper.tick() == 1


def test_the_end_of_an_association_is_seen_at_once_after_a_long_sweep(store: Store) -> None:
    """Issue part 4: what paces sweeps while images pour in does not hold up the Series whose sender has ended."""
    times, (config, _) = Times(), parse_config("[assemble]\nuse_c_find = false\nsettle_s = 0\n")

    def slow() -> float:
        times.steady += 0.02  # a sweep is looked at before and after: it takes so long
        return times.steady

    sweeper = Sweeper(store, config, lambda: times.now, slow)
    open_series(store, times.now)
    with store.write() as session:
        session.execute(update(AssociationRow).values(ended="open", ended_at=None))
        session.execute(update(InstanceRow).values(header={"Modality": ["DX"]}))
    assert sweeper.tick() == 0
    times.pass_by(0.05)
    add_job(store, "1")
    assert sweeper.tick() == 0, "another change: the pause of ten times the last sweep holds"
    with store.write() as session:
        session.execute(update(AssociationRow).values(ended="released", ended_at=times.now))
    times.pass_by(0.05)
    assert sweeper.tick() == 1


def test_nothing_is_swept_while_nothing_has_changed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick without a reason is a look at a counter."""
    times, (config, _) = Times(), parse_config("")
    sweeper, looked = Sweeper(store, config, lambda: times.now, lambda: times.steady), []

    def counted(session: Session) -> Iterable[SeriesRow]:
        looked.append(times.now)
        return open_series_of(session)

    monkeypatch.setattr(sys.modules["dicomnode.assemble.sweep"], "open_series", counted)
    for _ in range(4):
        sweeper.tick()
        times.pass_by(0.1)
    assert len(looked) == 1
    add_job(store, "1")
    sweeper.tick()
    assert len(looked) == 2
    times.pass_by(SWEEP_S)
    sweeper.tick()
    assert len(looked) == 3, "now and then in any case: a signal may be missed"
