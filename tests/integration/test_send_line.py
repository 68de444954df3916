"""C-STORE byte by byte: how the node's own sender meets peers that are silent, odd or rude (PS3.7 9.3.1, PS3.8 9.3)."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
from pydicom.uid import ImplicitVRLittleEndian

from dicomnode.config import Peer, TlsFiles
from dicomnode.deliver import line
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.line import BUFFER_BYTES, Line
from dicomnode.deliver.scu import send_files
from dicomnode.deliver.sending import OutboundFile, SentStatus
from dicomnode.dicom.command import NO_DATA_SET, Command, decode_command, response
from dicomnode.dicom.pdu import IS_COMMAND, IS_LAST, RELEASE_RP, Kind, MalformedPdu, abort, command_pdus, fragments
from dicomnode.dicom.status import Disposition
from dicomnode.receive.associate import Answered, decode_request, encode_accept
from tests.certificates import Authority
from tests.integration.deliver_fixtures import body_of
from tests.integration.test_send_scu import outbound

PATIENT = SendLimits(connect_s=20.0, acse_s=20.0, dimse_s=30.0, stall_s=20.0, slowest_bytes_s=1e9)
RELEASE_RQ = struct.pack(">BBLL", Kind.RELEASE_RQ, 0, 4, 0)
LOST = "the peer aborted the association or closed the connection"
LONG_S = 60.0


class Gone(Exception):
    """The node has closed the connection."""


class Wire:
    """The peer's end of one Association, PDU by PDU."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.seen: list[int] = []
        self.lengths: list[int] = []

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.connection.recv(count - len(data))
            if not piece:
                raise Gone
            data += piece
        return data

    def pdu(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBL", self.exactly(6))
        self.seen.append(kind)
        self.lengths.append(length)
        return kind, self.exactly(length)

    def message(self) -> tuple[Command, bytes]:
        """The next C-STORE: its command and its data set. Raises Gone when the node releases or aborts."""
        parts = {IS_COMMAND: b"", 0: b""}
        while True:
            kind, content = self.pdu()
            if kind == Kind.RELEASE_RQ:
                self.send(RELEASE_RP)
            if kind != Kind.P_DATA:
                raise Gone
            length, _, control = struct.unpack(">LBB", content[:6])
            assert len(content) == length + 4
            parts[control & IS_COMMAND] += content[6:]
            if control == IS_LAST:
                return decode_command(parts[IS_COMMAND]), parts[0]

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def answer(self, command: Command, status: int = 0, context_id: int = 1) -> None:
        self.send(command_pdus(context_id, response(command, status), 0))


class Listening:
    """A thread with a listener on loopback, which has to come to its end."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LONG_S)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(LONG_S)
        self._listener.close()
        assert not self._thread.is_alive()

    def _run(self) -> None:
        raise NotImplementedError


class Script(Listening):
    """A peer on loopback that accepts every Presentation Context and then does what ``act`` says, once."""

    def __init__(
        self, act: Callable[[Wire], None], *, max_pdu: int = 16384, tls: ssl.SSLContext | None = None, plain: str = ""
    ) -> None:
        self._act, self._max_pdu, self._tls, self._plain = act, max_pdu, tls, plain
        self.failed: BaseException | None = None
        self.wire: Wire | None = None

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        assert self.failed is None, self.failed

    @property
    def peer(self) -> Peer:
        return Peer(name="p", ae_title="P", host="127.0.0.1", port=self.port)

    def _run(self) -> None:
        try:
            connection, _ = self._listener.accept()
            connection.settimeout(LONG_S)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                self.wire = Wire(connection)
                self._associate(self.wire)
                self._act(self.wire)
        except (Gone, ConnectionError):
            pass
        except BaseException as error:  # noqa: BLE001 - shown where the test ends
            self.failed = error

    def _associate(self, wire: Wire) -> None:
        request = decode_request(wire.pdu()[1])
        answers = []
        for context in request.contexts:
            refused = self._plain and self._plain not in context.transfer_syntaxes
            syntax = self._plain or context.transfer_syntaxes[0]
            answers.append(Answered(context.id, 4 if refused else 0, syntax))
        wire.send(encode_accept(request, answers, [], self._max_pdu))
        wire.seen.clear()
        wire.lengths.clear()


def big(path: Path, size: int) -> OutboundFile:
    """A file with ``size`` bytes behind what a small one has."""
    file = outbound(path)
    with file.path.open("ab") as more:
        more.write(bytes(range(250)) * (size // 250) + bytes(size % 250))
    return file


def keeping(got: list[bytes]) -> Callable[[Wire], None]:
    """A peer that takes every data set into ``got``."""

    def act(wire: Wire) -> None:
        while True:
            command, body = wire.message()
            got.append(body)
            wire.answer(command)

    return act


def server_side(folder: Path) -> tuple[Authority, ssl.SSLContext]:
    """TLS of a peer on loopback, and the authority that its certificate is from."""
    authority = Authority(folder)
    pair = authority.issue("pacs", ip=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return authority, context


def without_haste(script: Script, files: Sequence) -> list[SentStatus]:
    """``deliver`` with a pause behind each file, in which the peer may say more."""
    answers = []
    for answer in send_files(script.peer, "NODE", files, PATIENT):
        time.sleep(0.3)
        answers.append(answer)
    return answers


def deliver(script: Script, files: Sequence, limits: SendLimits = PATIENT, **changes: object) -> list[SentStatus]:
    return list(send_files(script.peer.model_copy(update=changes), "NODE", files, limits))


@pytest.mark.parametrize("max_pdu", [0, 1024, 4096, 4097, 131072, 1 << 20])
@pytest.mark.parametrize("size", [0, 1, BUFFER_BYTES, 2 * BUFFER_BYTES + 4096])
def test_a_data_set_arrives_byte_for_byte_in_pdus_the_peer_can_take(tmp_path: Path, max_pdu: int, size: int) -> None:
    """PS3.8 D.1: no PDU is longer than the peer said; 0 is no limit. Fragments but the last have an even length."""
    got: list[bytes] = []
    file = big(tmp_path / "a.dcm", size)
    with Script(keeping(got), max_pdu=max_pdu) as script:
        answers = deliver(script, [file, file])
    assert [answer.status for answer in answers] == [0, 0]
    assert got == [body_of(file.path)] * 2
    assert script.wire is not None
    assert max(script.wire.lengths) <= (max_pdu or BUFFER_BYTES)
    data = [length for kind, length in zip(script.wire.seen, script.wire.lengths, strict=True) if kind == Kind.P_DATA]
    assert sum(length % 2 for length in data) <= 2 * (len(got[0]) % 2)
    assert script.wire.seen[-1] == Kind.RELEASE_RQ


def test_a_peer_that_never_reads_is_given_up_after_the_stall(tmp_path: Path) -> None:
    """The stall counts, not the long time that a C-STORE may take; the connection is closed, nothing waits for it."""
    over = threading.Event()
    file = big(tmp_path / "a.dcm", 16_000_000)
    with Script(lambda _: over.wait(LONG_S) and None) as script:
        started = time.monotonic()
        answers = deliver(script, [file, file], replace(PATIENT, dimse_s=50.0, stall_s=1.0))
        seconds = time.monotonic() - started
        over.set()
    assert [(answer.lost, answer.tried) for answer in answers] == [(True, True), (True, False)]
    assert answers[0].reason == LOST
    assert seconds < 40.0


def test_a_peer_that_reads_drop_by_drop_is_given_up_when_the_time_is_over(tmp_path: Path) -> None:
    """``dimse_s`` and what the size needs at ``slowest_bytes_s`` end a request that never quite stalls."""
    over = threading.Event()

    def act(wire: Wire) -> None:
        while not over.wait(0.05):
            wire.exactly(20_000)

    file = big(tmp_path / "a.dcm", 32_000_000)
    with Script(act) as script:
        started = time.monotonic()
        (answer,) = deliver(script, [file], replace(PATIENT, dimse_s=1.0, stall_s=50.0))
        seconds = time.monotonic() - started
        over.set()
    assert answer.lost
    assert seconds < 40.0
    assert answer.reason.startswith("no response to C-STORE within")


def test_a_peer_that_never_answers_hears_an_abort(tmp_path: Path) -> None:
    """All was sent, in whole PDUs: the peer is told that we gave up."""
    heard: list[int] = []

    def act(wire: Wire) -> None:
        wire.message()
        heard.append(wire.pdu()[0])

    with Script(act) as script:
        (answer,) = deliver(script, [outbound(tmp_path / "a.dcm")], replace(PATIENT, dimse_s=0.5))
    assert answer.reason.startswith("no response to C-STORE within")
    assert heard == [Kind.ABORT]


def test_an_answer_before_the_end_of_the_data_set_counts_when_all_was_sent(tmp_path: Path) -> None:
    """A peer may refuse at the first look; both messages stay whole, and the next one is sent."""
    statuses = iter([0xA700, 0x0000])

    def act(wire: Wire) -> None:
        for message_id in (1, 2):
            early = Command(1, message_id, True, "1.2", "1.2.3", 0)
            if message_id == 1:
                wire.answer(early, next(statuses))
                time.sleep(0.2)
            command, _ = wire.message()
            if message_id == 2:
                wire.answer(command, next(statuses))
        wire.message()

    files = [big(tmp_path / f"{name}.dcm", 3_000_000) for name in "ab"]

    def begin(wire: Wire) -> None:
        wire.connection.recv(1, socket.MSG_PEEK)
        act(wire)

    with Script(begin) as script:
        answers = deliver(script, files)
    assert [answer.status for answer in answers] == [0xA700, 0x0000]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0xA900, (Disposition.PERMANENT, 0xA900)),
        (0xA700, (Disposition.TRANSIENT, 0xA700)),
        (0, (Disposition.TRANSIENT, None)),
    ],
    ids=["failure", "out of resources", "success of a part"],
)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_refusal_before_the_peer_closes_is_no_lost_association(
    tmp_path: Path, status: int, expected: tuple[Disposition, int | None], secure: bool
) -> None:
    """What was refused for good is not sent for days; a Success for a part of a data set counts for nothing."""

    def act(wire: Wire) -> None:
        wire.exactly(100_000)
        wire.answer(Command(1, 1, True, "1.2", "1.2.3", 0), status)

    files = [big(tmp_path / f"{name}.dcm", 32_000_000) for name in "ab"]
    authority, context = server_side(tmp_path)
    with Script(act, tls=context if secure else None) as script:
        answers = deliver(script, files, **({"tls": TlsFiles(ca=authority.ca)} if secure else {}))
    assert (answers[0].disposition, answers[0].status) == expected
    assert (answers[1].disposition, answers[1].tried) == (Disposition.TRANSIENT, False)


@pytest.mark.parametrize("closes", [True, False])
def test_an_abort_in_the_middle_of_a_data_set_ends_the_sending(tmp_path: Path, closes: bool) -> None:
    """It is seen while we send, whether the peer closes or just stops reading; the file behind is not tried."""
    over = threading.Event()

    def act(wire: Wire) -> None:
        wire.exactly(100_000)
        wire.send(abort(None))
        if not closes:
            wire.exactly(4_000_000)
            over.wait(LONG_S)

    files = [big(tmp_path / f"{name}.dcm", 32_000_000) for name in "ab"]
    with Script(act) as script:
        started = time.monotonic()
        answers = deliver(script, files, replace(PATIENT, dimse_s=60.0, stall_s=60.0))
        seconds = time.monotonic() - started
        over.set()
    assert seconds < 50.0
    assert [(answer.lost, answer.tried) for answer in answers] == [(True, True), (True, False)]
    assert answers[0].reason == LOST


@pytest.mark.parametrize(
    "rude",
    [
        pytest.param(RELEASE_RQ, id="release request"),
        pytest.param(struct.pack(">BBL", 0x42, 0, 4) + b"what", id="unknown PDU"),
        pytest.param(struct.pack(">BBL", Kind.P_DATA, 0, 0xFFFFFFF0), id="endless PDU"),
        pytest.param(struct.pack(">BBLLBB", Kind.P_DATA, 0, 6, 0xFFFF, 1, 3), id="fragment beyond its PDU"),
        pytest.param(struct.pack(">BBLLBB", Kind.P_DATA, 0, 6, 1, 1, 3), id="fragment without a header"),
        pytest.param(struct.pack(">BBLLBB", Kind.P_DATA, 0, 10, 6, 1, 3) + b"????", id="no command set"),
        pytest.param(command_pdus(1, response(Command(1, 77, True, "1.2", "1.2.3", 0), 0), 0), id="another message"),
        pytest.param(command_pdus(1, response(Command(0x30, 1, True, "1.2", "", 0), 0), 0), id="another service"),
        pytest.param(RELEASE_RP, id="release response"),
    ],
)
def test_what_is_no_response_to_the_request_never_counts_as_one(tmp_path: Path, rude: bytes) -> None:
    """Nothing but a C-STORE-RSP with the request's Message ID says that the peer holds it; the Association ends."""

    def act(wire: Wire) -> None:
        wire.message()
        wire.send(rude)
        while True:
            wire.pdu()

    files = [outbound(tmp_path / f"{name}.dcm") for name in "ab"]
    with Script(act) as script:
        answers = deliver(script, files)
    assert [(answer.lost, answer.tried) for answer in answers] == [(True, True), (True, False)]
    assert answers[0].reason == LOST
    assert script.wire is not None
    assert Kind.RELEASE_RQ not in script.wire.seen


@pytest.mark.parametrize("content", [b"\0\0\0\x03\x01\x03", b"\0\0\0\x01\x01\x03", b"\0\0\0", bytes(6), b"\xff" * 8])
def test_a_fragment_that_does_not_fit_its_pdu_is_malformed(content: bytes) -> None:
    """PS3.8 9.3.5.1: no length of a peer's is believed."""
    with pytest.raises(MalformedPdu):
        list(fragments(content))


def test_a_response_that_comes_before_its_request_never_counts(tmp_path: Path) -> None:
    """A peer that answers twice has not stored what comes after."""

    def act(wire: Wire) -> None:
        command, _ = wire.message()
        wire.answer(command)
        wire.answer(replace(command, message_id=2))
        while True:
            wire.message()

    files = [outbound(tmp_path / f"{name}.dcm") for name in "abc"]
    with Script(act) as script:
        answers = without_haste(script, files)
    assert [answer.accepted for answer in answers] == [True, False, False]
    assert not answers[1].tried


def test_an_abort_between_two_files_is_seen_before_the_next(tmp_path: Path) -> None:
    """What was answered stays answered; the next file is not begun."""

    def act(wire: Wire) -> None:
        command, _ = wire.message()
        wire.answer(command)
        wire.send(abort(None))
        with pytest.raises(Gone):
            wire.pdu()

    files = [outbound(tmp_path / f"{name}.dcm") for name in "ab"]
    with Script(act) as script:
        answers = without_haste(script, files)
    assert [(answer.accepted, answer.tried) for answer in answers] == [(True, True), (False, False)]
    assert answers[1].lost


def test_a_response_with_a_data_set_and_in_pieces_is_understood(tmp_path: Path) -> None:
    """PS3.7 allows no data set here, yet the next answer must not be read out of the middle of one."""

    def act(wire: Wire) -> None:
        while True:
            command, _ = wire.message()
            whole = response(command, 0xB000).replace(struct.pack("<H", NO_DATA_SET), struct.pack("<H", 1))
            pdus = command_pdus(1, whole, 16) + struct.pack(">BBLLBB", Kind.P_DATA, 0, 8, 4, 1, IS_LAST) + b"\0\0"
            for begin in range(0, len(pdus), 7):
                wire.send(pdus[begin : begin + 7])

    files = [outbound(tmp_path / f"{name}.dcm") for name in "ab"]
    with Script(act) as script:
        answers = deliver(script, files)
    assert [answer.status for answer in answers] == [0xB000, 0xB000]


def test_a_file_that_shrinks_while_it_is_sent_is_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer never gets a last fragment, so that it cannot take the half for the whole; it hears an abort."""
    file = big(tmp_path / "a.dcm", 4_000_000)
    heard: list[int] = []

    def act(wire: Wire) -> None:
        wire.pdu()
        with file.path.open("r+b") as shrinking:
            shrinking.truncate(1_000_000)
        with pytest.raises(Gone):
            wire.message()
        heard.extend(wire.seen)

    with Script(act) as script:
        (answer,) = deliver(script, [file])
    assert answer.lost
    assert answer.reason == "the file could not be read while it was sent"
    assert heard[-1] == Kind.ABORT


def test_exact_and_converted_files_take_turns(tmp_path: Path) -> None:
    """The connection goes back to pynetdicom for what it encodes anew, and comes again."""
    got: list[str] = []

    def act(wire: Wire) -> None:
        while True:
            command, body = wire.message()
            got.append(command.SOPInstanceUID)
            assert body.endswith(bytes(64))
            wire.answer(command)

    files = [
        outbound(tmp_path / f"{number}.dcm", **({"syntax": ImplicitVRLittleEndian} if number % 2 else {}))
        for number in range(4)
    ]
    with Script(act, plain=ImplicitVRLittleEndian) as script:
        answers = deliver(script, files)
    assert [answer.status for answer in answers] == [0] * 4
    assert got == [file.SOPInstanceUID for file in files]


def test_over_tls_all_is_the_same(tmp_path: Path) -> None:
    """One thread reads and writes the TLS state; an early answer, many records and small PDUs pass."""
    authority, context = server_side(tmp_path)
    got: list[bytes] = []
    files = [big(tmp_path / f"{name}.dcm", 2_000_000) for name in "ab"]
    with Script(keeping(got), max_pdu=4096, tls=context) as script:
        peer = Peer(name="p", ae_title="P", host="127.0.0.1", port=script.port, tls={"ca": authority.ca})
        answers = list(send_files(peer, "NODE", files, PATIENT))
    assert [answer.status for answer in answers] == [0, 0]
    assert got == [body_of(file.path) for file in files]


class Relay(Listening):
    """Before a peer on loopback: once ``hold`` is set, what the peer says stops behind its first bytes until ``go``."""

    def __init__(self, port: int) -> None:
        self.hold, self.begun, self.go = threading.Event(), threading.Event(), threading.Event()
        self._far = port

    def _run(self) -> None:
        near, _ = self._listener.accept()
        with near, socket.create_connection(("127.0.0.1", self._far)) as far:
            back = threading.Thread(target=self._back, args=(far, near), daemon=True)
            back.start()
            with suppress(OSError):
                while piece := near.recv(1 << 20):
                    far.sendall(piece)
                far.shutdown(socket.SHUT_WR)
            back.join(LONG_S)

    def _back(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while piece := far.recv(1 << 20):
                if self.hold.is_set() and not self.go.is_set():
                    near.sendall(piece[:20])
                    self.begun.set()
                    self.go.wait(LONG_S)
                    piece = piece[20:]
                near.sendall(piece)
            near.shutdown(socket.SHUT_WR)


def test_over_tls_half_an_answer_does_not_disturb_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a record can be seen, not read: the data set goes on, and the answer counts when it is whole."""
    authority, context = server_side(tmp_path)
    context.num_tickets = 0
    heard, is_readable, readable = Line._heard, line._is_readable, [False]

    def act(wire: Wire) -> None:
        wire.pdu()
        wire.pdu()
        relay.hold.set()
        wire.answer(Command(1, 1, True, "1.2", "1.2.3", 0), 0xA700)
        assert relay.begun.wait(LONG_S)
        while wire.pdu()[0] == Kind.P_DATA:
            pass
        wire.send(RELEASE_RP)

    def looked(connection: socket.socket) -> bool:
        readable[0] = is_readable(connection)
        return readable[0]

    def watched(sender: Line, connection: socket.socket) -> bool:
        readable[0] = False
        said = heard(sender, connection)
        if readable[0] and not said:
            relay.go.set()
        return said

    monkeypatch.setattr(line, "_is_readable", looked)
    monkeypatch.setattr(Line, "_heard", watched)
    file = big(tmp_path / "a.dcm", 32_000_000)
    with Script(act, max_pdu=131072, tls=context) as script, Relay(script.port) as relay:
        changes = {"port": relay.port, "tls": TlsFiles(ca=authority.ca)}
        (answer,) = deliver(script, [file], **changes)
    assert relay.go.is_set()
    assert answer.status == 0xA700


def kinds_of(data: bytes) -> list[int]:
    """The types of the PDUs in ``data``, runs of one type once; -1 for what is none."""
    found, at = [], 0
    while at + 6 <= len(data):
        kind, zero, length = struct.unpack_from(">BBL", data, at)
        found.append(kind if kind in tuple(Kind) and not zero else -1)
        at += 6 + length
    return [kind for number, kind in enumerate(found) if number == 0 or found[number - 1] != kind]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("rude", [RELEASE_RQ, b"\x09\0\0\0\0\0"], ids=["release", "unknown PDU"])
def test_a_peer_that_ends_it_at_once_meets_one_writer(tmp_path: Path, rude: bytes, secure: bool) -> None:
    """S1: while the library answers a release or a fault, no data set goes between: it would go after the end, and
    two threads would use one TLS state."""
    authority, context = server_side(tmp_path)
    file, heard = big(tmp_path / "a.dcm", 3_000_000), bytearray()

    def act(wire: Wire) -> None:
        time.sleep(pause)
        wire.send(rude)
        while piece := wire.connection.recv(1 << 20):
            heard.extend(piece)

    for attempt in range(24):
        pause = (0.0, 0.001, 0.002, 0.003)[attempt % 4]
        heard.clear()
        with Script(act, tls=context if secure else None) as script:
            changes = {"tls": TlsFiles(ca=authority.ca)} if secure else {}
            (answer,) = deliver(script, [file], **changes)
        assert not answer.accepted
        assert kinds_of(bytes(heard)) in ([], [4], [6], [7], [4, 6], [4, 7])


def drip(wire: Wire) -> None:
    """One byte after the other, until the node has closed the connection."""
    until = time.monotonic() + LONG_S
    while time.monotonic() < until:
        wire.send(b"\0")
        time.sleep(0.2)
    raise AssertionError("the node still listens")


@pytest.mark.parametrize("claim", [0x7FFFFFFF, 60_000], ids=["too long", "drop by drop"])
def test_a_pdu_without_end_is_given_up(tmp_path: Path, claim: int) -> None:
    """S1, S3: an A-ABORT that never comes to its end neither holds the sender nor fills its memory."""

    def act(wire: Wire) -> None:
        wire.message()
        wire.send(struct.pack(">BBL", Kind.ABORT, 0, claim))
        drip(wire)

    with Script(act) as script:
        (answer,) = deliver(script, [outbound(tmp_path / "a.dcm")])
    assert not answer.accepted
    assert answer.tried


def test_a_pdu_that_comes_drop_by_drop_does_not_hold_the_first_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3: the library reads a PDU that does not end while the connection is asked for: the Association is given up."""
    monkeypatch.setattr("dicomnode.deliver.line.LEND_S", 1.0)

    def act(wire: Wire) -> None:
        wire.send(struct.pack(">BBL", Kind.P_DATA, 0, 60_000))
        drip(wire)

    with Script(act) as script:
        (answer,) = deliver(script, [outbound(tmp_path / "a.dcm")])
    assert not answer.accepted
