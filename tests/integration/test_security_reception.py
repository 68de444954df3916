"""Reception by raw PDUs: UIDs that are paths, executable preambles, services that the node does not offer."""

from __future__ import annotations

import contextlib
import json
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom import dcmread

from dicomnode.cli.send import send
from tests.fuzz.seeds import element_explicit
from tests.fuzz.wire import (
    ABORTED,
    ACCEPTED,
    C_FIND,
    C_GET,
    C_MOVE,
    C_STORE,
    COMMITMENT,
    CT_IMAGE,
    EXPLICIT,
    IMPLICIT,
    N_ACTION,
    VERIFICATION,
    Peer,
    any_request,
    echo_request,
    message,
    store_request,
    us,
)
from tests.integration.security_fixtures import CONTEXTS, STORE, Node, data_set

PREAMBLES = {
    "MZ": b"MZ\x90\x00",
    "ELF": b"\x7fELF\x02\x01\x01",
    "script": b"#!/bin/sh\nid > owned\n",
    "Mach-O": b"\xcf\xfa\xed\xfe\x07",
    "fat Mach-O": b"\xca\xfe\xba\xbe",
}
PATHS = {
    "slashes": b"../../../../tmp/owned",
    "absolute": b"/etc/cron.d/owned",
    "backslashes": b"..\\..\\owned",
    "dots": b"..",
    "inside NUL": b"1.2\x00.3",
    "NUL and path": b"1.2.3\x00/../../owned",
    "too long": b"1." + b"2" * 63,
    "very long": b"1." * 500,
    "empty": b"",
    "spaces": b"1.2 .3",
    "not ASCII": b"1.2.\xb2",
    "newline": b"1.2.3\r\nowned",
}
QUERY_CLASSES = {
    "study root C-FIND": b"1.2.840.10008.5.1.4.1.2.2.1",
    "study root C-MOVE": b"1.2.840.10008.5.1.4.1.2.2.2",
    "study root C-GET": b"1.2.840.10008.5.1.4.1.2.2.3",
    "worklist": b"1.2.840.10008.5.1.4.31",
    "performed procedure step": b"1.2.840.10008.3.1.2.3.3",
    "print": b"1.2.840.10008.5.1.1.9",
    "instance availability": b"1.2.840.10008.5.1.4.33",
    "unified procedure step": b"1.2.840.10008.5.1.4.34.6.1",
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory):
    """One node for all: what one test did to it, the next one would meet."""
    made = Node(tmp_path_factory.mktemp("reception"))
    yield made
    made.close()


@pytest.fixture
def untouched(node: Node):
    """Whatever the test sends: no file, no row, nothing outside, and the next Instance is stored."""
    before, rows, around = node.kept(), len(node.rows()), everything(node.outside)
    yield
    assert node.kept() == before
    assert len(node.rows()) == rows
    assert everything(node.outside) == around
    assert node.still_stores()


def refused(status: int | None) -> bool:
    """S7 asks for A900 or Cxxx; the end of the association is a refusal too."""
    return status is None or status == 0xA900 or status >> 12 == 0xC


def everything(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "spool" not in path.parts and "sqlite3" not in path.name}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("uid", PATHS.values(), ids=PATHS)
def test_s7_a_uid_that_is_no_uid_is_refused_and_leaves_nothing(node: Node, uid: bytes) -> None:
    """S7: paths, NUL and overlong UIDs in command and data set are refused; no file, no row, nothing outside."""
    assert refused(node.status_of(data_set(uid), uid))


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("where", ["study", "series"])
@pytest.mark.parametrize("uid", [b"../../owned", b"1.2\x00/x", b"1." + b"2" * 70], ids=["path", "NUL", "long"])
def test_s7_study_and_series_uids_are_held_to_the_same(node: Node, where: str, uid: bytes) -> None:
    """S7: no other UID of the data set names a file either."""
    assert refused(node.status_of(data_set(b"1.2.3.4", **{where: uid}), b"1.2.3.4"))


def test_s7_command_and_data_set_have_to_agree_and_names_are_digests(node: Node) -> None:
    """S7: A900 when the UIDs differ; the name of a file says nothing that a peer has sent."""
    before = node.kept()
    assert node.status_of(data_set(b"1.2.3.4"), b"1.2.3.5") == 0xA900
    assert node.kept() == before
    assert node.status_of(data_set(b"1.2.3.77"), b"1.2.3.77") == 0
    [path] = set(node.kept()) - set(before)
    assert "1.2.3.77" not in str(path)
    assert any("SOPInstanceUID is not the command's" in reason for reason in node.alerts())


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("start", PREAMBLES.values(), ids=PREAMBLES)
def test_s12_a_file_in_place_of_a_data_set_is_refused(node: Node, start: bytes) -> None:
    """S12: a whole DICOM file, preamble and all, is no data set: nothing executable reaches the spool."""
    file = start.ljust(128, b"\0") + b"DICM" + data_set(b"1.2.3.4")
    alerts = len(node.alerts())
    assert refused(node.status_of(file, b"1.2.3.4"))
    assert len(node.alerts()) == alerts + 1


