"""The guard of the listener: what a hostile or broken peer cannot do (trust.md S1 to S3, S6, S8 to S10, R8)."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from dicomnode.dicom.sop_classes import CT_IMAGE
from dicomnode.receive import conversation
from dicomnode.receive.wire import Wire
from dicomnode.store.tables import AssociationRow, InstanceRow
from tests.integration.test_receive_storage import SERIES, Node, slice_of
from tests.raw_scu import EXPLICIT, IMPLICIT, Context, Ended, RawAssociation, Refused, store_message

MIB = 1 << 20
DEFLATED = "1.2.840.10008.1.2.1.99"
CT = Context(CT_IMAGE, IMPLICIT)
LIMIT_S = 60.0
"""The bound of a hang; the deadlines of the node are far beyond it, but for the one that a test is about."""
HASTY_S = 1.0


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path, max_associations=8, max_instance_bytes=2 * MIB)
    yield made
    made.close()


@contextmanager
def hasty(folder: Path, **deadlines: float) -> Iterator[Node]:
    """A node with these deadlines."""
    made = Node(folder, **deadlines)
    try:
        yield made
    finally:
        made.close()


def connect(node: Node) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), LIMIT_S)


def associate(node: Node, context: Context = CT, calling: str = "CT1") -> RawAssociation:
    return RawAssociation(node.port, "NODE", calling, [context], timeout_s=LIMIT_S)


def is_hung_up(connection: socket.socket) -> bool:
    """Does the node end the connection, in bounded time?"""
    connection.settimeout(LIMIT_S)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def honest(node: Node, number: int = 1) -> int:
    """An ordinary peer associates and stores while, or after, others misbehave; its status."""
    return node.send(slice_of(number))[0]


@pytest.mark.parametrize("kind", [1, 4], ids=["A-ASSOCIATE-RQ", "P-DATA"])
def test_s1_a_pdu_that_claims_a_gigabyte_is_closed_before_memory_grows(node, kind):
    """S1: lengths are checked before anything is allocated; memory grows by less than 16 MiB."""
    before = psutil.Process().memory_info().rss
    with ExitStack() as stack:
        peer = stack.enter_context(connect(node)) if kind == 1 else stack.enter_context(associate(node))._socket
        peer.settimeout(LIMIT_S)
        sent = 0
        try:
            peer.sendall(struct.pack(">BBL", kind, 0, 1 << 30))
            while sent < 64 * MIB:
                peer.sendall(bytes(65536))
                sent += 65536
        except OSError:
            pass
        assert sent < 32 * MIB
        assert is_hung_up(peer)
    assert psutil.Process().memory_info().rss - before < 16 * MIB
    assert honest(node) == 0x0000


@pytest.mark.parametrize(
    "opening",
    [b"", b"\x01", struct.pack(">BBL", 1, 0, 300), struct.pack(">BBL", 1, 0, 300) + bytes(100)],
    ids=["silent", "one byte", "header", "half"],
)
def test_s2_who_says_nothing_or_stops_in_the_middle_is_dropped(tmp_path, opening):
    """S2: silence before and inside a PDU ends at the deadline."""
    with hasty(tmp_path, acse_timeout_s=HASTY_S) as node, connect(node) as peer:
        peer.sendall(opening)
        assert is_hung_up(peer)


def drip(peer: socket.socket, content: bytes) -> bool:
    """Send ``content`` byte by byte, ten a second at most; whether the other side hung up before the last one."""
    peer.settimeout(0.1)
    for number in range(len(content)):
        try:
            peer.sendall(content[number : number + 1])
            if not peer.recv(1):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


@pytest.mark.parametrize("kind", [1, 4], ids=["A-ASSOCIATE-RQ", "P-DATA"])
def test_s2_dripping_bytes_do_not_extend_the_deadline(tmp_path, kind):
    """S2: the deadline is for the whole PDU, not from byte to byte: who drips for a minute is dropped before."""
    with ExitStack() as stack:
        deadline = "acse_timeout_s" if kind == 1 else "pdu_timeout_s"
        node = stack.enter_context(hasty(tmp_path, **{deadline: HASTY_S}))
        if kind == 1:
            peer, content = stack.enter_context(connect(node)), struct.pack(">BBL", 1, 0, 600)
        else:
            peer = stack.enter_context(associate(node))._socket
            content = struct.pack(">BBLLBB", 4, 0, 600, 596, 1, 3)
        assert drip(peer, content + bytes(594))


def test_s2_an_association_that_falls_silent_in_a_data_set_leaves_nothing(tmp_path):
    """S2, R8: the deadline inside a PDU ends the association; nothing of the object stays."""
    message = store_message(CT, 1, f"{SERIES}.1", slice_of(1), 16384, ())
    with hasty(tmp_path, pdu_timeout_s=HASTY_S) as node:
        with associate(node) as peer:
            peer._socket.sendall(message.wire[:-500])
            assert is_hung_up(peer._socket)
        node.settle()
        assert (node.files(), node.rows(InstanceRow)) == ([], [])
        assert node.rows(AssociationRow)[0].ended == "aborted"


def test_s2_silence_between_the_parts_of_a_message_ends_it_sooner_than_silence_between_messages(tmp_path):
    """S2: a command set without its data set does not hold its place for the whole idle time."""
    first, second = (store_message(CT, 1, f"{SERIES}.{n}", slice_of(n), 16384, ()) for n in (1, 2))
    with hasty(tmp_path, dimse_timeout_s=HASTY_S) as node, associate(node) as waiting, associate(node) as peer:
        peer._socket.sendall(first.wire[: 6 + struct.unpack(">L", first.wire[2:6])[0]])
        assert is_hung_up(peer._socket)
        assert waiting.store(second) == 0x0000, "command and data set leave together: there is no silence between them"


def test_s2_a_hundred_silent_peers_do_not_keep_an_honest_one_out(node):
    """S2: accepting never waits for anybody."""
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(node))
        assert honest(node) == 0x0000


def test_s2_newcomers_take_the_places_of_those_that_wait_longest(tmp_path, monkeypatch):
    """S2: the number of connections without an association is bounded, and the bound shuts nobody out."""
    monkeypatch.setattr("dicomnode.receive.listener.MAX_PENDING", 10)
    before = threading.active_count()
    with hasty(tmp_path) as node, ExitStack() as stack:
        silent = [stack.enter_context(connect(node)) for _ in range(30)]
        assert honest(node) == 0x0000
        assert is_hung_up(silent[0])
        wait_for(lambda: threading.active_count() < before + 25)


def test_s6_a_flood_of_associations_is_rejected_and_the_open_ones_go_on(node):
    """S6: the limit holds while many ask at once; who is in stays in; places come free."""
    taken: list[RawAssociation] = []
    refused: list[Refused] = []

    def ask() -> None:
        try:
            taken.append(associate(node))
        except Refused as error:
            refused.append(error)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (8, 12)
    assert all("(2, 3, 2)" in str(error) for error in refused)
    for number, peer in enumerate(taken):
        assert peer.store_stream(CT, f"{SERIES}.{number}", [slice_of(number)]) == 0x0000
        peer.release()
    node.settle()
    assert honest(node, 99) == 0x0000


def test_s6_one_peer_cannot_take_all_places(tmp_path):
    """S6: ``max_associations_per_peer``; the other peer still gets in."""
    node = Node(tmp_path, max_associations=8, max_associations_per_peer=2, accept_unknown_peers=True)
    try:
        with associate(node), associate(node):
            with pytest.raises(Refused, match=r"\(2, 3, 2\)"):
                associate(node)
            with associate(node, calling="OTHER"):
                pass
        assert "max_associations_per_peer reached" in [body["reason"] for body in node.audit("security alert")]
    finally:
        node.close()


def test_s8_a_deflated_bomb_is_refused_without_its_memory(node):
    """S8: 1000:1; inflated only in passing, to the limit of an instance, and refused."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = squeeze.compress(slice_of(1, implicit=False)[:-4012])
    bomb += squeeze.compress(struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 64 * MIB))
    for _ in range(64):
        bomb += squeeze.compress(bytes(MIB))
    bomb += squeeze.flush()
    deflated = Context(CT_IMAGE, DEFLATED)
    before = psutil.Process().memory_info().rss
    with associate(node, deflated) as peer:
        assert peer.store_stream(deflated, f"{SERIES}.1", [bomb]) == 0xC000
        assert psutil.Process().memory_info().rss - before < 16 * MIB
        good = squeeze_whole(slice_of(2, implicit=False))
        assert peer.store_stream(deflated, f"{SERIES}.2", [good]) == 0x0000
    node.settle()
    assert len(node.files()) == 1


