"""The write-ahead log stays short, whoever reads and writes; nobody waits long for that."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.errors import Transient
from dicomnode.store.engine import WAL_PAGES, Store
from dicomnode.store.schema import migrate
from dicomnode.store.tables import StudyRow
from dicomnode.store.wal import make_room, relieve


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/x.sqlite3")
    migrate(made)
    yield made
    made.close()


def grow(store: Store, first: int, count: int = 20) -> None:
    """About a megabyte in the log."""
    with store.write() as session:
        for number in range(first, first + count):
            session.add(StudyRow(StudyInstanceUID=f"1.{number}", StudyDescription="x" * 50_000, created_at=0.0))


def log_size(store: Store) -> int:
    return store.path.with_name(f"{store.path.name}-wal").stat().st_size


def count(store: Store) -> int:
    return int(store.scalar(select(func.count()).select_from(StudyRow)))


def test_without_a_reader_the_log_is_moved_and_used_again(store: Store) -> None:
    """R4: what the timer does between bursts: the file stays as long as one burst."""
    for burst in range(6):
        grow(store, burst * 100)
        found = relieve(store)
        assert found.moved == found.pages
    assert log_size(store) < 3_000_000
    assert count(store) == 120


def test_a_long_log_is_cut(store: Store) -> None:
    grow(store, 0)
    assert log_size(store) > 900_000
    assert relieve(store, long_bytes=100_000).cut
    assert log_size(store) == 0
    assert count(store) == 20


def test_a_reader_with_an_old_snapshot_delays_it_and_stops_nobody(store: Store) -> None:
    """R4: a page that somebody looks at for long neither blocks the timer nor is it pulled away."""
    grow(store, 0)
    with store.read() as session:
        assert session.scalar(select(func.count()).select_from(StudyRow)) == 20
        grow(store, 100)
        assert not relieve(store, long_bytes=100_000).cut
        assert session.scalar(select(func.count()).select_from(StudyRow)) == 20
        grow(store, 200)
    assert relieve(store, long_bytes=100_000).cut
    assert count(store) == 60


def test_a_writer_is_not_refused_while_the_log_is_cut(store: Store) -> None:
    """R4: the cut waits a moment for the writer and the writer for the cut; both go on."""
    done = threading.Event()
    cuts, errors = [], []

    def cut() -> None:
        while not done.is_set():
            try:
                cuts.append(relieve(store, long_bytes=0))
            except Transient as error:
                errors.append(error)

    thread = threading.Thread(target=cut)
    thread.start()
    number, until = 0, time.monotonic() + 60
    while number < 30 or (not any(found.cut for found in cuts) and time.monotonic() < until):
        grow(store, number * 10, 2)
        number += 1
    done.set()
    thread.join(60)
    assert errors == []
    assert any(found.cut for found in cuts)
    assert count(store) == 2 * number


def test_a_commit_seldom_pays_for_it(store: Store) -> None:
    """Commits empty the log by themselves only at 64 MiB, where no timer runs."""
    with store.write() as session:
        assert session.scalar(text("PRAGMA wal_autocheckpoint")) == WAL_PAGES
        assert session.scalar(text("PRAGMA journal_size_limit")) == WAL_PAGES * 4096


def test_a_database_without_a_log_has_nothing_to_relieve(tmp_path: Path) -> None:
    assert relieve(Store(f"sqlite:///{tmp_path}/none.sqlite3")).size == 0
    assert not list(tmp_path.iterdir())


def test_room_is_made_once_and_later_commits_do_not_make_the_file_longer(store: Store) -> None:
    """R1 at speed: the log has its length before the first instance; tables and rows are as before."""
    log = store.path.with_name(f"{store.path.name}-wal")
    with store.read() as session:
        before = session.execute(text("SELECT name, sql FROM sqlite_master ORDER BY name")).all()
    make_room(store, 4 * 1024 * 1024)
    size = log.stat().st_size
    assert size > 4 * 1024 * 1024
    for number in range(20):
        with store.write() as session:
            append(session, Event.AUDIT_LOG_USED, {"number": number})
    assert log.stat().st_size == size
    with store.read() as session:
        assert session.execute(text("SELECT name, sql FROM sqlite_master ORDER BY name")).all() == before
        assert session.execute(text("PRAGMA integrity_check")).scalar() == "ok"
