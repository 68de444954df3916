"""The bench of the overhead says what it measured, and its detector and study are what it says they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.report.capture import pictured
from tests.bench.instant import DETECTOR, ENTRY, MARKED, NAME, Phantom
from tests.bench.overhead import ROOT, STAGES, Overhead, section
from tests.plugin import install_plugin
from tests.report_fixtures import context, source


def test_the_plugin_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """The measured detector comes in by the supported way, like any other."""
    path = os.pathsep.join([str(install_plugin(tmp_path / "plugin", NAME, ENTRY)), str(ROOT)])
    code = "from dicomnode.detectors.discovery import discover; print(sorted(discover().detectors))"
    environment = {**os.environ, "PYTHONPATH": path}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert "'instant'" in said.stdout, said.stderr


def test_the_detector_marks_planes_in_the_middle() -> None:
    """Findings on some twenty slices, so that pictures and reports are made and sent."""
    volume, _ = source(n=30, size=(300, 300))
    result = DETECTOR.detect(volume)
    assert len(pictured(result, context())) == 30
    assert [region.plane for region in result.findings[0].regions] == list(range(5, 5 + MARKED))


def test_the_study_is_one_series_of_its_own_in_each_run(tmp_path: Path) -> None:
    """No run is a repetition of the one before."""
    phantom = Phantom(3)
    headers = [dcmread(path) for run in ("1", "2") for path in phantom.write(tmp_path / run, run)]
    assert len({header.SOPInstanceUID for header in headers}) == 6
    assert len({header.SeriesInstanceUID for header in headers}) == len({header.PatientID for header in headers}) == 2
    assert [float(header.ImagePositionPatient[2]) for header in headers[:3]] == pytest.approx([0.6, 1.2, 1.8])
    assert headers[0].Rows == headers[0].Columns == 512


def test_the_section_shows_every_stage_with_its_quantiles() -> None:
    """p50 and p95 are values that were measured."""
    runs = tuple(dict.fromkeys(STAGES, float(n)) for n in range(1, 21))
    text = section([Overhead(300, "sc-sr", runs, {"sc": 21, "sr": 2}, 31_000_000)], "2 cores.")
    for stage, words in STAGES.items():
        assert f"| {stage} | {words} | 10.000 s | 19.000 s |" in text
    assert "300 slices, profile `sc-sr`: 21 SC, 2 SR, 31 MB; 20 studies" in text