def squeeze_whole(data: bytes) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeeze.compress(data) + squeeze.flush()


def test_s9_a_data_set_over_the_quota_is_answered_a700_and_the_association_goes_on(node):
    """S9: the partial file is gone, the next object is stored."""
    head = slice_of(1)[:-4012] + struct.pack("<HHI", 0x7FE0, 0x10, 4 * MIB)
    with associate(node) as peer:
        assert peer.store_stream(CT, f"{SERIES}.1", [head, *[bytes(MIB)] * 4]) == 0xA700
        assert node.files() == []
        assert peer.store_stream(CT, f"{SERIES}.2", [slice_of(2)]) == 0x0000
    assert "larger than max_instance_bytes" in node.audit("security alert")[0]["reason"]


def test_s9_a_data_set_that_never_ends_is_cut_off(node, monkeypatch):
    """S9: whoever goes on sending far beyond the quota loses the association."""
    monkeypatch.setattr("dicomnode.receive.server.ENDLESS_BYTES", MIB)
    other = Node(node.spool.root.parent / "other", max_instance_bytes=MIB)
    try:
        with associate(other) as peer, pytest.raises((Ended, OSError)):
            peer.store_stream(CT, f"{SERIES}.1", [bytes(MIB)] * 8)
        other.settle()
        assert other.files() == []
    finally:
        other.close()


