"""The Storage SCP with TLS: who gets an association, and what the others leave behind."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select

from dicomnode.audit.events import Event
from dicomnode.config import Config
from dicomnode.dicom.header import part10_offset
from dicomnode.dicom.requestor import Requestor
from dicomnode.dicom.sop_classes import CT_IMAGE, VERIFICATION
from dicomnode.dicom.tls import client_context
from dicomnode.receive import StorageServer
from dicomnode.receive import server as receive_server
from dicomnode.receive.listener import MAX_PENDING
from dicomnode.receive.tls import Reason
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssociationRow, AuditRow, InstanceRow
from tests.certificates import Authority, Pair
from tests.integration.test_receive_storage import LIMIT_S, PATIENT, slice_of, store_bytes
from tests.raw_scu import EXPLICIT, Context, Ended, RawAssociation
from tests.tls_clients import CLIENT_HELLO_HEAD, TLS_1_1, TLS_1_2, Client, drips, greets, lax_context, leaves, says

ASSOCIATE_RQ = b"\x01\x00\x00\x00\x00\xcd\x00\x01\x00\x00" + b"NODE".ljust(16) + b"CT1".ljust(16) + bytes(160)


class SecureNode:
    """A receiving node with a TLS port, its authority, and scanners that have certificates of it."""

    def __init__(self, folder: Path, **tls: Any) -> None:
        self.authority = Authority(folder / "tls")
        self.pair = self.authority.issue("node", cn="node", ip=["127.0.0.1"])
        self.scanner = self.authority.issue("scanner", cn="CT 1", dns=["ct1.test"])
        self.other = self.authority.issue("other", cn="MR 1", dns=["mr1.test"])
        self.gone = self.authority.issue("gone", cn="CT 1", dns=["ct1.test"])
        tls = {"crl": str(self.authority.revoke(self.gone)), **tls}
        host = {"host": "127.0.0.1", "port": 104, "may_send": True}
        files = {"cert": str(self.pair.cert), "key": str(self.pair.key), "ca": str(self.authority.ca)}
        self.config = Config.model_validate(
            {
                "node": {"ae_title": "NODE", "host": "127.0.0.1", "port": 0, "data_dir": str(folder)},
                "receive": {"min_free_bytes": 0, **PATIENT, "tls": {"port": 0, **files, **tls}},
                "peer": [
                    {"name": "ct", "ae_title": "CT1", **host, "certificate": ["ct1.test"]},
                    {"name": "mr", "ae_title": "MR1", **host, "certificate": [self.other.sha256]},
                    {"name": "any", "ae_title": "ANY", **host},
                    {"name": "far", "ae_title": "FAR", **host, "host": "192.0.2.1", "certificate": ["ct1.test"]},
                ],
            }
        )
        self.store = Store(f"sqlite:///{folder / 'node.sqlite3'}")
        migrate(self.store)
        self.server = StorageServer(self.config, self.store, Spool(folder / "spool"))
        self.server.start()
        self.port = self.server.ports["tls_port"]

    def associate(self, shown: Pair, calling: str = "CT1", called: str = "NODE", port: int | None = None) -> Any:
        context = client_context(self.authority.ca, shown.cert, shown.key, None)
        return self._associate(calling, called, port or self.port, tls_args=(context, "127.0.0.1"))

    def associate_in_the_clear(self, calling: str) -> Any:
        return self._associate(calling, "NODE", self.server.ports["port"])

    def _associate(self, calling: str, called: str, port: int, **how: Any) -> Any:
        ae = Requestor(calling)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = LIMIT_S
        ae.add_requested_context(VERIFICATION)
        ae.add_requested_context(CT_IMAGE, ExplicitVRLittleEndian)
        return ae.associate("127.0.0.1", port, ae_title=called, **how)

    def is_served(self, shown: Pair, calling: str) -> bool:
        """Is an association opened, and does it answer C-ECHO?"""
        association = self.associate(shown, calling)
        if not association.is_established:
            return False
        status = association.send_c_echo().Status
        association.release()
        return bool(status == 0)

    def alerts(self) -> list[dict[str, Any]]:
        with self.store.read() as session:
            rows = session.scalars(select(AuditRow).where(AuditRow.kind == Event.SECURITY_ALERT))
            return [json.loads(row.body) for row in rows]

    def alerted(self, reason: str) -> list[dict[str, Any]]:
        """The alerts with this reason, once there is one."""
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            if found := [alert for alert in self.alerts() if alert["reason"] == reason]:
                return found
            time.sleep(0.02)
        raise AssertionError(f"no alert {reason!r} in {self.alerts()}")

    def count(self, table: type) -> int:
        with self.store.read() as session:
            return len(session.scalars(select(table)).all())

    def stored(self) -> dict[str, str]:
        """The SOP Instance UIDs of all rows, with the digest of what lies in their files."""
        spool = Path(self.config.node.data_dir) / "spool"
        with self.store.read() as session:
            rows = session.scalars(select(InstanceRow)).all()
            return {row.SOPInstanceUID: _digest((spool / row.path).read_bytes()) for row in rows}

    def close(self) -> None:
        self.server.stop(1.0)
        self.store.close()


def _digest(file: bytes) -> str:
    """Of the data set, without the file's head."""
    return hashlib.sha256(file[part10_offset(file)[1] :]).hexdigest()


