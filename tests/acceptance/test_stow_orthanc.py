"""STOW-RS to a real Orthanc: every kind of result arrives byte for byte, and what it refuses is told."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread, dcmwrite
from sqlalchemy import update

from dicomnode.config import StowPeer
from dicomnode.deliver.send import read_outbound
from dicomnode.deliver.sending import OutboundFile
from dicomnode.deliver.stow import store_instances
from dicomnode.deliver.worker import Deliverer
from dicomnode.dicom.status import Disposition
from dicomnode.node.peer_checks import check_peer
from dicomnode.report import KINDS, build_results, to_bytes
from dicomnode.store.tables import DerivedRow
from tests import report_fixtures
from tests.acceptance.orthanc import Orthanc
from tests.integration.deliver_fixtures import Outbox, config, make_file

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
missing = shutil.which("Orthanc") is None or not PLUGIN.exists()
pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(600),
    pytest.mark.skipif(missing, reason="Orthanc or its DICOMweb plugin is not installed"),
]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc"), settings={"Plugins": [str(PLUGIN)]}) as running:
        yield running


def peer_of(orthanc: Orthanc) -> StowPeer:
    return StowPeer(name="pacs", stow=f"http://127.0.0.1:{orthanc.http_port}/dicom-web/")


def instances_by_dicomweb(orthanc: Orthanc, study: str) -> list[str]:
    """What an independent client finds in the Study (QIDO-RS)."""
    session = requests.Session()
    session.trust_env = False
    client = DICOMwebClient(peer_of(orthanc).stow.rstrip("/"), session=session)
    return [found["00080018"]["Value"][0] for found in client.search_for_instances(study)]


def test_every_kind_of_result_arrives_byte_for_byte_and_again_changes_nothing(orthanc: Orthanc, tmp_path: Path) -> None:
    volume, headers = report_fixtures.source("CT")
    made = build_results(volume, headers, report_fixtures.findings(volume), report_fixtures.context())
    assert {item.kind for item in made} == KINDS
    contents = {str(item.dataset.SOPInstanceUID): to_bytes(item.dataset) for item in made}
    files = []
    for uid, content in contents.items():
        (tmp_path / f"{uid}.dcm").write_bytes(content)
        file = read_outbound(tmp_path / f"{uid}.dcm")
        assert isinstance(file, OutboundFile)
        files.append(file)
    for _ in range(2):
        answers = list(store_instances(peer_of(orthanc), files))
        assert [answer.disposition for answer in answers] == [Disposition.STORED] * len(files)
    assert sorted(instances_by_dicomweb(orthanc, headers[0].StudyInstanceUID)) == sorted(contents)
    (tmp_path / "out").mkdir()
    held = {path.stem: path.read_bytes() for path in orthanc.download_all(tmp_path / "out")}
    assert {uid: held[uid] for uid in contents} == contents


def test_what_orthanc_refuses_is_a_dead_letter_with_its_reason_and_the_rest_arrives(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    """The middle one has no Series Instance UID: Orthanc names it in FailedSOPSequence, with reason 0xC000."""
    outbox = Outbox(tmp_path)
    outbox.add_result(outbox.add_study(), "pacs")
    first, bad, last = outbox.derived()
    path = outbox.spool.absolute(bad.path)
    dataset = dcmread(path)
    del dataset.SeriesInstanceUID
    dcmwrite(path, dataset, enforce_file_format=True)
    with outbox.store.write() as session:
        changed = update(DerivedRow).where(DerivedRow.id == bad.id)
        session.execute(changed.values(sha256=sha256(path.read_bytes()).hexdigest()))
    worker = Deliverer(config(peer_of(orthanc)), outbox.store, outbox.spool, "deliver-1", outbox.clock)
    while worker.step():
        pass
    assert outbox.states() == ["delivered", "failed", "delivered"]
    (job,) = outbox.jobs()
    assert job.state == "dead"
    assert job.error == "1 of 3 instances not delivered: 0xC000 cannot understand"
    assert outbox.audit("delivery failed")[0]["instances"][0]["Status"] == 0xC000
    assert {first.SOPInstanceUID, last.SOPInstanceUID} <= set(orthanc.instances())
    assert bad.SOPInstanceUID not in orthanc.instances()


def test_a_file_that_is_no_dicom_does_not_keep_the_good_ones_back(orthanc: Orthanc, tmp_path: Path) -> None:
    files = []
    for name in ("a", "b", "c"):
        make_file(tmp_path / f"{name}.dcm")
        files.append(read_outbound(tmp_path / f"{name}.dcm"))
    assert all(isinstance(file, OutboundFile) for file in files)
    files[1].path.write_bytes(b"\0" * 128 + b"DICM" + b"no data set")
    answers = {answer.file: answer for answer in store_instances(peer_of(orthanc), files)}
    assert [answers[file].accepted for file in files] == [True, False, True]
    assert answers[files[1]].disposition is Disposition.PERMANENT
    assert answers[files[1]].reason == "HTTP 400 Bad Request"
    assert {files[0].SOPInstanceUID, files[2].SOPInstanceUID} <= set(orthanc.instances())


def test_orthanc_down_then_back_gets_everything(tmp_path: Path) -> None:
    with Orthanc(tmp_path / "orthanc", settings={"Plugins": [str(PLUGIN)]}) as orthanc:
        outbox = Outbox(tmp_path)
        outbox.add_result(outbox.add_study(), "pacs")
        worker = Deliverer(config(peer_of(orthanc)), outbox.store, outbox.spool, "deliver-1", outbox.clock)
        orthanc.stop()
        for _ in range(3):
            worker.step()
            outbox.now += 400.0
        assert outbox.states() == ["waiting"] * 3
        assert outbox.jobs()[0].error == "connection refused"
        orthanc.start()
        worker.step()
        assert outbox.states() == ["delivered"] * 3
        assert sorted(orthanc.instances()) == sorted(row.SOPInstanceUID for row in outbox.derived())


def test_doctor_tells_a_right_url_from_a_wrong_one(orthanc: Orthanc) -> None:
    assert check_peer(peer_of(orthanc), "NODE").ok
    wrong = peer_of(orthanc).model_copy(update={"stow": f"http://127.0.0.1:{orthanc.http_port}/elsewhere"})
    check = check_peer(wrong, "NODE")
    assert check.ok is None
    assert "correct the URL" in check.mend
