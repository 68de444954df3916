"""What happens on odd days: a knee, a late slice, a missing slice, a PACS that is away. Nothing is silent or lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicomnode.config.peers import Peer
from dicomnode.deliver.send import send_paths
from dicomnode.demo.pacs import DemoPacs, demo_pacs
from dicomnode.demo.phantoms import make_ct_head, make_dx_chest, make_mr_flair
from tests.acceptance.node_process import NodeProcess
from tests.ports import free_port

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    """A node that waits for missing slices longer than a busy machine pauses between two of them, and a PACS."""
    folder = tmp_path_factory.mktemp("site")
    with demo_pacs(folder / "pacs") as pacs:
        node = NodeProcess(folder / "node", pacs.port, assemble="quiet_period_s = 15\nmax_wait_s = 15")
        try:
            node.start()
            yield node, pacs
        finally:
            node.close()


def send(node: NodeProcess, paths: list[Path]) -> None:
    target = Peer(name="node", ae_title="NODE", host="127.0.0.1", port=node.port)
    answers = list(send_paths(paths, target, "SCANNER"))
    assert len(answers) == len(paths)
    assert all(answer.ok for answer in answers), [answer.text for answer in answers if not answer.ok]


def series_of(node: NodeProcess, study: str) -> dict[str, Any]:
    return next(item for item in node.status()["recent"] if item["StudyInstanceUID"] == study)


def wait_result(node: NodeProcess, study: str, generation: int = 1, limit_s: float = 300) -> dict[str, Any]:
    """Wait for the outcome of a generation and the delivery of its objects."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        found = (item for item in node.look()["recent"] if item["StudyInstanceUID"] == study)
        for result in (result for series in found for result in series["results"]):
            waiting = any("waiting" in states for states in result["objects"].values())
            if result["generation"] == generation and result["outcome"] != "pending" and not waiting:
                return dict(result)
        time.sleep(0.3)
    raise AssertionError(f"no result: {series_of(node, study)}")


def test_a_knee_is_not_analysed_because_no_detector_accepts_it(site, tmp_path: Path) -> None:
    node, _ = site
    phantom = make_mr_flair(seed=31)
    for dataset in phantom.datasets:
        dataset.BodyPartExamined, dataset.SeriesDescription, dataset.ProtocolName = "KNEE", "SAG PD", "SAG PD"
        dataset.StudyDescription = "MR knee"
    paths = phantom.write(tmp_path)
    send(node, paths)
    result = wait_result(node, str(phantom.datasets[0].StudyInstanceUID))
    assert result["outcome"] == "not analysed"
    assert "no detector accepts" in result["reason"]
    assert "KNEE" in result["reason"].upper()
    assert result["objects"] == {}


def test_a_late_slice_gives_a_new_result_that_names_the_old_one(site, tmp_path: Path) -> None:
    """R6: the study is opened again and the new report names the one that it replaces."""
    node, pacs = site
    phantom = make_ct_head(seed=32)
    study = str(phantom.datasets[0].StudyInstanceUID)
    paths = phantom.write(tmp_path)
    send(node, paths[:-1])
    wait_result(node, study)
    send(node, paths[-1:])
    wait_result(node, study, generation=2)
    reports = sorted(_reports(pacs, study), key=lambda report: "PredecessorDocumentsSequence" in report)
    superseding = [report for report in reports if "PredecessorDocumentsSequence" in report]
    superseded = {str(report.SOPInstanceUID) for report in reports} - {str(r.SOPInstanceUID) for r in superseding}
    assert superseding
    assert superseded
    named = {
        str(item.ReferencedSOPInstanceUID)
        for report in superseding
        for predecessor in report.PredecessorDocumentsSequence
        for series in predecessor.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert named == superseded
    assert series_of(node, study)["generation"] == 2


def _reports(pacs: DemoPacs, study: str) -> list[Any]:
    return [dcmread(path) for path in (pacs.folder / study).glob("SR-*.dcm")]


def test_a_missing_slice_is_waited_for_and_then_said(site, tmp_path: Path) -> None:
    """R7: waited for, then closed with the flag "incomplete" and a reason, never silently."""
    node, _ = site
    phantom = make_ct_head(seed=33)
    study = str(phantom.datasets[0].StudyInstanceUID)
    paths = phantom.write(tmp_path)
    send(node, paths[:9] + paths[10:])
    result = wait_result(node, study)
    assert series_of(node, study)["incomplete"]
    assert result["outcome"] == "not analysed"
    assert "gap" in result["reason"] or "missing" in result["reason"]


def test_results_wait_for_a_pacs_that_is_away(tmp_path: Path) -> None:
    port = free_port()
    node = NodeProcess(tmp_path / "node", port)
    phantom = make_dx_chest(seed=34)
    study = str(phantom.datasets[0].StudyInstanceUID)
    try:
        node.start()
        send(node, phantom.write(tmp_path / "dx"))
        node.wait_outcomes(1, 300)
        time.sleep(5)
        result = series_of(node, study)["results"][0]
        assert set(result["objects"]["pacs"]) == {"waiting"}
        made = result["objects"]["pacs"]["waiting"]
        assert made >= 2
        with demo_pacs(tmp_path / "pacs", port) as pacs:
            delivered = wait_result(node, study)
            assert delivered["objects"]["pacs"] == {"delivered": made}
            assert len(set(pacs.received)) == made
    finally:
        node.close()
