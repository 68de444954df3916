"""The scheduler only wakes: lost, doubled or late, what there is to do stands in the database."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from dicomnode.assemble import EvidenceMemory, sweep
from dicomnode.config import parse_config
from dicomnode.errors import Transient
from dicomnode.jobs import claim, enqueue, expire
from dicomnode.node.build import Blueprint
from dicomnode.node.timers import Timers
from dicomnode.store.schema import migrate
from dicomnode.store.tables import JobRow, SeriesRow
from tests.acceptance.machine_clock import MachineClock
from tests.integration.test_assemble_sweep import CONFIG, NOW, Rows

LATE_S = 100_000.0


def routes(rows: Rows) -> list[tuple[str, str]]:
    with rows.store.read() as session:
        return [(row.kind, row.state) for row in session.scalars(select(JobRow).where(JobRow.kind == "route"))]


@pytest.mark.parametrize("memories", [1, 2], ids=["one memory", "a memory each"])
def test_two_schedulers_at_once_make_one_job(tmp_path: Path, memories: int) -> None:
    """R15: doubled. Both see the complete Series; the transaction lets one of them close it."""
    rows = Rows(tmp_path)
    rows.series(rows.association(), [1, 2, 3])
    shared = [EvidenceMemory() for _ in range(memories)]
    done: list[int] = []

    def tick(number: int) -> None:
        done.append(sweep(rows.store, CONFIG, NOW + LATE_S, shared[number % memories]))

    threads = [threading.Thread(target=tick, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(done) == 1
    assert routes(rows) == [("route", "ready")]
    rows.store.close()


def test_a_scheduler_that_comes_hours_late_finds_everything(tmp_path: Path) -> None:
    """R15: late or lost with its memory. Series that became complete meanwhile, and leases of a worker that is gone."""
    rows = Rows(tmp_path)
    for number in range(3):
        rows.series(rows.association(), [1, 2, 3], uid=f"1.2.{number}")
    with rows.store.write() as session:
        enqueue(session, "detect", "1", {"assignment_id": 1}, NOW)
        assert claim(session, ("detect",), "gone", NOW, 60.0) is not None
    assert sweep(rows.store, CONFIG, NOW + LATE_S, EvidenceMemory()) == 3
    with rows.store.write() as session:
        assert expire(session, NOW + LATE_S) == []
    assert routes(rows) == [("route", "ready")] * 3
    with rows.store.read() as session:
        assert set(session.scalars(select(SeriesRow.state))) == {"complete"}
        assert session.scalars(select(JobRow.state).where(JobRow.kind == "detect")).all() == ["ready"]
    rows.store.close()


TICKING = """
import sys
from dicomnode.config import parse_config
from dicomnode.node.build import Blueprint
from dicomnode.node.timers import Timers

blueprint = Blueprint(*parse_config(open(sys.argv[1]).read()))
timers = Timers(blueprint, blueprint.store())
timers.every(0.3, lambda: print("tick", flush=True))
timers.start()
sys.stdin.readline()
timers.shutdown(wait=True)
"""


def test_timers_go_on_within_seconds_when_the_clock_is_set_back_by_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14, R15: APScheduler plans by the machine's clock, and would do nothing until tomorrow."""
    settings = tmp_path / "node.toml"
    settings.write_text(f'[node]\ndata_dir = "{tmp_path}"\n')
    store = Blueprint(*parse_config(settings.read_text())).store()
    migrate(store)
    store.close()
    clock = MachineClock(tmp_path / "clock", monkeypatch)
    command = [sys.executable, "-c", TICKING, str(settings)]
    ticks: list[float] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def listen() -> None:
            ticks.extend(time.monotonic() for _ in process.stdout or ())

        threading.Thread(target=listen, daemon=True).start()
        try:
            assert _more(ticks, 3)
            for days in (-1, 1, 0):
                clock.set(days * 86_400)
                time.sleep(2.5)
                assert _more(ticks, 3), f"no ticks after the clock was set to {days:+} day"
        finally:
            process.stdin.write("\n")
            process.stdin.flush()
            process.wait(120)
    assert process.returncode == 0


def _more(ticks: list[float], count: int, seconds: float = 60.0) -> bool:
    """So many more ticks within ``seconds``."""
    wanted, until = len(ticks) + count, time.monotonic() + seconds
    while len(ticks) < wanted and time.monotonic() < until:
        time.sleep(0.05)
    return len(ticks) >= wanted


def test_a_timer_whose_tick_fails_comes_again(tmp_path: Path) -> None:
    """R15: one failure of the database is one missed tick."""
    blueprint = Blueprint(*parse_config(f'[node]\ndata_dir = "{tmp_path}"\n'))
    store = blueprint.store()
    migrate(store)
    timers, calls = Timers(blueprint, store), []

    def tick() -> None:
        calls.append(1)
        raise Transient("database: locked")

    timers.every(0.1, tick)
    timers.start()
    try:
        assert _more(calls, 3)
    finally:
        timers.shutdown(wait=True)
        store.close()
