"""Unusual acquisitions end to end: withheld with a page that says why, or told on every output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pypdf import PdfReader

from dicomnode.console.metrics import prometheus
from dicomnode.console.status import read_status
from dicomnode.detectors.acquisition_gate import NOT_AVAILABLE, REVIEW, UNUSUAL
from dicomnode.detectors.contract import Acquisition, DetectionResult, Outcome, Volume
from dicomnode.store.tables import AssignmentRow, DerivedRow, ObservationRow
from tests.integration.detect_fixtures import PEER, Bench, complete_series, finding_result

STRANGE = Acquisition(0.999, 0.98, 0.02, "u", "m", 99, 2.4, (("noise", 6.1), ("sharpness", 3.2)))


@pytest.fixture
def bench_of(tmp_path: Path):
    made: list[Bench] = []

    def build(policy: str = "") -> Bench:
        made.append(Bench(tmp_path / str(len(made)), PEER + (f'[gates]\nacquisition = "{policy}"\n' if policy else "")))
        return made[-1]

    yield build
    for bench in made:
        bench.store.close()


def strange(volume: Volume) -> DetectionResult:
    """Findings on images of a scanner that calibration has not seen."""
    return replace(finding_result(volume), acquisition=STRANGE)


def strange_and_clear(volume: Volume) -> DetectionResult:
    """The same with a score below the threshold."""
    planes = tuple(replace(plane, score=0.1, heat=np.zeros_like(plane.heat)) for plane in strange(volume).planes)
    return replace(strange(volume), outcome=Outcome.NO_FINDINGS, score=0.2, planes=planes, findings=())


def ended(bench: Bench, script: Callable[[Volume], DetectionResult]) -> AssignmentRow:
    complete_series(bench.store, bench.spool)
    assert bench.worker(script).step()
    return bench.rows(AssignmentRow)[0]


def objects(bench: Bench, kind: str) -> list[Dataset]:
    return [dcmread(bench.spool.absolute(row.path)) for row in bench.rows(DerivedRow) if row.kind == kind]


def words(dataset: Dataset) -> str:
    """Every text of an SR document."""
    return "\n".join(str(item.value) for item in dataset.iterall() if item.VR in ("UT", "LT", "ST"))


def pdf_text(dataset: Dataset, folder: Path) -> str:
    path = folder / "page.pdf"
    path.write_bytes(dataset.EncapsulatedDocument)
    return " ".join(page.extract_text() for page in PdfReader(path).pages)


def test_a_score_from_a_strange_scanner_is_withheld_and_a_page_says_why(bench_of) -> None:
    """High / low of the decision table: no result, one status page, the gate in status, metric and audit."""
    bench = bench_of("withhold")
    row = ended(bench, strange_and_clear)
    assert (row.outcome, row.gate, row.score) == ("not analysed", "acquisition", None)
    assert row.reason.startswith("unusual acquisition, score withheld")
    assert "noise +6.1" in row.reason
    assert bench.flow().step()
    assert [made.kind for made in bench.rows(DerivedRow)] == ["page", "pdf"]
    status = read_status(bench.config, bench.store, bench.spool, 200.0)
    assert 'dicomnode_not_analysed{gate="acquisition"} 1' in prometheus(status)
    told = bench.audited("inference")[0]
    assert told["acquisition"] == {"score": 0.999, "threshold": 0.98, "unusual": True}
    assert bench.audited("status page")[0]["gate"] == "acquisition"


def test_the_status_page_names_the_check_of_the_acquisition(bench_of, tmp_path: Path) -> None:
    bench = bench_of("withhold")
    ended(bench, strange_and_clear)
    assert bench.flow().step()
    text = " ".join(pdf_text(objects(bench, "pdf")[0], tmp_path).split())
    assert "The check of the acquisition" in text
    assert "score withheld" in text
    assert "NO FINDINGS" not in text


@pytest.mark.parametrize("policy", ["withhold", "note", ""])
def test_findings_from_a_strange_scanner_ask_for_review_on_every_output(bench_of, tmp_path: Path, policy: str) -> None:
    """High / high is never withheld and never automatic: SR, captures, page and PDF all say it."""
    bench = bench_of(policy)
    assert ended(bench, strange).outcome == "findings"
    assert all(REVIEW in words(document) for document in objects(bench, "sr"))
    for kind in ("sc", "page"):
        assert all(REVIEW in str(made.ImageComments) for made in objects(bench, kind))
    assert REVIEW in " ".join(pdf_text(objects(bench, "pdf")[0], tmp_path).split())
    assert bench.audited("inference")[0]["notices"] == [REVIEW]


def test_by_default_a_strange_scanner_without_findings_keeps_its_result_with_a_notice(bench_of) -> None:
    """The default is "note": no findings is given, and every output says that it is not reliable."""
    bench = bench_of()
    assert ended(bench, strange_and_clear).outcome == "no findings"
    assert all(UNUSUAL in words(document) for document in objects(bench, "sr"))
    assert all(UNUSUAL in str(made.ImageComments) for made in objects(bench, "sc"))


def test_the_notice_is_burned_into_the_picture(bench_of) -> None:
    """A viewer that shows no attributes shows it too: the pixels of the legend differ."""
    pictures = []
    for script in (strange, finding_result):
        bench = bench_of()
        ended(bench, script)
        pictures.append(objects(bench, "sc")[0].pixel_array)
    assert pictures[0].shape != pictures[1].shape or not np.array_equal(*pictures)


def test_the_gate_can_be_switched_off_and_says_so(bench_of) -> None:
    bench = bench_of("off")
    assert ended(bench, strange_and_clear).outcome == "no findings"
    text = words(objects(bench, "sr")[0])
    assert "acquisition gate=switched off" in text
    assert UNUSUAL not in text


def test_a_model_without_gate_is_named_as_such(bench_of) -> None:
    """An older model folder works as before; the report says that nobody looked."""
    bench = bench_of("withhold")
    assert ended(bench, finding_result).outcome == "findings"
    assert f"acquisition gate={NOT_AVAILABLE}" in words(objects(bench, "sr")[0])


def test_what_is_withheld_still_counts_for_drift(bench_of) -> None:
    """The watch sees the score that the reader does not."""
    bench = bench_of("withhold")
    row = ended(bench, strange_and_clear)
    (seen,) = bench.rows(ObservationRow)
    assert (seen.assignment_id, seen.score, seen.acquisition) == (row.id, 0.2, 0.999)
    assert sum(seen.histogram) == pytest.approx(1.0, abs=1e-3)
