"""Delivery to real archives: Orthanc, and DCMTK's storescp."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit
from sqlalchemy import update

from dicomnode.config import Peer
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.scu import echo
from dicomnode.deliver.send import send_paths
from dicomnode.deliver.worker import Deliverer
from dicomnode.store.tables import DeliveryRow, DerivedRow, JobRow
from tests.acceptance.orthanc import START_S, Orthanc
from tests.faults.receiver import wait_until
from tests.integration.deliver_fixtures import SR, Outbox, body_of, config, make_file
from tests.ports import free_port

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]
needs_orthanc = pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed")
needs_dcmtk = pytest.mark.skipif(shutil.which("storescp") is None, reason="DCMTK is not installed")

PATIENT = SendLimits(connect_s=120.0, acse_s=120.0, dimse_s=120.0)
STUDIES = ("1.2.826.0.1.3680043.8.498.71", "1.2.826.0.1.3680043.8.498.72")


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def peer_of(orthanc: Orthanc) -> Peer:
    return Peer(name="pacs", ae_title=orthanc.ae_title, host="127.0.0.1", port=orthanc.dicom_port)


def put_in_study(outbox: Outbox, assignment: int, study: str) -> None:
    """Let the Derived Instances of ``assignment`` belong to ``study``, files and rows."""
    for row in outbox.derived():
        if row.assignment_id != assignment:
            continue
        path = outbox.spool.absolute(row.path)
        dataset = dcmread(path)
        dataset.StudyInstanceUID = study
        dcmwrite(path, dataset, enforce_file_format=True)
        with outbox.store.write() as session:
            changed = update(DerivedRow).where(DerivedRow.id == row.id)
            session.execute(changed.values(sha256=sha256(path.read_bytes()).hexdigest()))


@needs_orthanc
def test_results_arrive_in_the_right_study_and_sending_them_again_changes_nothing(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    outbox = Outbox(tmp_path)
    for study in STUDIES:
        put_in_study(outbox, outbox.add_result(outbox.add_study(), "pacs", kinds=("sc", "sc", "sr")), study)
    worker = Deliverer(config(peer_of(orthanc)), outbox.store, outbox.spool, "deliver-1", outbox.clock)
    while worker.step():
        pass
    assert outbox.states() == ["delivered"] * 6
    for study in STUDIES:
        assert sorted(orthanc.modalities_of_study(study)) == ["OT", "OT", "SR"]
    before = sorted(orthanc.instances())
    with outbox.store.write() as session:
        session.execute(update(DeliveryRow).values(state="waiting"))
        session.execute(update(JobRow).values(state="ready"))
    while worker.step():
        pass
    assert outbox.states() == ["delivered"] * 6
    assert sorted(orthanc.instances()) == before
    assert len(outbox.audit("delivered")) == 4


@needs_orthanc
def test_orthanc_holds_the_bytes_that_we_made(orthanc: Orthanc, tmp_path: Path) -> None:
    source = tmp_path / "in" / "a.dcm"
    dataset = make_file(source, pixels=640_000)
    (answer,) = send_paths([source], peer_of(orthanc), "SENDER")
    assert answer.ok
    (tmp_path / "out").mkdir()
    found = {path.stem: path for path in orthanc.download_all(tmp_path / "out")}
    assert body_of(found[str(dataset.SOPInstanceUID)]) == body_of(source)


@needs_orthanc
def test_orthanc_down_then_back_gets_everything(tmp_path: Path) -> None:
    """R11: a real archive that goes and comes back."""
    with Orthanc(tmp_path / "orthanc") as orthanc:
        outbox = Outbox(tmp_path)
        put_in_study(outbox, outbox.add_result(outbox.add_study(), "pacs"), STUDIES[0])
        worker = Deliverer(config(peer_of(orthanc)), outbox.store, outbox.spool, "deliver-1", outbox.clock)
        orthanc.stop()
        for _ in range(5):
            worker.step()
            outbox.now += 400.0
        assert outbox.states() == ["waiting"] * 3
        orthanc.start()
        worker.step()
        assert outbox.states() == ["delivered"] * 3
        assert sorted(orthanc.modalities_of_study(STUDIES[0])) == ["OT", "OT", "SR"]


@needs_orthanc
def test_orthanc_answers_echo_and_refuses_a_wrong_title(orthanc: Orthanc) -> None:
    assert echo(peer_of(orthanc), "NODE", PATIENT).ok
    wrong = peer_of(orthanc).model_copy(update={"ae_title": "NOBODY"})
    answer = echo(wrong, "NODE", PATIENT)
    assert not answer.ok
    assert "rejected" in answer.reason


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[Peer]:
    """DCMTK's storage server on a free port, files as received into ``folder``."""
    folder.mkdir()
    port = free_port()
    command = ["storescp", "-aet", "DCMTK", "+B", "-od", str(folder), *options, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), START_S, "storescp listens")
        yield Peer(name="dcmtk", ae_title="DCMTK", host="127.0.0.1", port=port)
    finally:
        process.terminate()
        process.wait(START_S)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@needs_dcmtk
def test_dcmtk_stores_byte_exact_objects_and_takes_them_twice(tmp_path: Path) -> None:
    sources = [make_file(tmp_path / "in" / "a.dcm", pixels=640_000), make_file(tmp_path / "in" / "b", sop_class=SR)]
    with storescp(tmp_path / "out") as peer:
        for _ in range(2):
            answers = list(send_paths([tmp_path / "in"], peer, "SENDER"))
            assert [answer.ok for answer in answers] == [True, True]
    received = {str(dcmread(path).SOPInstanceUID): path for path in (tmp_path / "out").iterdir()}
    assert len(received) == 2
    assert body_of(received[str(sources[0].SOPInstanceUID)]) == body_of(tmp_path / "in" / "a.dcm")
    assert body_of(received[str(sources[1].SOPInstanceUID)]) == body_of(tmp_path / "in" / "b")


@needs_dcmtk
def test_dcmtk_that_takes_implicit_only_gets_a_conversion_and_no_compressed_object(tmp_path: Path) -> None:
    made = make_file(tmp_path / "in" / "a.dcm", syntax=ExplicitVRLittleEndian)
    make_file(tmp_path / "in" / "b.dcm", syntax=JPEGBaseline8Bit)
    with storescp(tmp_path / "out", "+xi") as peer:
        first, second = send_paths([tmp_path / "in"], peer, "SENDER")
    assert first.ok
    assert not second.ok
    assert "does not accept Secondary Capture" in second.text
    (received,) = (tmp_path / "out").iterdir()
    assert dcmread(received).PixelData == made.PixelData
    assert dcmread(received).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