@pytest.mark.parametrize("start", PREAMBLES.values(), ids=PREAMBLES)
def test_s12_what_is_stored_begins_with_zeros_and_our_own_meta(node: Node, start: bytes, tmp_path: Path) -> None:
    """S12: `dicomnode send` leaves the preamble of a file at home, and the spool has one of zeros."""
    before, uid = node.kept(), f"1.2.3.2000.{start[1]}.{len(node.kept())}"
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "image.dcm").write_bytes(executable_file(start, uid.encode()))
    said = CliRunner().invoke(
        send, [str(folder), "--to", f"NODE@127.0.0.1:{node.port}", "--calling", "FUZZ", "--json"], standalone_mode=False
    )
    assert json.loads(said.stdout)["sent"] == 1
    [path] = set(node.kept()) - set(before)
    kept = path.read_bytes()
    assert kept[:132] == bytes(128) + b"DICM"
    assert start[:4] not in kept
    assert dcmread(BytesIO(kept)).SOPInstanceUID == uid


def executable_file(start: bytes, uid: bytes) -> bytes:
    """A DICOM file that another program would run."""
    meta = element_explicit(2, 0x0010, b"UI", EXPLICIT)
    body = element_explicit(8, 0x0016, b"UI", CT_IMAGE) + element_explicit(8, 0x0018, b"UI", uid)
    body += element_explicit(0x20, 0x000D, b"UI", b"1.2.3") + element_explicit(0x20, 0x000E, b"UI", b"1.2.3.1")
    length = element_explicit(2, 0x0000, b"UL", len(meta).to_bytes(4, "little"))
    return start.ljust(128, b"\0") + b"DICM" + length + meta + body


@pytest.mark.parametrize("abstract", QUERY_CLASSES.values(), ids=QUERY_CLASSES)
def test_s21_other_services_are_not_negotiated(node: Node, abstract: bytes) -> None:
    """S21: query, retrieval, worklist, print and the rest get no presentation context."""
    with Peer(node.port) as peer:
        peer.associate([(VERIFICATION, (IMPLICIT,)), (abstract, (IMPLICIT, EXPLICIT))])
        assert 3 not in peer.accepted


def test_s21_storage_commitment_is_no_service_for_a_peer_that_only_sends(node: Node) -> None:
    """S21: N-ACTION has no context."""
    with Peer(node.port) as peer:
        peer.associate([(VERIFICATION, (IMPLICIT,)), (COMMITMENT, (IMPLICIT,))])
        assert 3 not in peer.accepted


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("field", [C_GET, C_FIND, C_MOVE, N_ACTION, 0x0110, 0x0120, 0x0140, 0x0150, 0x7777])
@pytest.mark.parametrize("data", [True, False], ids=["with data", "without"])
def test_s21_a_request_of_another_kind_on_a_storage_context_is_refused(node: Node, field: int, data: bool) -> None:
    """S21: an answer that is a failure, or an abort; nothing is kept, and the node goes on."""
    with Peer(node.port) as peer:
        assert peer.associate(CONTEXTS) == ACCEPTED
        more = {0x0600: b"FUZZ", 0x0700: us(2), 0x1001: b"1.2.3", 0x1008: us(1)}
        request = any_request(field, CT_IMAGE, data=data, more=more)
        peer.send(message(STORE, request, data_set(b"1.2.3.4") if data else None))
        try:
            kind, fields = peer.answer()
        except (EOFError, ConnectionResetError):
            kind, fields = ABORTED, {}
        status = int.from_bytes(fields.get(0x0900, b"\0\0"), "little")
        assert kind == ABORTED or status not in (0x0000, 0xFF00, 0xFF01)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("context", [0, 5, 255])
def test_s21_a_message_on_a_context_that_was_not_accepted_is_not_obeyed(node: Node, context: int) -> None:
    """S21: what was not negotiated cannot be used."""
    with Peer(node.port) as peer:
        assert peer.associate(CONTEXTS) == ACCEPTED
        peer.send(message(context, store_request(b"1.2.3.4"), data_set(b"1.2.3.4")))
        try:
            status = peer.status()
        except (EOFError, ConnectionResetError):
            status = None
        assert status != 0


@pytest.mark.usefixtures("untouched")
def test_s21_a_store_on_the_verification_context_is_refused(node: Node) -> None:
    """S21: each service on its own context only."""
    with Peer(node.port) as peer:
        assert peer.associate(CONTEXTS) == ACCEPTED
        peer.send(message(1, store_request(b"1.2.3.4"), data_set(b"1.2.3.4")))
        try:
            status = peer.status()
        except (EOFError, ConnectionResetError):
            status = None
        assert refused(status) or status in (0x0122, 0x0211, 0x0118)
    with Peer(node.port) as peer:
        assert peer.associate(CONTEXTS) == ACCEPTED
        peer.send(message(1, echo_request()))
        assert peer.status() == 0


@pytest.mark.usefixtures("untouched")
def test_s21_answers_that_nobody_asked_for_change_nothing(node: Node) -> None:
    """S21: a C-STORE-RSP from a peer that was asked nothing."""
    with Peer(node.port) as peer:
        assert peer.associate(CONTEXTS) == ACCEPTED
        peer.send(message(STORE, any_request(C_STORE | 0x8000, CT_IMAGE, data=False, more={0x0900: us(0)})))
        peer.socket.settimeout(2.0)
        with contextlib.suppress(EOFError, ConnectionResetError, TimeoutError):
            assert peer.status() != 0


@pytest.mark.usefixtures("untouched")
def test_s21_a_cancel_of_nothing_is_passed_over(node: Node) -> None:
    """S21: C-CANCEL has no answer (PS3.7 9.3.2.3); what comes behind it is answered."""
    with Peer(node.port) as peer:
        assert peer.associate(CONTEXTS) == ACCEPTED
        peer.send(message(STORE, any_request(0x0FFF, CT_IMAGE, data=False, more={0x0120: us(1)})))
        peer.send(message(1, echo_request()))
        assert peer.status() in (0, None)
