"""The reception benchmark on a tiny run: every installed receiver holds what was sent."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.bench.receive import measure_reception

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]


@pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK is not installed")
@pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed")
def test_a_tiny_run_gives_plausible_figures(tmp_path: Path) -> None:
    """Five objects, one and two associations: the run itself checks that they are stored."""
    steps = []
    found = measure_reception(tmp_path, 5, 1, (1, 2), lambda: steps.append(1))
    assert found.missing == ()
    assert set(found.receivers) == {"dicomnode", "DCMTK storescp", "Orthanc"}
    assert len(found.runs) == len(steps) == 6
    for run in found.runs:
        assert 0.1 < run.rate < 10_000
        assert run.size_bytes > 5 * 500_000
        assert 2**20 < run.rss_bytes < 2**33
    assert found.ratio("Orthanc", 1) > 0


def test_without_dcmtk_and_orthanc_only_the_node_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing peers are named, and our own SCU takes the place of storescu."""
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    found = measure_reception(tmp_path, 3, 1, (2,), lambda: None)
    assert found.missing == ("DCMTK storescp", "Orthanc")
    assert "not installed" in found.sender
    assert [run.receiver for run in found.runs] == ["dicomnode"]
