"""The machine's clock jumps by a day in the middle of work, and again while the node is stopped."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dicomnode.config.peers import Peer
from dicomnode.deliver.send import send_paths
from dicomnode.demo.pacs import demo_pacs
from dicomnode.demo.phantoms import make_dx_chest, make_mr_flair
from tests.acceptance.machine_clock import MachineClock
from tests.acceptance.node_process import NodeProcess
from tests.acceptance.plugins import ROUTES, OrderedDetector
from tests.faults.receiver import LOCKED_S, audit_bodies

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed"),
]
DAY_S = 86_400
LONG_S = 240.0


def send(node: NodeProcess, paths: list[Path]) -> None:
    target = Peer(name="node", ae_title="NODE", host="127.0.0.1", port=node.port)
    answers = list(send_paths(paths, target, "SCANNER"))
    assert len(answers) == len(paths)
    assert all(answer.ok for answer in answers), [answer.text for answer in answers if not answer.ok]


def changes(node: NodeProcess) -> list[dict[str, Any]]:
    answer = node.run("audit", "list", "--event", "clock changed", "--json")
    return [row["body"] for row in json.loads(answer.stdout)]


def test_the_clock_that_a_test_sets_moves_time_and_leaves_monotonic_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14: what the tests below rest on."""
    clock = MachineClock(tmp_path, monkeypatch)
    code = (
        "import time, datetime as d, sys\n"
        "for _ in range(2):\n"
        "    print(time.time(), d.datetime.now(d.UTC).timestamp(), time.monotonic(), flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        before = [float(word) for word in process.stdout.readline().split()]
        clock.set(-DAY_S)
        process.stdin.write("\n")
        process.stdin.flush()
        after = [float(word) for word in process.stdout.readline().split()]
        process.stdin.write("\n")
        process.stdin.flush()
    assert [round((b - a) / DAY_S, 1) for a, b in zip(before, after, strict=True)] == [-1.0, -1.0, 0.0]


@pytest.mark.parametrize("jump", [DAY_S, -DAY_S], ids=["a day forward", "a day back"])
def test_a_clock_that_jumps_stops_nothing_storms_nothing_and_loses_nothing(
    jump: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14: a study is delivered across the jump, every job done at its first attempt; so is one received "tomorrow"."""
    OrderedDetector(tmp_path / "plugin", monkeypatch)
    with demo_pacs(tmp_path / "pacs") as pacs:
        clock = MachineClock(tmp_path / "clock", monkeypatch)
        node = NodeProcess(tmp_path / "node", pacs.port, assemble="quiet_period_s = 15\nmax_wait_s = 20", routes=ROUTES)
        try:
            node.start()
            first = make_mr_flair(seed=71).write(tmp_path / "mr")
            send(node, first[:2])
            clock.set(jump)
            send(node, first[2:4])
            state = node.wait_settled(1, LONG_S)
            _all_went_well(node, state)
            _told(node, [jump])
            send(node, make_dx_chest(seed=72).write(tmp_path / "dx"))
            assert node.stop() == 0
            clock.set(-jump)
            node.start()
            send(node, make_dx_chest(seed=73).write(tmp_path / "late"))
            state = node.wait_settled(3, LONG_S)
            _all_went_well(node, state)
            _told(node, [jump, -DAY_S] if jump > 0 else [jump])
            assert len(pacs.received) == len(set(pacs.received))
            assert node.run("audit", "verify").returncode == 0
            assert node.stop() == 0
        finally:
            node.close()


def _all_went_well(node: NodeProcess, state: dict[str, Any]) -> None:
    assert state["dead_letters"] == []
    assert all(process["alive"] for process in state["processes"])
    with sqlite3.connect(node.database, timeout=LOCKED_S) as database:
        query = (
            "SELECT kind, state, attempt, crashes, interruptions FROM job WHERE kind IN ('route', 'detect', 'deliver')"
        )
        found = database.execute(query).fetchall()
    assert {tuple(row[1:]) for row in found} == {("done", 1, 0, 0)}, found


def _told(node: NodeProcess, jumps: list[int]) -> None:
    """The audit log names each jump, to the second or so."""
    until = time.monotonic() + LONG_S
    while time.monotonic() < until and len(audit_bodies(node.database, "clock changed")) < len(jumps):
        time.sleep(0.5)
    found = [body["by_s"] for body in changes(node)]
    assert len(found) == len(jumps), found
    assert all(abs(by - jump) < 120 for by, jump in zip(found, jumps, strict=True)), found
