"""Work that is interrupted: the node is told to stop, a worker is killed, a second node comes, images come too late."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicomnode.config.peers import Peer
from dicomnode.deliver.send import send_paths
from dicomnode.demo.pacs import DemoPacs, demo_pacs
from dicomnode.demo.phantoms import make_dx_chest, make_mr_flair
from tests.acceptance.node_process import PATIENCE_S, NodeProcess
from tests.acceptance.plugins import ROUTES, OrderedDetector
from tests.faults.receiver import LOCKED_S, audit_bodies

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]
LONG_S = 240.0


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[DemoPacs]:
    with demo_pacs(tmp_path / "pacs") as running:
        yield running


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OrderedDetector:
    return OrderedDetector(tmp_path / "plugin", monkeypatch)


@pytest.fixture
def start(tmp_path: Path, pacs: DemoPacs) -> Iterator[Callable[..., NodeProcess]]:
    """Makes nodes, one in each folder, and ends them."""
    made: list[NodeProcess] = []

    def make(name: str = "node", more: str = "") -> NodeProcess:
        assemble = "quiet_period_s = 12\nmax_wait_s = 20"
        made.append(NodeProcess(tmp_path / name, pacs.port, assemble=assemble, routes=ROUTES + more))
        return made[-1]

    yield make
    for node in made:
        node.close()


def send(node: NodeProcess, paths: list[Path]) -> None:
    target = Peer(name="node", ae_title="NODE", host="127.0.0.1", port=node.port)
    answers = list(send_paths(paths, target, "SCANNER"))
    assert len(answers) == len(paths)
    assert all(answer.ok for answer in answers), [answer.text for answer in answers if not answer.ok]


def wait_for(what: Callable[[], Any], seconds: float = LONG_S) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError("it did not happen in time")


def jobs(node: NodeProcess, kind: str) -> list[tuple[Any, ...]]:
    """(state, attempts, crashes, interruptions) of every job of a kind."""
    with sqlite3.connect(node.database, timeout=LOCKED_S) as database:
        query = "SELECT state, attempt, crashes, interruptions FROM job WHERE kind = ? ORDER BY id"
        return database.execute(query, (kind,)).fetchall()


def events(node: NodeProcess, kind: str) -> list[dict[str, Any]]:
    answer = node.run("audit", "list", "--event", kind, "--json")
    return [row["body"] for row in json.loads(answer.stdout)]


def test_a_stop_in_the_middle_of_a_long_analysis_takes_seconds_and_costs_it_nothing(
    start: Callable[..., NodeProcess], detector: OrderedDetector, pacs: DemoPacs, tmp_path: Path
) -> None:
    """R17: exit within 30 s of SIGTERM with a detector that takes ten minutes; its job is begun again, once."""
    detector.order("sleep")
    node = start()
    node.start()
    send(node, make_dx_chest(seed=61).write(tmp_path / "dx"))
    wait_for(lambda: detector.begun)
    before = time.monotonic()
    assert node.stop(60.0) == 0
    took = time.monotonic() - before
    assert took < 30.0
    assert jobs(node, "detect") == [("ready", 0, 0, 0)]
    detector.order("")
    node.start()
    node.wait_settled(1, LONG_S)
    assert detector.begun == 2
    assert jobs(node, "detect") == [("done", 1, 0, 0)]
    assert len(events(node, "inference")) == 1
    assert len(pacs.received) == len(set(pacs.received))


def test_a_worker_that_is_killed_in_an_inference_is_replaced_and_nothing_is_doubled(
    start: Callable[..., NodeProcess], detector: OrderedDetector, pacs: DemoPacs, tmp_path: Path
) -> None:
    """R10: the job is taken up once more; another node makes objects with the same UIDs from the same images."""
    images = make_dx_chest(seed=62).write(tmp_path / "dx")
    detector.order("kill once")
    first = start("first")
    first.start()
    send(first, images)
    first.wait_settled(1, LONG_S)
    assert detector.begun == 2
    assert jobs(first, "detect") == [("done", 2, 1, 0)]
    assert len(events(first, "inference")) == 1
    assert first.stop() == 0
    made = sorted(pacs.received)
    assert len(made) == len(set(made)) >= 2
    second = start("second")
    second.start()
    send(second, images)
    second.wait_settled(1, LONG_S)
    assert sorted(pacs.received) == sorted(made * 2), "the archive replaces what it has"


def test_a_second_node_on_the_same_folder_or_database_refuses_to_start(
    start: Callable[..., NodeProcess], detector: OrderedDetector, tmp_path: Path
) -> None:
    """R16: exit status 2 and the reason; the first one goes on. One role more on the same folder is no second node."""
    node = start()
    node.start()
    again = node.run("serve")
    assert again.returncode == 2
    assert "node.data_dir: another node already runs the role" in again.stderr
    text = node.config.read_text().replace(f'data_dir = "{node.folder / "data"}"', f'data_dir = "{tmp_path / "other"}"')
    other = tmp_path / "other.toml"
    other.write_text(text.replace("[node]\n", f'[node]\ndatabase = "sqlite:///{node.database}"\n', 1))
    command = [*_serve(), "--config", str(other), "--role", "work"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert refused.returncode == 2
    assert "node.database: another node already runs the role work" in refused.stderr
    assert node.stop() == 0


def _serve() -> list[str]:
    return [sys.executable, "-m", "dicomnode", "serve"]


def test_an_image_that_comes_after_its_study_was_removed_opens_the_next_generation(
    start: Callable[..., NodeProcess], detector: OrderedDetector, pacs: DemoPacs, tmp_path: Path
) -> None:
    """R13, R6: retention takes the images; a late one gives a result of its own UIDs that names the one before."""
    node = start(more="\n[retention]\ndays = 0.00002\n")
    images = make_mr_flair(seed=63).write(tmp_path / "mr")[:4]
    study = str(dcmread(images[0], stop_before_pixels=True).StudyInstanceUID)
    node.start()
    send(node, images[:-1])
    node.wait_settled(1, LONG_S)
    reports = {path.name for path in (pacs.folder / study).glob("SR-*.dcm")}
    wait_for(lambda: _goes(node, study))
    assert node.run("retention").returncode == 0
    (told,) = wait_for(lambda: audit_bodies(node.database, "study deleted"))
    assert (told["StudyInstanceUID"], told["instances"]) == (study, len(images) - 1)
    spool = node.folder / "data" / "spool"
    wait_for(lambda: not [path for area in ("received", "derived") for path in (spool / area).rglob("*.dcm")])
    send(node, images[-1:])
    node.wait_settled(1, LONG_S)
    (series,) = node.status()["recent"]
    assert series["generation"] == 2
    completed = [(body["generation"], body["n_instances"]) for body in events(node, "series complete")]
    assert completed == [(1, len(images) - 1), (2, 1)]
    assert node.status()["dead_letters"] == []
    late = {path.name for path in (pacs.folder / study).glob("SR-*.dcm")} - reports
    for name in late:
        assert "PredecessorDocumentsSequence" in dcmread(pacs.folder / study / name)
    assert node.run("audit", "verify").returncode == 0


def _goes(node: NodeProcess, study: str) -> bool:
    """Says so the rehearsal, or has the node's own timer, a minute after the start, been quicker than this test?"""
    answer = node.run("retention", "--dry-run", "--json")
    found = {item["StudyInstanceUID"]: bool(item["goes"]) for item in json.loads(answer.stdout)["studies"]}
    return found == {study: True} or (found == {} and bool(audit_bodies(node.database, "study deleted")))
