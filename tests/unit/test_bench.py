"""The benchmarks run, measure what they say, and their document holds every section."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import UID

from dicomnode.dicom.header import ROUTING_KEYWORDS, read_header
from tests.bench.crowd import Crowd
from tests.bench.database import Times, measure_database
from tests.bench.detect import TITLE, Bound, Rate, bound_of, section
from tests.bench.document import DOCUMENT, Results, kept_section, render, with_other_sections, with_section
from tests.bench.giant import Giant
from tests.bench.loads import LOADS, Objects, data_set_of, message, uids_of
from tests.bench.loop import Loop, StudyTime, read_report
from tests.bench.machine import look
from tests.bench.receive import Reception, Run
from tests.bench.receive_document import Report
from tests.bench.receive_document import section as receive_section
from tests.bench.receivers import NODE, ORTHANC, ORTHANC_NO_NAGLE, STORESCP, STORESCP_FORK

SECTIONS = ("Machine", "From last instance to delivered", "Database", "How to repeat")
SECONDS = {NODE: 2.0, STORESCP_FORK: 1.0, STORESCP: 1.5, ORTHANC_NO_NAGLE: 8.0, ORTHANC: 80.0}


def reception() -> Reception:
    """Two rounds: a quick one and one in which everything took twice as long."""
    runs = [
        Run(
            name,
            "ct",
            n,
            turn,
            200,
            100_000_000,
            seconds * (turn + 1),
            40 * 2**20,
            50 * 2**20,
            0.5,
            tuple(float(ms) for ms in range(1, 101)),
            100,
            seconds,
        )
        for turn in range(2)
        for n in (1, 4)
        for name, seconds in SECONDS.items()
    ]
    about = {name: {"version": "1.0", "setting": "as it comes"} for name in SECONDS}
    return Reception("DCMTK storescu", 2, about, (), tuple(runs))


def test_ratios_compare_runs_of_the_same_round() -> None:
    """A round in which the machine was slow changes rates, not ratios."""
    assert reception().ratio(STORESCP_FORK, "ct", 1) == pytest.approx(0.5)
    assert reception().ratio(ORTHANC_NO_NAGLE, "ct", 4) == pytest.approx(4.0)


def test_the_section_on_reception_judges_every_target(tmp_path: Path) -> None:
    """What did not hold is said, with the faster way of storescp and both ways of Orthanc as yardsticks."""
    giant = Giant(10**9, 10.0, 2**20, 65 * 2**20, 1.0, intact=True)
    crowd = Crowd(24, 4800, 10.0, {0: 4799, 0xA700: 1}, 0)
    text = receive_section(Report(look(tmp_path), 1.0, "command", reception(), giant, crowd))
    assert "| CT, one association: ≥ 0.55 × DCMTK storescp, forking (the faster way) | 0.50 × | **not held** |" in text
    assert "| CT, four associations: ≥ 4 × Orthanc, TCP_NODELAY=1 | 4.00 × | held |" in text
    assert "| CT, one association: ≥ 4 × Orthanc, as it comes | 40.00 × | held |" in text
    assert "growth < 64 MiB | +65 MiB, 100 MB/s | **not held** |" in text
    assert (
        "24 associations × 200: zero refused, zero lost | 1 refused, 0 lost; 480 instances/s of 40 kB | **not" in text
    )
    line = "| dicomnode | 75 (50–100) | 38 | 51.0 / 100.0 ms | 2.50 ms | 50 MiB, +10 |  | 50/s |"
    assert line in text
    missing = replace(reception(), missing=("Orthanc, as it comes",))
    assert "Orthanc, as it comes is not installed here" in receive_section(Report(look(tmp_path), 1.0, "", missing))


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


def test_objects_have_their_size_and_are_new_in_each_run(tmp_path: Path) -> None:
    """Each is readable and has UIDs of its own, so that no receiver meets one twice; an association is a study."""
    objects = Objects(tmp_path / "ct", replace(LOADS["ct"], count=5))
    uids, studies = set(), set()
    for run in (1, 2):
        parts = objects.renew(run, 2)
        assert [len(part) for part in parts] == [3, 2]
        for path in (path for part in parts for path in part):
            assert 500_000 < path.stat().st_size == objects.size < 600_000
            header = read_header(path, ROUTING_KEYWORDS)
            assert header["Rows"] == (512,)
            dataset = dcmread(path, stop_before_pixels=True)
            assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
            assert UID(dataset.SOPInstanceUID).is_valid
            assert UID(dataset.SeriesInstanceUID).is_valid
            uids.add(dataset.SOPInstanceUID)
            studies.add(dataset.StudyInstanceUID)
    assert len(uids) == 10
    assert len(studies) == 4


def test_a_prepared_message_holds_the_same_object_as_the_file(tmp_path: Path) -> None:
    """The pass that times each C-STORE sends what storescu sends, cut into PDUs of the receiver's size."""
    objects = Objects(tmp_path / "mr", replace(LOADS["mr"], count=2))
    objects.renew(7, 1)
    request = message(data_set_of(objects.template), objects.load, 1, 16384)
    for name, uid in uids_of(7, 0, 1).items():
        request.put(name, uid)
    sent, at = b"", 0
    while at < len(request.wire):
        kind, _, length, size, context, flags = struct.unpack_from(">BBIIBB", request.wire, at)
        assert (kind, context, size) == (4, 1, length - 4)
        assert length <= 16384
        sent += b"" if flags & 1 else bytes(request.wire[at + 12 : at + 6 + length])
        at += 6 + length
    assert sent == data_set_of(objects.files[1].read_bytes())


def test_the_demo_account_is_read() -> None:
    row = {"study": "CT head", "detector": "ct-head", "outcome": "findings", "seconds": 4.5, "delivered": "20 SC, 2 SR"}
    report = {"ok": True, "rows": [{**row, "model": "m", "score": 1.0}], "faults": []}
    assert read_report(report) == Loop((StudyTime(**row),), ())


def test_the_document_states_figures_and_machine(tmp_path: Path) -> None:
    machine = look(tmp_path)
    assert machine.cores > 0
    assert machine.fsync_ms > 0
    database = measure_database(tmp_path, lambda: None, single=2, batched=10, jobs=5, claims=3)
    loop = Loop(
        (StudyTime("CT head", "ct-head", "findings", 4.5, "20 SC, 2 SR"), StudyTime("MR", "x", "failed", None, "")),
        ("MR: no SC",),
    )
    results = Results(machine, loop, database)
    text = render(results)
    assert all(f"## {section}\n" in text for section in SECTIONS)
    assert "| 4.5 s |" in text
    assert "not delivered" in text
    assert "Not as promised:** MR: no SC" in text
    assert json.loads(json.dumps(asdict(results)))["machine"]["cores"] == machine.cores


def test_the_document_in_the_repository_holds_every_section() -> None:
    """All receivers, all three studies delivered."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert all(f"## {section}\n" in text for section in (*SECTIONS, "Reception", "Detection"))
    assert all(f"| {name} |" in kept_section(text, "Reception") for name in SECONDS)
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
    rewritten = with_other_sections("# Benchmarks\n\n## Machine\n\nnew\n\n## Database\n\nnew\n", both)
    assert kept_section(rewritten, TITLE) == text.strip()
    assert rewritten.count("## ") == 3
    assert "y\n" not in rewritten
    assert rate.studies_min == pytest.approx(60_000 / 440)


def test_the_bound_of_this_machine_is_measured() -> None:
    bound = bound_of("cpu")
    assert 1e8 < bound.flops < 1e15
    assert 1e7 < bound.bandwidth < 1e14
