"""Targets behind a socket: the node has to go on serving honest peers, whatever the others send."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.fuzz.mutate import Mutator
from tests.fuzz.pure import DICOM_WORDS
from tests.fuzz.seeds import data_sets
from tests.fuzz.target import Finding, Target
from tests.fuzz.watched import CONTEXTS, Held, Node
from tests.fuzz.wire import (
    ABORT,
    ACCEPTED,
    C_FIND,
    C_GET,
    C_MOVE,
    COMMITMENT,
    CT_IMAGE,
    DATA,
    N_ACTION,
    N_EVENT,
    RELEASE_REQUEST,
    Peer,
    any_request,
    associate_request,
    data_pdu,
    echo_request,
    element,
    item,
    message,
    store_request,
    us,
)

HONEST_EVERY = 25
WARM = 40
_PDU_WORDS = (
    b"\x01\x00\x00\x00\x00\x00",
    b"\x04\x00\x40\x00\x00\x00",
    b"\x04\x00\x00\x00\x00\x04\x00\x00\x00\x00",
    b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00",
    b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00",
    b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\x20\x00\xff\xff",
    b"\x50\x00\x00\x00",
    b"\x58\x00\x00\x08",
    b"\x40\x00\x00\x11",
    b"1.2.840.10008.1.2.1.99",
    b"\r\n\x1b[2J",
)
_SMALL = (
    element(0x00080016, CT_IMAGE)
    + element(0x00080018, b"1.2.3")
    + element(0x0020000D, b"1.2")
    + element(0x0020000E, b"1.2.4")
)


class OverTheWire(Target):
    """Has a node; every HONEST_EVERY inputs an honest peer must be served, at the end nothing may be left."""

    pure = False

    def __init__(self, shared: Node | None = None) -> None:
        """``shared``: a node that runs already and goes on running; who started it judges it."""
        self.shared = shared
        self.notes: dict[str, float] = {}
        self._count = 0
        self._base: Held | None = None

    @contextmanager
    def running(self, folder: Path) -> Iterator[None]:
        """The node; at the end it must be as it was, and stop."""
        if self.shared is not None:
            self.node = self.shared
            yield
            self.node.serve_an_honest_peer()
            return
        self.node = Node(folder)
        try:
            self.node.serve_an_honest_peer()
            yield
            slowest = self.node.serve_an_honest_peer()
            self.notes["slowest_honest_s"] = max(self.notes.get("slowest_honest_s", 0.0), slowest)
            self._judge()
        finally:
            self.node.close()
        self.node.require_clean_log()

    def _judge(self) -> None:
        before = self._base or self.node.held()
        after = self.node.require_flat(before)
        self.notes["memory_growth_mib"] = (after.memory - before.memory) / 2**20
        self.notes["threads_growth"] = after.threads - before.threads
        self.notes["descriptors_growth"] = after.descriptors - before.descriptors

    def check(self, data: bytes) -> None:
        """One conversation, and from time to time the question whether others are served."""
        with contextlib.suppress(OSError, EOFError):
            self.talk(data)
        self._count += 1
        if self._count % HONEST_EVERY == 0:
            seconds = self.node.serve_an_honest_peer()
            self.notes["slowest_honest_s"] = max(self.notes.get("slowest_honest_s", 0.0), seconds)
            if self._base is None and self._count >= WARM:
                self._base = self.node.held()
        self.node.require_alive()

    def talk(self, data: bytes) -> None:
        """Say ``data`` to the node."""
        raise NotImplementedError


class AssociationBytes(OverTheWire):
    """The whole conversation is damaged, from the first byte on."""

    name = "association"
    words = _PDU_WORDS

    def seeds(self) -> Sequence[bytes]:
        """Requests of all shapes, whole conversations."""
        negotiated = item(0x53, b"\0\1\0\1") + item(0x54, struct.pack(">H", len(CT_IMAGE)) + CT_IMAGE + b"\0\1")
        identity = item(0x58, b"\1\1\0\4user\0\0") + item(0x56, struct.pack(">H", 3) + b"1.2\0\1\2")
        many = [(CT_IMAGE, (b"1.2.840.10008.1.2",))] * 128
        whole = associate_request(CONTEXTS) + message(1, echo_request()) + RELEASE_REQUEST
        return [
            associate_request(CONTEXTS),
            associate_request(CONTEXTS, more=negotiated + identity),
            associate_request(many),
            whole,
            associate_request(CONTEXTS) + message(3, store_request(b"1.2.3"), _SMALL) + RELEASE_REQUEST,
            associate_request(CONTEXTS) + ABORT,
        ]

    def talk(self, data: bytes) -> None:
        """Everything at once; what comes back is looked at as far as it comes soon."""
        with Peer(self.node.port, 5.0) as peer:
            peer.send(data)
            peer.socket.settimeout(0.05)
            while peer.socket.recv(65536):
                pass


class PduBytes(OverTheWire):
    """The association is accepted, everything behind it is damaged."""

    name = "pdu"
    words = _PDU_WORDS

    def seeds(self) -> Sequence[bytes]:
        """Messages in one PDU, in several, several in one PDU."""
        store = message(3, store_request(b"1.2.3"), _SMALL, size=40)
        echo = message(1, echo_request())
        both = echo[6:] + data_pdu(3, store_request(b"1.2.3"), command=True)[6:]
        joined = struct.pack(">BBI", DATA, 0, len(both)) + both + data_pdu(3, _SMALL, command=False)
        return [store, echo * 3, joined, store + RELEASE_REQUEST, echo + ABORT, data_pdu(1, b"", command=True)]

    def talk(self, data: bytes) -> None:
        with Peer(self.node.port, 5.0) as peer:
            if peer.associate(CONTEXTS) != ACCEPTED:
                return
            peer.send(data)
            peer.socket.settimeout(0.05)
            while peer.socket.recv(65536):
                pass


class CommandSets(OverTheWire):
    """Well-formed PDUs, a damaged command set: an answer or an abort, never an error of ours."""

    name = "dimse"
    words = (
        *DICOM_WORDS,
        b"\x00\x00\x00\x01\x02\x00\x00\x00",
        b"\x00\x00\x00\x08\x02\x00\x00\x00\x01\x01",
        b"\x00\x00\x00\x10\x40\x00\x00\x00",
        b"../../etc/passwd",
        b"\x00\x00\x00\x09\x02\x00\x00\x00\x00\x00",
    )

    def seeds(self) -> Sequence[bytes]:
        """One byte: context and whether a data set follows; then the command set."""
        plain = [
            b"\x01" + echo_request(),
            b"\x83" + store_request(b"1.2.3"),
            b"\x85"
            + any_request(N_EVENT, COMMITMENT, data=True, more={0x1000: b"1.2.840.10008.1.20.1.1", 0x1002: us(1)}),
            b"\x85"
            + any_request(N_ACTION, COMMITMENT, data=True, more={0x1001: b"1.2.840.10008.1.20.1.1", 0x1008: us(1)}),
        ]
        odd = [b"\x83" + any_request(field, CT_IMAGE, data=True) for field in (C_FIND, C_GET, C_MOVE, 0x0FFF, 0x8001)]
        return plain + odd

    def talk(self, data: bytes) -> None:
        head = data[0] if data else 0
        context = head & 0x7F
        with Peer(self.node.port, 5.0) as peer:
            if peer.associate(CONTEXTS) != ACCEPTED:
                return
            peer.send(message(context, data[1:], _SMALL if head & 0x80 else None))
            peer.send(RELEASE_REQUEST)
            peer.socket.settimeout(1.0)
            with contextlib.suppress(TimeoutError):
                while (status := peer.status()) is not None:
                    if status == 0x0110:
                        raise Finding("the node answers 0x0110: an error of its own")


class StoredDataSets(OverTheWire):
    """A C-STORE of a damaged data set is answered: stored, or refused for a reason; never an error of ours."""

    name = "store"
    words = DICOM_WORDS
    good = (0x0000, 0xA900, 0xA700)

    def seeds(self) -> Sequence[bytes]:
        """One byte: whose command and transfer syntax; then the data set."""
        return [bytes((index,)) + seed.data for index, seed in enumerate(data_sets())]

    def draw(self, random: Random) -> bytes:
        """Command and syntax mostly stay those of the data set."""
        seed = random.choice(self.valid)
        mutant = Mutator(random, self.words, self.valid).mutant(seed[1:])
        return (seed[:1] if random.random() < 0.9 else random.randbytes(1)) + mutant

    def talk(self, data: bytes) -> None:
        seed = data_sets()[(data[0] if data else 0) % len(data_sets())]
        with Peer(self.node.port, 20.0) as peer:
            if peer.associate([(seed.sop_class, (seed.transfer_syntax,))]) != ACCEPTED:
                raise Finding("a storage context is not accepted")
            peer.send(message(1, store_request(seed.instance, seed.sop_class), data[1:]))
            try:
                status = peer.status()
            except TimeoutError as error:
                raise Finding("a C-STORE is not answered within 20 s") from error
            if status is None or not (status in self.good or status >> 12 == 0xC):
                raise Finding(f"a C-STORE is answered with {status}")
            peer.send(RELEASE_REQUEST)
            peer.pdu()


class Reports(OverTheWire):
    """A damaged report of storage commitment is answered with a status of PS3.7."""

    name = "reports"
    words = DICOM_WORDS

    def seeds(self) -> Sequence[bytes]:
        """The Event Information."""
        reference = element(0x00081150, b"1.2.840.10008.5.1.4.1.1.7") + element(0x00081155, b"1.2.3.4")
        boxed = b"\xfe\xff\x00\xe0" + len(reference).to_bytes(4, "little") + reference
        return [element(0x00081195, b"1.2.3") + element(tag, boxed) for tag in (0x00081199, 0x00081198)]

    def talk(self, data: bytes) -> None:
        more = {0x00001000: b"1.2.840.10008.1.20.1.1", 0x00001002: us(1)}
        command = any_request(N_EVENT, COMMITMENT, data=True, more=more)
        with Peer(self.node.port, 20.0) as peer:
            if peer.associate(CONTEXTS) != ACCEPTED or 5 not in peer.accepted:
                raise Finding("storage commitment is not negotiated with a peer that commits")
            peer.send(message(5, command, data))
            try:
                status = peer.status()
            except TimeoutError as error:
                raise Finding("a report is not answered within 20 s") from error
            if status not in (0x0112, 0x0113, 0x0115, 0x0213):
                raise Finding(f"a report that nobody asked for is answered with {status}")
            peer.send(RELEASE_REQUEST)
            peer.pdu()


class Requests(OverTheWire):
    """Whatever comes to the console's port, it answers 2xx, 3xx or 4xx, or closes."""

    name = "http"
    words = (
        b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b"PUT ", b"CONNECT ", b"HTTP/1.1\r\n", b"HTTP/9.9\r\n", b"\r\n",
        b"\n", b"\0", b"/../../etc/passwd", b"/%2e%2e/%00", b"//status", b"/status?x=" + b"a" * 3000, b"Host: \r\n",
        b"Content-Length: 99999999999999999999\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n", b"ffffffffffffffff\r\n", b"0\r\n\r\n", b"Range: bytes=0-\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"Expect: 100-continue\r\n", b"X: " + b"y" * 70000 + b"\r\n",
        b"Cookie: a=b\r\n" * 200, b"\xff\xfe", b"{{7*7}}", b"' OR 1=1 --",
    )  # fmt: skip

    def seeds(self) -> Sequence[bytes]:
        """Every page, a body, a pipeline."""
        tail = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        pages = [b"GET " + page + tail + b"\r\n" for page in (b"/", b"/status", b"/metrics", b"/healthz", b"/none")]
        posted = b"POST /status" + tail + b"Content-Length: 3\r\n\r\nabc"
        chunked = b"PUT /" + tail + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        return [*pages, posted, chunked, pages[3].replace(b"Connection: close\r\n", b"") * 3]

    def talk(self, data: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.node.console), 20.0) as opened:
            opened.sendall(data)
            opened.settimeout(0.3 if data.startswith(b"GET ") else 0.05)
            answer = b""
            with contextlib.suppress(TimeoutError, OSError):
                while piece := opened.recv(65536):
                    answer += piece
        if answer:
            version, _, rest = answer.partition(b" ")
            if not version.startswith(b"HTTP/1.") or rest[:1] not in (b"1", b"2", b"3", b"4"):
                raise Finding(f"the console answers {answer[:40]!r}")


NETWORK: tuple[type[OverTheWire], ...] = (AssociationBytes, PduBytes, CommandSets, StoredDataSets, Reports, Requests)
