"""The main job with the node as a process, DCMTK as the scanner and Orthanc as the PACS."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx2 as httpx
import pytest
from pydicom import dcmread

from dicomnode.demo.phantoms import make_ct_head, make_dx_chest, make_mr_flair
from dicomnode.report.montage import LONG_SERIES
from tests.acceptance.node_process import PATIENCE_S, NodeProcess
from tests.acceptance.orthanc import Orthanc
from tests.acceptance.validators import validate

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK is not installed"),
    pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed"),
    pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed"),
]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One CT, one DX and one MR study on disk, by Study Instance UID."""
    root = tmp_path_factory.mktemp("studies")
    found = {}
    for name, make in (("ct", make_ct_head), ("dx", make_dx_chest), ("mr", make_mr_flair)):
        phantom = make(seed=7)
        phantom.write(root / name)
        found[str(phantom.datasets[0].StudyInstanceUID)] = root / name
    return found


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory, studies: dict[str, Path]):
    """The studies sent with storescu through a running node into Orthanc; yields node, Orthanc, status."""
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        node = NodeProcess(tmp_path_factory.mktemp("node"), orthanc.dicom_port)
        try:
            node.start()
            for folder in studies.values():
                storescu(node.port, folder)
            yield node, orthanc, node.wait_settled(len(studies), 300)
        finally:
            node.close()


def storescu(port: int, folder: Path) -> None:
    """Send a folder with DCMTK, as a scanner would."""
    command = ["storescu", "-aet", "SCANNER", "-aec", "NODE", "+sd", "+r", "127.0.0.1", str(port), str(folder)]
    subprocess.run(command, check=True, timeout=PATIENCE_S, capture_output=True)


def test_every_study_comes_back_as_sc_and_sr_in_the_right_study(flow, studies: dict[str, Path]) -> None:
    _, orthanc, status = flow
    assert {series["results"][0]["outcome"] for series in status["recent"]} <= {"findings", "no findings"}
    for uid, folder in studies.items():
        modalities, images = orthanc.modalities_of_study(uid), len(list(folder.iterdir()))
        montage = images > LONG_SERIES
        assert modalities.count("OT") == images + montage, "one overlay per source image, a montage before many"
        assert modalities.count("SR") >= 1


def test_no_validator_finds_an_error_in_what_was_delivered(flow, tmp_path: Path) -> None:
    _, orthanc, _ = flow
    files = orthanc.download_all(tmp_path)
    assert files
    assert validate(files) == []


def test_results_keep_patient_and_study_of_the_source(flow, studies: dict[str, Path], tmp_path: Path) -> None:
    _, orthanc, _ = flow
    delivered = [dcmread(path, stop_before_pixels=True) for path in orthanc.download_all(tmp_path)]
    for uid, folder in studies.items():
        source = dcmread(next(folder.iterdir()), stop_before_pixels=True)
        for result in (dataset for dataset in delivered if uid == dataset.StudyInstanceUID):
            for keyword in ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyDate"):
                assert result.get(keyword) == source.get(keyword), keyword


def test_every_inference_has_its_provenance_in_the_audit_log(flow) -> None:
    import json

    node, _, status = flow
    answer = node.run("audit", "list", "--event", "inference", "--json")
    rows = json.loads(answer.stdout)
    assert len(rows) == len(status["recent"])
    for row in rows:
        body = row["body"]
        assert len(body["weights_sha256"]) == len(body["config_sha256"]) == 64
        assert body["sources"]
        assert all(len(source["sha256"]) == 64 for source in body["sources"])
        assert {output["kind"] for output in body["outputs"]} == {"sc", "sr"}
    answer = node.run("audit", "list", "--event", "stand-ins made", "--json")
    stand_ins = [row["body"] for row in json.loads(answer.stdout)]
    assert [body["assignment"] for body in stand_ins] == [row["body"]["assignment"] for row in rows]
    assert all({output["kind"] for output in body["outputs"]} == {"pdf", "page"} for body in stand_ins)


def test_the_log_verifies_and_no_patient_data_reached_the_logs(flow) -> None:
    node, _, _ = flow
    answer = node.run("audit", "verify")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("ok")
    assert "PHANTOM" not in node.log.read_text()


def test_console_answers_and_holds_no_patient_identifier(flow) -> None:
    node, _, _ = flow
    health = httpx.get(f"{node.console}healthz", timeout=PATIENCE_S)
    assert health.status_code == 200, health.text
    page = httpx.get(node.console, timeout=PATIENCE_S).text
    assert "not a medical device" in page
    assert "PHANTOM" not in page
    assert "dicomnode_outcomes" in httpx.get(f"{node.console}metrics", timeout=PATIENCE_S).text


def test_one_edited_byte_is_named_by_verify(flow, tmp_path: Path) -> None:
    """The sqlite3 shell edits one character of one row, its trigger removed as an attacker would."""
    if shutil.which("sqlite3") is None:
        pytest.skip("the sqlite3 shell is not installed")
    node, orthanc, _ = flow
    copy = NodeProcess(tmp_path / "copy", orthanc.dicom_port)
    copy.database.parent.mkdir(parents=True)
    subprocess.run(["sqlite3", str(node.database), f".backup {copy.database}"], check=True)
    edit = (
        "DROP TRIGGER audit_no_update;"
        "UPDATE audit SET body = substr(body, 1, 9) || char(unicode(substr(body, 10, 1)) + 1) || substr(body, 11) "
        "WHERE seq = 5;"
    )
    subprocess.run(["sqlite3", str(copy.database), edit], check=True)
    answer = copy.run("audit", "verify")
    assert answer.returncode == 1
    assert "row 5" in answer.stderr


def test_sigterm_drains_within_thirty_seconds(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path, 104)
    try:
        node.start()
        assert node.stop(30) == 0
    finally:
        node.close()


def test_a_second_node_on_the_same_data_refuses_to_start(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path, 104)
    try:
        node.start()
        answer = node.run("serve")
        assert answer.returncode == 2
        assert "another node" in answer.stderr
    finally:
        node.close()