@contextmanager
def running(folder: Path, **tls: Any) -> Iterator[SecureNode]:
    made = SecureNode(folder, **tls)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does his part of the handshake is given the time, on a busy machine too."""
    monkeypatch.setattr(receive_server, "HANDSHAKE_S", 600.0)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureNode]:
    with running(tmp_path_factory.mktemp("node")) as made:
        yield made


def test_instances_come_over_mutual_tls(node: SecureNode) -> None:
    """S4: a scanner with its certificate stores; an object is durable as over plain TCP."""
    association = node.associate(node.scanner)
    assert association.is_established
    context = next(each for each in association.accepted_contexts if each.abstract_syntax == CT_IMAGE)
    before = node.count(InstanceRow)
    data = [slice_of(number, implicit=False, filling=b"\1\2" * 200) for number in (1, 2, 3)]
    assert [store_bytes(association, each, context=context) for each in data] == [0, 0, 0]
    association.release()
    assert node.count(InstanceRow) == before + 3


def hostile(node: SecureNode) -> dict[str, tuple[Client, Reason]]:
    foreign = Authority(node.authority.folder, "Foreign Authority").issue("foreign", cn="CT 1", dns=["ct1.test"])
    expired = node.authority.issue("expired", cn="CT 1", dns=["ct1.test"], days=(-30, -1))
    return {
        "no certificate": (greets(lax_context()), Reason.NO_CERTIFICATE),
        "no certificate, TLS 1.2": (greets(lax_context(version=TLS_1_2)), Reason.NO_CERTIFICATE),
        "foreign authority": (greets(lax_context(foreign)), Reason.UNKNOWN_AUTHORITY),
        "expired": (greets(lax_context(expired)), Reason.EXPIRED),
        "revoked": (greets(lax_context(node.gone)), Reason.REVOKED),
        "TLS 1.1": (greets(lax_context(node.scanner, TLS_1_1)), Reason.OLD_PROTOCOL),
        "plain DICOM": (says(ASSOCIATE_RQ), Reason.PLAIN_TEXT),
        "hangs up": (leaves, Reason.LOST),
        "drips": (drips(0.2), Reason.LATE),
    }


HOSTILE = ("no certificate", "no certificate, TLS 1.2", "foreign authority", "expired", "revoked", "TLS 1.1")


@pytest.mark.parametrize("name", [*HOSTILE, "plain DICOM", "hangs up", "drips"])
def test_a_wrong_handshake_ends_without_an_association(
    node: SecureNode, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S4, S3: closed, a Security Alert with the reason and the address, no association, and the scanner is served."""
    client, reason = hostile(node)[name]
    before = node.count(AssociationRow)
    with monkeypatch.context() as hasty:
        if reason is Reason.LATE:
            hasty.setattr(receive_server, "HANDSHAKE_S", 1.0)
        with socket.create_connection(("127.0.0.1", node.port), timeout=LIMIT_S) as connection, suppress(OSError):
            client(connection)
    assert {alert["address"] for alert in node.alerted(str(reason))} == {"127.0.0.1"}
    assert node.count(AssociationRow) == before
    assert node.is_served(node.scanner, "CT1")