@pytest.mark.parametrize(
    "what", ["nested 5000 deep", "a million items", "a million items, with a length", "length beyond the end"]
)
def test_s10_hostile_structures_end_in_a_status_in_bounded_time(tmp_path, what):
    """S10: the walk is iterative and counts; the node serves the next peer."""
    node = Node(tmp_path)
    explicit = Context(CT_IMAGE, EXPLICIT)
    opened = struct.pack("<HH2sHI", 0x40, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    begin = slice_of(1, implicit=False)[:-4012]
    data = {
        "nested 5000 deep": begin + opened * 5000 + closing * 5000,
        "a million items": begin
        + struct.pack("<HH2sHI", 0x40, 0xA730, b"SQ", 0, 0xFFFFFFFF)
        + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000
        + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
        "a million items, with a length": begin
        + struct.pack("<HH2sHI", 0x40, 0xA730, b"SQ", 0, 8_000_000)
        + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000,
        "length beyond the end": begin + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 0xFFFFFFF0) + bytes(10),
    }[what]
    try:
        with associate(node, explicit) as peer:
            assert peer.store_stream(explicit, f"{SERIES}.1", [data]) == 0xC000
        assert honest(node, 2) == 0x0000
        assert len(node.rows(InstanceRow)) == 1
    finally:
        node.close()


def test_s2_who_was_refused_and_is_silent_gets_a_short_deadline(tmp_path, monkeypatch):
    """S2, S10: after an object that cannot be understood the peer has to go on at once, or loses the association."""
    unit, idle = Wire.unit, list[float]()
    monkeypatch.setattr(Wire, "unit", lambda wire, idle_s: (idle.append(idle_s), unit(wire, idle_s)))
    monkeypatch.setattr(conversation, "REFUSED_S", LIMIT_S)
    node, explicit = Node(tmp_path), Context(CT_IMAGE, EXPLICIT)
    lying = slice_of(1, implicit=False)[:-4012] + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 0xFFFFFFF0) + bytes(10)
    try:
        with associate(node, explicit) as peer:
            assert peer.store_stream(explicit, f"{SERIES}.1", [lying]) == 0xC000
            wait_for(lambda: idle[-1] == LIMIT_S)  # it waits, with a deadline that nobody misses
            monkeypatch.setattr(conversation, "REFUSED_S", HASTY_S)
            assert peer.store_stream(explicit, f"{SERIES}.2", [slice_of(2, implicit=False)]) == 0x0000
            time.sleep(2.5)
            assert peer.store_stream(explicit, f"{SERIES}.1", [lying]) == 0xC000
            assert is_hung_up(peer._socket)
        assert honest(node, 3) == 0x0000
    finally:
        node.close()


def test_who_was_refused_for_want_of_room_may_wait_before_it_goes_on(node, monkeypatch):
    """S2: the short deadline is for what cannot be understood; a sender that is told to come back later does so."""
    monkeypatch.setattr(conversation, "REFUSED_S", 0.3)
    head = slice_of(1)[:-4012] + struct.pack("<HHI", 0x7FE0, 0x10, 4 * MIB)
    with associate(node) as peer:
        assert peer.store_stream(CT, f"{SERIES}.1", [head, *[bytes(MIB)] * 4]) == 0xA700
        time.sleep(1.2)
        assert peer.store_stream(CT, f"{SERIES}.2", [slice_of(2)]) == 0x0000


def test_r17_a_forced_end_tells_an_idle_peer_in_the_clear(node):
    """R17: an A-ABORT (PS3.8 9.3.8) rather than a lost connection."""
    with associate(node) as peer:
        node.server.stop(0.2)
        kind, _ = peer._read_pdu()
        assert kind == 7


def test_garbage_in_every_form_leaves_the_node_serving(node):
    """S20: openings of noise, odd PDU types, zero lengths, bent requests."""
    noise = random.Random(7)
    for number in range(60):
        with connect(node) as peer:
            content = noise.randbytes(noise.randint(1, 4000))
            if number % 3 == 1:
                content = struct.pack(">BBL", noise.randint(0, 255), 0, 0)
            peer.sendall(content)
    assert honest(node) == 0x0000
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "association"])


def test_descriptors_do_not_leak_over_many_associations(node):
    """R20: sockets, files and threads of ended associations are given back."""
    folder = Path(f"/proc/{os.getpid()}/fd")
    node.send(slice_of(0))
    before = len(list(folder.iterdir()))
    for number in range(1, 20):
        node.send(slice_of(number))
        with associate(node) as peer:
            peer._socket.sendall(b"\x04\x00")
    wait_for(lambda: len(list(folder.iterdir())) <= before + 3)
    node.settle()
