"""The benchmarks run, measure what they say, and their document holds every section."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.dicom.header import ROUTING_KEYWORDS, read_header
from tests.bench.database import Times, measure_database
from tests.bench.detect import TITLE, Bound, Rate, bound_of, section
from tests.bench.document import DOCUMENT, Results, kept_section, render, with_section
from tests.bench.loop import Loop, StudyTime, read_report
from tests.bench.machine import look
from tests.bench.objects import write_objects
from tests.bench.receive import Reception, Run

SECTIONS = ("Machine", "Reception", "From last instance to delivered", "Database", "How to repeat")
RECEIVERS = ("dicomnode", "DCMTK storescp", "Orthanc")


def reception() -> Reception:
    """Two rounds: a quick one and one in which everything took twice as long."""
    seconds = {"dicomnode": 2.0, "DCMTK storescp": 1.0, "Orthanc": 8.0}
    runs = [
        Run(name, n, turn, 200, 100_000_000, seconds[name] * (turn + 1), 50 * 2**20)
        for turn in range(2)
        for n in (1, 4)
        for name in RECEIVERS
    ]
    about = {name: {"version": "1.0", "setting": "as it comes"} for name in RECEIVERS}
    return Reception("DCMTK storescu", 200, 2, (1, 4), about, (), tuple(runs))


def test_ratios_compare_runs_of_the_same_round() -> None:
    """A round in which the machine was slow changes rates, not ratios."""
    assert reception().ratio("DCMTK storescp", 1) == pytest.approx(0.5)
    assert reception().ratio("Orthanc", 4) == pytest.approx(4.0)


def test_database_figures_are_plausible(tmp_path: Path) -> None:
    steps = []
    found = measure_database(tmp_path, lambda: steps.append(1), single=10, batched=250, jobs=50, claims=20)
    assert len(steps) == 4
    assert found.audit_rows == 260
    assert all(1 < rate < 1e7 for rate in (found.append_single_s, found.append_batch_s, found.verify_s))
    for times in (found.claim, found.finish):
        assert times.count == 20
        assert 0 < times.p50_ms <= times.p95_ms <= times.max_ms < 30_000


def test_percentiles_are_in_milliseconds() -> None:
    assert Times.of([0.001, 0.002, 0.003]).p50_ms == pytest.approx(2.0)


def test_objects_are_half_a_megabyte_and_new_in_each_run(tmp_path: Path) -> None:
    """Each is a readable CT with a UID of its own, so that no receiver meets one twice."""
    uids = set()
    for run in ("a", "b"):
        folders, size = write_objects(tmp_path / run, 5, run, 2)
        files = [path for folder in folders for path in folder.iterdir()]
        assert [len(list(folder.iterdir())) for folder in folders] == [2, 3]
        assert size == sum(path.stat().st_size for path in files)
        assert all(500_000 < path.stat().st_size < 600_000 for path in files)
        assert all("Rows" in read_header(path, ROUTING_KEYWORDS) for path in files)
        uids |= {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files}
    assert len(uids) == 10


def test_the_demo_account_is_read() -> None:
    row = {"study": "CT head", "detector": "ct-head", "outcome": "findings", "seconds": 4.5, "delivered": "20 SC, 2 SR"}
    report = {"ok": True, "rows": [{**row, "model": "m", "score": 1.0}], "faults": []}
    assert read_report(report) == Loop((StudyTime(**row),), ())


def test_the_document_states_figures_machine_and_what_was_missing(tmp_path: Path) -> None:
    machine = look(tmp_path)
    assert machine.cores > 0
    assert machine.fsync_ms > 0
    database = measure_database(tmp_path, lambda: None, single=2, batched=10, jobs=5, claims=3)
    loop = Loop(
        (StudyTime("CT head", "ct-head", "findings", 4.5, "20 SC, 2 SR"), StudyTime("MR", "x", "failed", None, "")),
        ("MR: no SC",),
    )
    results = Results(machine, replace(reception(), missing=("Orthanc",)), loop, database)
    text = render(results)
    assert all(f"## {section}\n" in text for section in SECTIONS)
    assert "| DCMTK storescp | 1 | 150 (100–200) | 75 | 50 MiB | 0.50 × as fast |" in text
    assert "Orthanc is not installed here and was not measured" in text
    assert "| 4.5 s |" in text
    assert "not delivered" in text
    assert "Not as promised:** MR: no SC" in text
    assert json.loads(json.dumps(asdict(results)))["machine"]["cores"] == machine.cores


def test_the_document_in_the_repository_holds_every_section() -> None:
    """Written by one full run: all receivers, all three studies delivered."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert all(f"## {section}\n" in text for section in SECTIONS)
    assert all(f"| {name} | 1 |" in text and f"| {name} | 4 |" in text for name in RECEIVERS)
    assert all(f"| {name} |" in text for name in ("ct-head", "cxr", "mr-brain-flair"))
    assert "Not as promised" not in text


def test_the_detection_section_is_replaced_and_kept_and_states_the_bound() -> None:
    """Each benchmark writes its own section and leaves the other's alone."""
    rate = Rate("m", "cpu", "float32, batch 16", 20, 2.0, 10.0, 5.0, 400.0, 500.0, 380.0, 4, 1e9, 1e6)
    text = section([rate], Bound(100e9, 10e9, "measured"), "A machine.")
    assert "200.0 %" in text
    first = with_section("# Benchmarks\n\n## Machine\n\nx\n", TITLE, "## Detection\n\noutdated")
    both = with_section(first + "\n## Database\n\ny\n", TITLE, text)
    assert "outdated" not in both
    assert both.index("## Machine") < both.index(f"## {TITLE}") < both.index("## Database")
    assert kept_section(both, TITLE) == text.strip()
    assert kept_section("# Benchmarks\n", TITLE) == ""
    assert rate.studies_min == pytest.approx(60_000 / 440)


def test_the_bound_of_this_machine_is_measured() -> None:
    bound = bound_of("cpu")
    assert 1e8 < bound.flops < 1e15
    assert 1e7 < bound.bandwidth < 1e14