def test_stalled_handshakes_hold_nobody_else(node: SecureNode) -> None:
    """S3: beside ten stalled handshakes another peer associates."""
    with stalled(node, 10) as others:
        assert node.is_served(node.scanner, "CT1")
        assert all(_is_open(each) for each in others), "the honest peer had to wait for the stalled ones"


def test_stalled_handshakes_are_closed_by_the_deadline(node: SecureNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3: all of them."""
    monkeypatch.setattr(receive_server, "HANDSHAKE_S", 1.0)
    with stalled(node, 10) as others:
        for each in others:
            with suppress(ConnectionError):
                assert each.recv(1) == b""


@contextmanager
def stalled(node: SecureNode, count: int) -> Iterator[list[socket.socket]]:
    """Connections over which nothing is said."""
    others: list[socket.socket] = []
    try:
        others.extend(socket.create_connection(("127.0.0.1", node.port), timeout=LIMIT_S) for _ in range(count))
        yield others
    finally:
        for each in others:
            each.close()


def test_a_flood_of_stalled_handshakes_displaces_its_own_first(node: SecureNode) -> None:
    """S3: more than may be pending; the oldest are dropped before their time, and the scanner is served."""
    flood: list[socket.socket] = []
    try:
        for _ in range(MAX_PENDING + 30):
            flood.append(socket.create_connection(("127.0.0.1", node.port), timeout=LIMIT_S))
            flood[-1].sendall(CLIENT_HELLO_HEAD)
        assert node.is_served(node.scanner, "CT1")
        assert not any(_is_open(each) for each in flood[:20])
    finally:
        for each in flood:
            each.close()


def test_a_forced_end_cuts_associations_off(tmp_path: Path) -> None:
    """R17: a peer that holds its TLS association open does not hold the stop."""
    with running(tmp_path) as node:
        association = node.associate(node.scanner)
        assert association.is_established
        started = time.monotonic()
        node.server.stop(0.5)
        assert time.monotonic() - started < LIMIT_S
        association.join(LIMIT_S)
        assert not association.is_alive()
        with node.store.read() as session:
            assert [row.ended for row in session.scalars(select(AssociationRow))] == ["lost"]


def test_a_forced_end_writes_nothing_beside_the_thread_that_reads(tmp_path: Path) -> None:
    """R1, R17: OpenSSL keeps one state for both directions, so over TLS not even an A-ABORT comes from outside."""
    with running(tmp_path) as node:
        context = client_context(node.authority.ca, node.scanner.cert, node.scanner.key, None)
        secure = partial(context.wrap_socket, server_hostname="127.0.0.1")
        with RawAssociation(node.port, "NODE", "CT1", [Context(CT_IMAGE, EXPLICIT)], secure=secure) as association:
            node.server.stop(0.2)
            with suppress(ConnectionError):
                assert association._socket.recv(64) == b""


def test_a_forced_end_amid_objects_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """R1, R17: three scanners send without a pause over TLS, one stops inside an object; the node is told to end.

    Nothing that was answered with Success is missing, beside it is at most what was on its way, every peer sees an end.
    """
    explicit = Context(CT_IMAGE, EXPLICIT)
    with running(tmp_path) as node:
        context = client_context(node.authority.ca, node.scanner.cert, node.scanner.key, None)
        acknowledged, seen, opened, ended = dict[str, bytes](), list[int](), list[str](), list[str]()

        def peer() -> RawAssociation:
            secure = partial(context.wrap_socket, server_hostname="127.0.0.1")
            return RawAssociation(node.port, "NODE", "CT1", [explicit], secure=secure)

        def send(series: str) -> None:
            with peer() as association, suppress(Ended, OSError):
                opened.append(series)
                for number in count():
                    data = slice_of(number, series=series, implicit=False, filling=number.to_bytes(4, "big") * 5)
                    seen.append(association.store_stream(explicit, f"{series}.{number}", [data]))
                    if seen[-1] == 0:
                        acknowledged[f"{series}.{number}"] = data
            ended.append(series)

        def hold(series: str) -> None:
            half = slice_of(1, series=series, implicit=False, filling=bytes(200))[:200_000]
            with peer() as association, suppress(Ended, OSError):
                opened.append(series)
                association.store_stream(explicit, f"{series}.1", chain([half], iter(halted.wait, True)))
            ended.append(series)

        halted = threading.Event()
        series = [f"1.2.3.{number}" for number in range(4)]
        senders = [threading.Thread(target=send, args=(one,)) for one in series[:3]]
        senders.append(threading.Thread(target=hold, args=(series[3],)))
        for sender in senders:
            sender.start()
        until = time.monotonic() + 2 * LIMIT_S
        while (len(acknowledged) < 12 or len(opened) < 4) and time.monotonic() < until:
            time.sleep(0.01)
        started = time.monotonic()
        node.server.stop(0.2)
        halted.set()
        assert time.monotonic() - started < LIMIT_S
        for sender in senders:
            sender.join(LIMIT_S)
        assert sorted(ended) == series
        assert len(acknowledged) >= 12
        again = StorageServer(node.config, node.store, Spool(tmp_path / "spool"))
        again.start()
        again.stop(1.0)
        stored = node.stored()
        assert {uid: stored.pop(uid, None) for uid in acknowledged} == {
            uid: hashlib.sha256(data).hexdigest() for uid, data in acknowledged.items()
        }
        assert len({uid.rsplit(".", 1)[0] for uid in stored}) == len(stored)
        assert not any(uid.startswith(f"{series[3]}.") for uid in stored)


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_a_peer_needs_its_own_certificate(node: SecureNode) -> None:
    """S5: the certificate of another peer opens nothing: A-ASSOCIATE-RJ (1, 1, 3) and a Security Alert."""
    stolen = node.associate(node.other, "CT1")
    assert stolen.is_rejected
    answer = stolen.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, 3)
    (alert, *_) = node.alerted("calling AE title without a certificate of its peer")
    assert (alert["CallingAETitle"], alert["address"]) == ("CT1", "127.0.0.1")
    assert node.is_served(node.scanner, "CT1")
    assert node.is_served(node.other, "MR1")
    assert not node.is_served(node.scanner, "MR1")


def test_the_address_counts_beside_the_certificate(node: SecureNode) -> None:
    """S5: the right certificate from another address is rejected."""
    assert node.associate(node.scanner, "FAR").is_rejected
    node.alerted("calling AE title comes from another address than its peer's")


@pytest.mark.parametrize(
    ("titles", "diagnostic", "reason"),
    [
        ({"calling": "STRANGER"}, 3, "calling AE title is not a peer that may send"),
        ({"called": "OTHER"}, 7, "called AE title is not ours"),
    ],
)
def test_titles_count_over_tls_too(node: SecureNode, titles: dict[str, str], diagnostic: int, reason: str) -> None:
    """S5: a certificate replaces no title: A-ASSOCIATE-RJ with its reason (PS3.8 9.3.4), and a Security Alert."""
    answer = node.associate(node.scanner, **titles).acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, diagnostic)
    assert node.alerted(reason)[-1]["address"] == "127.0.0.1"


def test_outer_spaces_of_titles_do_not_count(node: SecureNode) -> None:
    """S5: "AE " equals "AE" (PS3.5 6.2); without a list of identities any certificate of the authority does."""
    assert node.is_served(node.scanner, "CT1 ")
    assert node.is_served(node.scanner, " ANY")


def test_the_plain_port_is_closed_unless_it_is_asked_for(node: SecureNode, tmp_path: Path) -> None:
    """S4, S5: TLS alone by default; with `plain` a peer with a certificate is still rejected there, another is not."""
    assert set(node.server.ports) == {"tls_port"}
    with running(tmp_path, plain=True) as both:
        assert both.associate_in_the_clear("CT1").is_rejected
        known = both.associate_in_the_clear("ANY")
        assert known.is_established
        known.release()
        assert both.is_served(both.scanner, "CT1")


def _is_told(node: SecureNode) -> bool:
    """Is there an alert that says that the spoiled certificate is not used?"""
    return any("the old ones stay" in alert["reason"] and "no PEM file" in alert["reason"] for alert in node.alerts())


def test_renewal_under_load_loses_nothing(tmp_path: Path) -> None:
    """Hot reload: certificates renewed and spoiled while two scanners send; every object is stored, none refused."""
    with running(tmp_path) as node:
        statuses: list[int] = []
        done = threading.Event()

        def send(series: str) -> None:
            number = 0
            while not done.is_set():
                association = node.associate(node.scanner)
                assert association.is_established
                context = next(each for each in association.accepted_contexts if each.abstract_syntax == CT_IMAGE)
                for _ in range(3):
                    number += 1
                    data = slice_of(number, series=series, implicit=False)
                    statuses.append(store_bytes(association, data, context=context))
                association.release()

        senders = [threading.Thread(target=send, args=(f"1.2.3.{index}",)) for index in (1, 2)]
        for sender in senders:
            sender.start()
        try:
            for number in range(3):
                node.authority.issue("node", cn=f"renewal {number}", ip=["127.0.0.1"])
                time.sleep(1.3)
            node.pair.cert.write_bytes(b"spoiled")
            until = time.monotonic() + 2 * LIMIT_S
            while not _is_told(node) and time.monotonic() < until:
                time.sleep(0.05)
            before = len(statuses)
            while len(statuses) < before + 6 and time.monotonic() < until:
                time.sleep(0.05)
        finally:
            done.set()
            for sender in senders:
                sender.join(LIMIT_S)
        assert len(statuses) >= before + 6, "a sender has ended early"
        assert set(statuses) == {0}
        assert node.count(InstanceRow) == len(statuses)
        assert _is_told(node)


@pytest.mark.acceptance
def test_dcmtk_speaks_with_the_node(node: SecureNode, tmp_path: Path) -> None:
    """S4: storescu (another TLS stack's defaults) stores with its certificate and is refused without one."""
    if shutil.which("storescu") is None:
        pytest.fail("storescu (dcmtk) is not installed")
    file = tmp_path / "1.dcm"
    _write_part10(file)
    common = ["storescu", "-aet", "CT1", "-aec", "NODE"]
    where = ["+cf", str(node.authority.ca), "127.0.0.1", str(node.port), str(file)]
    with_certificate = ["+tls", str(node.scanner.key), str(node.scanner.cert)]
    before = node.count(InstanceRow)
    assert subprocess.run([*common, *with_certificate, *where], timeout=120, capture_output=True).returncode == 0
    assert node.count(InstanceRow) == before + 1
    assert subprocess.run([*common, "+tla", *where], timeout=120, capture_output=True).returncode != 0
    assert node.count(InstanceRow) == before + 1


def _write_part10(path: Path) -> None:
    from dicomnode.receive.part10 import file_head

    data = slice_of(77, series="1.2.77", implicit=False)
    path.write_bytes(file_head(CT_IMAGE, "1.2.77.77", ExplicitVRLittleEndian, "CT1") + data)
