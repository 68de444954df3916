"""The reception benchmark on tiny runs, and the two promises of reception that are no matter of speed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.crowd import send_crowd
from tests.bench.giant import FRAME_BYTES, send_giant
from tests.bench.loads import LOADS
from tests.bench.receive import Plan, Run, measure_reception
from tests.bench.receive_document import GROWTH_LIMIT
from tests.bench.receivers import NAMES, NODE, ORTHANC, NodeReceiver

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]
CT = replace(LOADS["ct"], count=5)
GIANT_FRAMES, CROWD, EACH = 100, 24, 20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeReceiver]:
    """The receiving role of a node, as it comes."""
    receiver = NodeReceiver(tmp_path / "node")
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


@pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK is not installed")
@pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed")
def test_a_tiny_run_gives_plausible_figures(tmp_path: Path) -> None:
    """Five objects, one and two associations, all receivers: the run itself checks that they are stored."""
    steps: list[Run] = []
    found = measure_reception(tmp_path, Plan(((CT, 1), (CT, 2)), rounds=1), steps.append)
    assert found.missing == ()
    assert set(found.receivers) == set(NAMES.values())
    assert list(found.runs) == steps
    assert len(steps) == 10
    for run in found.runs:
        assert 0.1 < run.rate < 10_000
        assert run.size_bytes > 5 * 500_000
        assert 2**20 < run.memory_peak < 2**33
        assert len(run.latencies_ms) == run.instances // run.associations * run.associations
        assert 0 < run.latency_ms(0.5) <= run.latency_ms(0.99) < 60_000
    assert found.ratio(ORTHANC, "ct", 1) > 0
    assert not (tmp_path / "round-0").exists()


def test_without_dcmtk_and_orthanc_only_the_node_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing peers are named, and our own SCU takes the place of storescu."""
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    found = measure_reception(tmp_path, Plan(((replace(CT, count=3), 2),), rounds=1), lambda _run: None)
    assert found.missing == tuple(name for name in NAMES.values() if name != NODE)
    assert "not installed" in found.sender
    assert [run.receiver for run in found.runs] == [NODE]


def test_a_large_multi_frame_object_is_received_without_being_held(node: NodeReceiver) -> None:
    """S1, S9: 200 MB in one Instance cost the node less than 64 MiB of memory, and are on disk byte for byte."""
    giant = send_giant(node, GIANT_FRAMES)
    assert giant.size_bytes > GIANT_FRAMES * FRAME_BYTES
    assert giant.intact
    assert giant.grown < GROWTH_LIMIT, f"{giant.grown / 2**20:.0f} MiB"


def test_twenty_four_scanners_at_once_are_all_served(node: NodeReceiver) -> None:
    """S6, R9: 24 associations are open together; no Instance is refused, and each is stored whole."""
    crowd = send_crowd(node, CROWD, EACH)
    assert crowd.answers == {0x0000: CROWD * EACH}
    assert crowd.lost == 0
