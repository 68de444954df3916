"""The Storage and Verification SCU against archives that answer, refuse, abort, hang or are not there."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)
from pynetdicom import AllStoragePresentationContexts, evt

from dicomnode.config import Peer
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.scu import OutboundFile, echo, send_files
from dicomnode.deliver.send import read_outbound
from dicomnode.dicom.status import Disposition
from tests.integration.deliver_fixtures import (
    SC,
    SR,
    FakePacs,
    aborting,
    body_of,
    encoded,
    hanging,
    make_file,
    nobody_at,
)

PATIENT = SendLimits(connect_s=60.0, acse_s=60.0, dimse_s=60.0, stall_s=60.0, slowest_bytes_s=1e9)
"""For a peer that answers, on a busy machine too."""
HASTY_S = 1.0


def outbound(path: Path, **options) -> OutboundFile:
    make_file(path, **options)
    file = read_outbound(path)
    assert isinstance(file, OutboundFile)
    return file


def three(folder: Path, **options) -> list[OutboundFile]:
    return [outbound(folder / f"{index}.dcm", **options) for index in range(3)]


def test_a_file_leaves_byte_for_byte_in_its_own_transfer_syntax(tmp_path: Path) -> None:
    files = [
        outbound(tmp_path / "a.dcm"),
        outbound(tmp_path / "b.dcm", sop_class=SR),
        outbound(tmp_path / "c.dcm", syntax=ImplicitVRLittleEndian),
        outbound(tmp_path / "d.dcm", syntax=JPEGBaseline8Bit),
        outbound(tmp_path / "e.dcm", syntax=DeflatedExplicitVRLittleEndian),
        outbound(tmp_path / "f.dcm", syntax=ExplicitVRBigEndian),
    ]
    syntaxes = [file.TransferSyntaxUID for file in files]
    with FakePacs(syntaxes=list(dict.fromkeys(syntaxes))) as pacs:
        answers = list(send_files(pacs.peer(), "NODE", files, PATIENT))
    assert [answer.status for answer in answers] == [0] * 6
    assert all(answer.accepted and answer.tried for answer in answers)
    assert pacs.associations == 1
    assert [syntax for _, syntax, _ in pacs.received] == syntaxes
    assert [content for _, _, content in pacs.received] == [body_of(file.path) for file in files]
    assert pacs.uids == [file.SOPInstanceUID for file in files]


@pytest.mark.parametrize("own", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_an_uncompressed_file_is_converted_to_what_the_peer_accepts(tmp_path: Path, own: str) -> None:
    file = outbound(tmp_path / "a.dcm", syntax=own)
    with FakePacs(syntaxes=[ImplicitVRLittleEndian]) as pacs:
        (answer,) = send_files(pacs.peer(), "NODE", [file], PATIENT)
    assert answer.status == 0
    _, syntax, content = pacs.received[0]
    assert syntax == ImplicitVRLittleEndian
    assert content == encoded(dcmread(file.path))


def test_implicit_is_converted_to_explicit(tmp_path: Path) -> None:
    file = outbound(tmp_path / "a.dcm", syntax=ImplicitVRLittleEndian)
    with FakePacs(syntaxes=[ExplicitVRLittleEndian]) as pacs:
        (answer,) = send_files(pacs.peer(), "NODE", [file], PATIENT)
    assert answer.accepted
    received = dcmread(DicomBytesIO(pacs.received[0][2]), force=True)
    assert received.SOPInstanceUID == file.SOPInstanceUID
    assert received.PixelData == dcmread(file.path).PixelData


@pytest.mark.parametrize(
    ("own", "name"), [(JPEGBaseline8Bit, "JPEG Baseline"), (ExplicitVRBigEndian, "Explicit VR Big Endian")]
)
def test_what_cannot_be_converted_safely_fails_by_itself_and_the_others_go_on(
    tmp_path: Path, own: str, name: str
) -> None:
    """Compressed pixels are never decoded, big-endian ones never swapped."""
    files = [outbound(tmp_path / "a.dcm", syntax=own), outbound(tmp_path / "b.dcm")]
    with FakePacs() as pacs:
        first, second = send_files(pacs.peer(), "NODE", files, PATIENT)
    assert first.disposition is Disposition.PERMANENT
    assert first.status is None
    assert "does not accept" in first.reason
    assert name in first.reason
    assert second.accepted


def test_an_element_that_cannot_be_encoded_anew_fails_its_file_and_the_others_go_on(tmp_path: Path) -> None:
    """A US of three bytes in the file: byte for byte it would leave, converted it cannot."""
    files = [outbound(tmp_path / "a.dcm"), outbound(tmp_path / "b.dcm")]
    with files[0].path.open("ab") as more:
        more.write(
            struct.pack("<HH2sHI", 0x7FE1, 0x10, b"UN", 0, 0) + struct.pack("<HH2sH", 0x7FE1, 0x12, b"US", 3) + b"abc"
        )
    with FakePacs(syntaxes=[ImplicitVRLittleEndian]) as pacs:
        first, second = send_files(pacs.peer(), "NODE", files, PATIENT)
    assert (first.disposition, first.reason) == (Disposition.PERMANENT, "the data set cannot be encoded")
    assert second.accepted


def test_a_peer_that_accepts_no_context_at_all_is_a_permanent_failure_per_file(tmp_path: Path) -> None:
    with FakePacs(classes=[SR]) as pacs:
        answers = list(send_files(pacs.peer(), "NODE", three(tmp_path), PATIENT))
    assert [answer.disposition for answer in answers] == [Disposition.PERMANENT] * 3
    assert all("does not accept Secondary Capture" in answer.reason for answer in answers)


def test_more_than_128_presentation_contexts_take_a_second_association(tmp_path: Path) -> None:
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts[:65]]
    files = [outbound(tmp_path / f"{index}.dcm", sop_class=sop_class) for index, sop_class in enumerate(classes)]
    with FakePacs(classes=classes) as pacs:
        answers = list(send_files(pacs.peer(), "NODE", files, PATIENT))
    assert [answer.status for answer in answers] == [0] * 65
    assert pacs.associations == 2
    assert pacs.uids == [file.SOPInstanceUID for file in files]


@pytest.mark.parametrize(
    ("status", "disposition"),
    [
        (0x0000, Disposition.STORED),
        (0xB000, Disposition.STORED_WITH_WARNING),
        (0xB006, Disposition.STORED_WITH_WARNING),
        (0xB007, Disposition.STORED_WITH_WARNING),
        (0xA700, Disposition.TRANSIENT),
        (0xA900, Disposition.PERMANENT),
        (0xC123, Disposition.PERMANENT),
        (0x0122, Disposition.PERMANENT),
    ],
)
def test_every_status_reaches_the_caller_with_its_meaning(tmp_path: Path, status: int, disposition) -> None:
    with FakePacs(lambda *_: status) as pacs:
        (answer,) = send_files(pacs.peer(), "NODE", [outbound(tmp_path / "a.dcm")], PATIENT)
    assert (answer.status, answer.disposition, answer.tried) == (status, disposition, True)
    assert f"0x{status:04X}" in answer.reason


def test_an_abort_in_the_middle_leaves_the_rest_untried_and_says_so(tmp_path: Path) -> None:
    with FakePacs(aborting(2)) as pacs:
        answers = list(send_files(pacs.peer(), "NODE", three(tmp_path), PATIENT))
    assert [answer.tried for answer in answers] == [True, True, False]
    assert [answer.lost for answer in answers] == [False, True, True]
    assert all("aborted" in answer.reason for answer in answers[1:])
    assert len(pacs.received) == 2


def test_a_peer_that_never_answers_a_store_is_given_up_in_time(tmp_path: Path) -> None:
    release = threading.Event()
    answered = outbound(tmp_path / "large.dcm", pixels=64_000)
    started = time.monotonic()
    with FakePacs(hanging(2, release)) as pacs:
        limits = replace(PATIENT, dimse_s=HASTY_S, slowest_bytes_s=1000.0)  # a minute for the large one
        answers = list(send_files(pacs.peer(), "NODE", [answered, *three(tmp_path)], limits))
        seconds = time.monotonic() - started
        release.set()
    assert seconds < 60
    assert [answer.lost for answer in answers] == [False, True, True, True]
    assert "no response to C-STORE within " in answers[1].reason


def test_a_peer_that_stops_reading_cannot_block_us_for_ever(tmp_path: Path) -> None:
    release, seen = threading.Event(), []

    def stop_reading(event) -> None:
        seen.append(len(event.data))
        if sum(seen) > 200_000:
            release.wait(120)

    file = outbound(tmp_path / "big.dcm", pixels=4_000_000)
    started = time.monotonic()
    with FakePacs(handlers=[(evt.EVT_DATA_RECV, stop_reading)]) as pacs:
        (answer,) = send_files(pacs.peer(), "NODE", [file], replace(PATIENT, stall_s=HASTY_S))
        seconds = time.monotonic() - started
        release.set()
    assert answer.lost
    assert seconds < 60


def test_a_wrong_called_ae_title_is_transient_with_the_reason(tmp_path: Path) -> None:
    with FakePacs() as pacs:
        answers = list(send_files(pacs.peer(ae_title="OTHER"), "NODE", three(tmp_path), PATIENT))
    assert all(answer.lost and not answer.tried for answer in answers)
    assert answers[0].reason == "association rejected: Called AE title not recognised (permanent)"


def test_nobody_listening_is_transient_connection_refused(tmp_path: Path) -> None:
    with nobody_at() as port:
        peer = Peer(name="p", ae_title="PACS", host="localhost", port=port)
        answers = list(send_files(peer, "NODE", three(tmp_path), PATIENT))
    assert [answer.reason for answer in answers] == ["connection refused"] * 3
    assert all(answer.lost and not answer.tried for answer in answers)


def test_a_listener_that_does_not_speak_dicom_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        peer = Peer(name="p", ae_title="PACS", host="127.0.0.1", port=mute.getsockname()[1])
        (answer,) = send_files(peer, "NODE", [outbound(tmp_path / "a.dcm")], replace(PATIENT, acse_s=HASTY_S))
    assert answer.lost
    assert "no answer to the association request within 1 s" in answer.reason


def test_an_unknown_host_is_transient(tmp_path: Path) -> None:
    peer = Peer(name="p", ae_title="PACS", host="pacs.invalid", port=104)
    (answer,) = send_files(peer, "NODE", [outbound(tmp_path / "a.dcm")], PATIENT)
    assert answer.lost
    assert "does not resolve" in answer.reason


def test_file_meta_that_names_another_instance_does_not_mislead_the_peer(tmp_path: Path) -> None:
    make_file(tmp_path / "a.dcm", meta_instance="1.2.3")
    file = read_outbound(tmp_path / "a.dcm")
    with FakePacs() as pacs:
        (answer,) = send_files(pacs.peer(), "NODE", [file], PATIENT)
    assert answer.accepted
    assert pacs.uids == [str(dcmread(tmp_path / "a.dcm").SOPInstanceUID)]


def test_a_file_that_vanished_fails_by_itself(tmp_path: Path) -> None:
    files = three(tmp_path)
    files[1].path.unlink()
    with FakePacs() as pacs:
        answers = list(send_files(pacs.peer(), "NODE", files, PATIENT))
    assert [answer.accepted for answer in answers] == [True, False, True]
    assert answers[1].disposition is Disposition.PERMANENT


@pytest.mark.parametrize("agrees", [True, False], ids=["exact", "converted"])
def test_a_file_that_the_disk_does_not_give_is_tried_later_and_the_others_go_on(tmp_path: Path, agrees: bool) -> None:
    """R3: a fault of our disk is no property of the Instance. Reading the memory at address 0 ends in EIO, always."""
    files = three(tmp_path)
    files[1] = replace(files[1], path=Path("/proc/self/mem"), meta_agrees=agrees)
    with FakePacs() as pacs:
        answers = list(send_files(pacs.peer(), "NODE", files, PATIENT))
    assert [answer.accepted for answer in answers] == [True, False, True]
    assert (answers[1].disposition, answers[1].lost) == (Disposition.TRANSIENT, False)
    assert answers[1].reason == "the file cannot be read: disk error 5"


def test_a_file_that_is_cut_off_is_not_converted_into_a_whole_one(tmp_path: Path) -> None:
    files = [outbound(tmp_path / "a.dcm"), outbound(tmp_path / "b.dcm")]
    files[0].path.write_bytes(files[0].path.read_bytes()[:-10])
    with FakePacs(syntaxes=[ImplicitVRLittleEndian]) as pacs:
        answers = list(send_files(pacs.peer(), "NODE", files, PATIENT))
    assert [answer.accepted for answer in answers] == [False, True]
    assert answers[0].reason == "the file is cut off"


def test_closing_the_iterator_releases_the_association(tmp_path: Path) -> None:
    released = threading.Event()
    with FakePacs(handlers=[(evt.EVT_RELEASED, lambda _: released.set())]) as pacs:
        with closing(send_files(pacs.peer(), "NODE", three(tmp_path), PATIENT)) as answers:
            assert next(answers).accepted
        assert released.wait(60)
    assert len(pacs.received) == 1


def test_no_file_no_association() -> None:
    with FakePacs() as pacs:
        assert list(send_files(pacs.peer(), "NODE", [], PATIENT)) == []
    assert pacs.associations == 0


def test_echo_says_yes_and_how_long() -> None:
    with FakePacs() as pacs:
        started = time.monotonic()
        answer = echo(pacs.peer(), "NODE", PATIENT)
        seconds = time.monotonic() - started
    assert answer.ok
    assert answer.reason == "0x0000 success"
    assert 0 < answer.seconds <= seconds


def test_echo_says_why_not() -> None:
    with FakePacs() as pacs:
        rejected = echo(pacs.peer(ae_title="OTHER"), "NODE", PATIENT)
    with nobody_at() as port:
        gone = echo(Peer(name="p", ae_title="PACS", host="127.0.0.1", port=port), "NODE", PATIENT)
    assert not rejected.ok
    assert "Called AE title not recognised" in rejected.reason
    assert not gone.ok
    assert gone.reason == "connection refused"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=pacs", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


def tls_server(certificate: tuple[Path, Path], *, mutual: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    if mutual:
        context.load_verify_locations(certificate[0])
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_tls_with_client_certificate(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with FakePacs(tls=tls_server(certificate, mutual=True)) as pacs:
        peer = pacs.peer(tls={"ca": cert, "cert": cert, "key": key})
        (answer,) = send_files(peer, "NODE", [outbound(tmp_path / "a.dcm", pixels=512_000)], PATIENT)
    assert answer.accepted


def test_tls_refuses_a_certificate_of_an_unknown_authority(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Path(ssl.get_default_verify_paths().cafile or certificate[0]).read_bytes())
    if other.read_bytes() == certificate[0].read_bytes():
        pytest.skip("this machine has no certificate authorities")
    with FakePacs(tls=tls_server(certificate, mutual=False)) as pacs:
        answer = echo(pacs.peer(tls={"ca": other}), "NODE", PATIENT)
    assert not answer.ok
    assert answer.reason.startswith("TLS: the certificate of the peer is not valid")


def test_missing_tls_files_are_told_and_may_be_mended(tmp_path: Path) -> None:
    with FakePacs() as pacs:
        answer = echo(pacs.peer(tls={"ca": tmp_path / "none.pem"}), "NODE", PATIENT)
    assert not answer.ok
    assert "files of this peer cannot be used" in answer.reason


def test_no_reason_holds_patient_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    files = [replace(file, path=file.path) for file in three(tmp_path)]
    files.append(outbound(tmp_path / "x.dcm", syntax=JPEGBaseline8Bit))
    reasons = []
    for answer in (aborting(2), lambda *_: 0xC000):
        with FakePacs(answer) as pacs:
            reasons += [sent.reason for sent in send_files(pacs.peer(), "NODE", files, PATIENT)]
    assert "Sentinel" not in " ".join(reasons) + caplog.text
    assert SC not in reasons
