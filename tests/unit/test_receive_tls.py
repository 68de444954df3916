"""The TLS side of the listener by itself: handshakes that end, who the client is, files that are replaced."""

from __future__ import annotations

import os
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from dicomnode.config.tls import ReceiveTls
from dicomnode.dicom.tls import CIPHER_SUITES
from dicomnode.errors import ConfigError
from dicomnode.receive import tls as receive_tls
from dicomnode.receive.tls import HandshakeFailed, Reason, Reload, ServerTls, identities
from tests.certificates import Authority, Pair, weak_key
from tests.tls_clients import (
    TLS_1_0,
    TLS_1_1,
    TLS_1_2,
    TLS_1_3,
    Client,
    drips,
    greets,
    lax_context,
    leaves,
    says,
    silent,
)

ASSOCIATE_RQ = b"\x01\x00\x00\x00\x00\xcd\x00\x01\x00\x00" + b"NODE".ljust(16) + b"CT1".ljust(16) + bytes(160)
LIMIT_S = 60.0
"""The bound of a hang."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(authority: Authority) -> Pair:
    return authority.issue("node", cn="node", ip=["127.0.0.1"])


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Pair:
    return authority.issue("scanner", cn="CT 1", dns=["CT1.test"], ip=["10.0.0.7", "::1"], uri=["urn:uuid:1-2"])


@pytest.fixture(scope="module")
def server(authority: Authority, node: Pair) -> ServerTls:
    return ServerTls(settings(authority, node))


def settings(authority: Authority, node: Pair, **changes) -> ReceiveTls:
    return ReceiveTls(**{"port": 0, "cert": node.cert, "key": node.key, "ca": authority.ca, **changes})


def meet(server: ServerTls, client: Client, deadline_s: float = LIMIT_S, look: Callable = lambda _: None) -> object:
    """One connection. Returns what ``look`` sees in the accepted one; raises HandshakeFailed."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as other:
        near = socket.create_connection(listener.getsockname(), timeout=LIMIT_S)
        met = other.submit(client, near)
        try:
            accepted, _ = listener.accept()
            accepted.settimeout(LIMIT_S)
            with accepted, server.wrap(accepted, deadline_s) as wrapped:
                assert wrapped.gettimeout() == LIMIT_S
                wrapped.recv(1)
                wrapped.sendall(b"!")
                seen = look(wrapped)
                with suppress(OSError):
                    wrapped.unwrap()
            assert met.result(LIMIT_S) == b"!"
            return seen
        finally:
            with suppress(OSError):
                met.result(LIMIT_S)
            near.close()


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_a_known_client_is_served_with_the_profile(server: ServerTls, scanner: Pair, version: ssl.TLSVersion) -> None:
    """S4: TLS 1.2 and 1.3 with authenticated encryption and forward secrecy, no compression."""
    spoken, cipher, compression = meet(
        server,
        greets(lax_context(scanner, version)),
        look=lambda wrapped: (wrapped.version(), wrapped.cipher()[0], wrapped.compression()),
    )
    assert spoken == {TLS_1_2: "TLSv1.2", TLS_1_3: "TLSv1.3"}[version]
    assert cipher in CIPHER_SUITES or cipher.startswith("TLS_")
    assert compression is None


def test_tls_1_3_is_preferred(server: ServerTls, scanner: Pair) -> None:
    """S4: a client that can both gets 1.3."""
    assert meet(server, greets(lax_context(scanner)), look=ssl.SSLSocket.version) == "TLSv1.3"


def distrusts(connection: socket.socket) -> None:
    """A client that does not know the node's authority."""
    ssl.create_default_context().wrap_socket(connection, server_hostname="node.test").close()


def hostile(authority: Authority, scanner: Pair) -> dict[str, tuple[Client, Reason]]:
    foreign = Authority(authority.folder, "Foreign Authority").issue("foreign", cn="CT 1", dns=["ct1.test"])
    expired = authority.issue("expired", cn="CT 1", dns=["ct1.test"], days=(-30, -1))
    future = authority.issue("future", cn="CT 1", dns=["ct1.test"], days=(1, 30))
    weak = authority.issue("weak", cn="CT 1", dns=["ct1.test"], secret=weak_key())
    other = authority.issue("other", cn="CT 1", dns=["ct1.test"], purposes=[ExtendedKeyUsageOID.SERVER_AUTH])
    cbc = "ECDHE+AES+SHA:AES128-SHA:AES256-SHA256"
    return {
        "no certificate, TLS 1.2": (greets(lax_context(version=TLS_1_2)), Reason.NO_CERTIFICATE),
        "no certificate, TLS 1.3": (greets(lax_context(version=TLS_1_3)), Reason.NO_CERTIFICATE),
        "foreign authority": (greets(lax_context(foreign)), Reason.UNKNOWN_AUTHORITY),
        "foreign authority, TLS 1.2": (greets(lax_context(foreign, TLS_1_2)), Reason.UNKNOWN_AUTHORITY),
        "expired": (greets(lax_context(expired)), Reason.EXPIRED),
        "not valid yet": (greets(lax_context(future)), Reason.EXPIRED),
        "weak key": (greets(lax_context(weak)), Reason.BAD_CERTIFICATE),
        "for servers only": (greets(lax_context(other)), Reason.BAD_CERTIFICATE),
        "TLS 1.1": (greets(lax_context(scanner, TLS_1_1)), Reason.OLD_PROTOCOL),
        "TLS 1.0": (greets(lax_context(scanner, TLS_1_0)), Reason.OLD_PROTOCOL),
        "CBC only": (greets(lax_context(scanner, TLS_1_2, cbc)), Reason.NO_CIPHER),
        "does not trust us": (distrusts, Reason.REFUSED_BY_PEER),
        "plain DICOM": (says(ASSOCIATE_RQ), Reason.PLAIN_TEXT),
        "plain HTTP": (says(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Reason.PLAIN_TEXT),
        "broken ClientHello": (says(b"\x16\x03\x01\x00\x20\x01\x00\x00\x1c\x03\x03" + bytes(26)), Reason.MALFORMED),
        "hangs up": (leaves, Reason.LOST),
    }


HOSTILE = (
    "no certificate, TLS 1.2",
    "no certificate, TLS 1.3",
    "foreign authority",
    "foreign authority, TLS 1.2",
    "expired",
    "not valid yet",
    "weak key",
    "for servers only",
    "TLS 1.1",
    "TLS 1.0",
    "CBC only",
    "does not trust us",
    "plain DICOM",
    "plain HTTP",
    "broken ClientHello",
    "hangs up",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_whoever_is_not_entitled_gets_no_connection(
    server: ServerTls, authority: Authority, scanner: Pair, name: str
) -> None:
    """S4: each wrong handshake ends with its reason, at once, and the next client is served."""
    client, reason = hostile(authority, scanner)[name]
    with pytest.raises(HandshakeFailed) as caught:
        meet(server, client)
    assert caught.value.reason is reason
    meet(server, greets(lax_context(scanner)))


@pytest.mark.parametrize("client", [silent, drips(0.2)], ids=["silent", "drips"])
def test_the_deadline_counts_for_the_whole_handshake(server: ServerTls, client: Client) -> None:
    """S3: a byte now and then does not buy time; the socket is closed when wrap returns."""
    started = time.monotonic()
    with pytest.raises(HandshakeFailed) as caught:
        meet(server, client, deadline_s=1.0)
    assert caught.value.reason is Reason.LATE
    assert 0.9 < time.monotonic() - started < LIMIT_S


def test_stalled_handshakes_hold_nobody_else(server: ServerTls, scanner: Pair) -> None:
    """S3: ten stalled handshakes; another client is served while they wait, and each can be ended from outside."""
    with socket.create_server(("127.0.0.1", 0), backlog=32) as listener, ThreadPoolExecutor(10) as waiting:
        address, stalled, taken = listener.getsockname(), [], []
        for _ in range(10):
            stalled.append(socket.create_connection(address))
            accepted, _ = listener.accept()
            waiting.submit(server.wrap, accepted, 600.0)
            taken.append(accepted)
        meet(server, greets(lax_context(scanner)))
        assert all(not _is_closed(each) for each in stalled)
        for each in taken:
            each.shutdown(socket.SHUT_RDWR)
        waiting.shutdown()
        for each in (*stalled, *taken):
            each.close()


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


def test_identities_are_those_of_the_verified_certificate(server: ServerTls, scanner: Pair) -> None:
    """S5: alternative names in canonical form, the subject's name as the last resort, the fingerprint."""
    expected = {"dns:ct1.test", "ip:10.0.0.7", "ip:::1", "uri:urn:uuid:1-2", "cn:CT 1", scanner.sha256}
    assert meet(server, greets(lax_context(scanner)), look=identities) == expected


def test_without_a_client_certificate_there_is_no_identity(authority: Authority, node: Pair, scanner: Pair) -> None:
    """S5: where none is required none counts, not even one that is shown."""
    open_to_all = ServerTls(settings(authority, node, ca=None, client_certificate="none"))
    assert meet(open_to_all, greets(lax_context()), look=identities) == frozenset()
    assert meet(open_to_all, greets(lax_context(scanner)), look=identities) == frozenset()


def test_an_intermediate_authority_is_enough(authority: Authority, node: Pair) -> None:
    """S4: a chain through an intermediate, and an intermediate that is trusted by itself."""
    between = Authority(authority.folder, "Between", parent=authority)
    far = between.issue("far", cn="far")
    meet(ServerTls(settings(authority, node)), greets(lax_context(far)))
    meet(ServerTls(settings(authority, node, ca=between.ca)), greets(lax_context(far)))


def clock(monkeypatch: pytest.MonkeyPatch, **now: Callable[[], float]) -> None:
    """The listener's own clocks; OpenSSL has the machine's."""
    monkeypatch.setattr(receive_tls, "time", SimpleNamespace(**{"time": time.time, "monotonic": time.monotonic, **now}))


def test_an_expired_client_cannot_take_up_its_session_again(
    authority: Authority, node: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S4: TLS 1.2 resumes a session without the certificate; its end still counts."""
    server = ServerTls(settings(authority, node))
    brief = authority.issue("brief", days=(-1, 1))
    session: list[ssl.SSLSession] = []
    client = greets(lax_context(brief, TLS_1_2), session)
    assert meet(server, client, look=lambda wrapped: wrapped.session_reused) is False
    clock(monkeypatch, time=lambda: time.time() + 2 * 86_400)
    with pytest.raises(HandshakeFailed) as caught:
        meet(server, client)
    assert caught.value.reason is Reason.EXPIRED


class Renewals:
    """A server whose files are replaced, and what it tells of that."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.node = self.authority.issue("node", cn="first", ip=["127.0.0.1"])
        self.scanner = self.authority.issue("scanner", cn="CT 1")
        self.told: queue.Queue[Reload] = queue.Queue()
        self.server = ServerTls(settings(self.authority, self.node), self.told.put)

    def subject(self) -> str:
        """The Common Name of the certificate that the server shows now."""
        context = lax_context(self.scanner)
        seen: list[bytes] = []

        def client(connection: socket.socket) -> bytes:
            with context.wrap_socket(connection) as wrapped:
                seen.append(wrapped.getpeercert(binary_form=True) or b"")
                wrapped.sendall(b"?")
                return wrapped.recv(1)

        meet(self.server, client)
        return next(name for name, pair in self.known.items() if _der(pair) == seen[0])

    @property
    def known(self) -> dict[str, Pair]:
        return {"first": self.node, **getattr(self, "later", {})}

    def renew(self, cn: str, **how) -> None:
        self.later = {**getattr(self, "later", {}), cn: self.authority.issue("node", cn=cn, **how)}


def _der(pair: Pair) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return pair.certificate.public_bytes(Encoding.DER)


@pytest.fixture
def renewals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Renewals:
    monkeypatch.setattr(receive_tls, "LOOK_S", 0.0)
    return Renewals(tmp_path)


def test_new_files_count_for_the_next_handshake(renewals: Renewals) -> None:
    """Hot reload: a certificate that is renewed is shown without a restart, and told once."""
    assert renewals.subject() == "first"
    renewals.renew("second")
    assert renewals.subject() == "second"
    assert renewals.subject() == "second"
    assert [renewals.told.get_nowait() for _ in range(renewals.told.qsize())] == [Reload()]


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda node: node.cert.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n"), "no PEM file"),
        (lambda node: node.key.unlink(), "cannot be read"),
        (lambda node: node.key.chmod(0o644), "open to others"),
    ],
    ids=["broken certificate", "key gone", "key open to others"],
)
def test_files_that_cannot_be_used_leave_the_old_ones(renewals: Renewals, spoil: Callable, fault: str) -> None:
    """Hot reload: a broken new file is told and the node goes on; the next good one counts."""
    spoil(renewals.node)
    assert renewals.subject() == "first"
    assert fault in renewals.told.get_nowait().fault
    assert renewals.subject() == "first"
    assert renewals.told.empty()
    renewals.renew("third")
    assert renewals.subject() == "third"
    assert renewals.told.get_nowait() == Reload()


def test_a_certificate_before_its_key_changes_nothing_yet(renewals: Renewals) -> None:
    """Hot reload: the two files come one after the other; in between the old pair is in use."""
    old_key = renewals.node.key.read_bytes()
    renewals.renew("second")
    new_key = renewals.node.key.read_bytes()
    renewals.node.key.write_bytes(old_key)
    assert renewals.subject() == "first"
    assert "not that of the certificate" in renewals.told.get_nowait().fault
    renewals.node.key.write_bytes(new_key)
    assert renewals.subject() == "second"


def test_an_authority_that_is_taken_away_counts_no_more(renewals: Renewals) -> None:
    """Hot reload, S4: clients of an authority that left the file are refused, those of the new one are served."""
    assert renewals.subject() == "first"
    foreign = Authority(renewals.authority.folder / "other", "Other Authority")
    renewals.authority.ca.write_bytes(foreign.ca.read_bytes())
    with pytest.raises(HandshakeFailed) as caught:
        meet(renewals.server, greets(lax_context(renewals.scanner)))
    assert caught.value.reason is Reason.UNKNOWN_AUTHORITY
    meet(renewals.server, greets(lax_context(foreign.issue("new"))))


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_a_revoked_client_is_refused_and_the_others_are_served(
    authority: Authority, node: Pair, scanner: Pair, version: ssl.TLSVersion
) -> None:
    """S4: a certificate on the list of its authority counts no more."""
    gone = authority.issue("gone", cn="CT 2")
    server = ServerTls(settings(authority, node, crl=authority.revoke(gone)))
    meet(server, greets(lax_context(scanner, version)))
    with pytest.raises(HandshakeFailed) as caught:
        meet(server, greets(lax_context(gone, version)))
    assert caught.value.reason is Reason.REVOKED


@pytest.mark.parametrize("days", [(-8, -1 / 24), (1, 7)], ids=["over", "of tomorrow"])
def test_a_list_that_is_not_valid_now_lets_nobody_in(authority: Authority, node: Pair, scanner: Pair, days) -> None:
    """S4: who keeps an old list from being renewed cannot keep a revoked device in."""
    server = ServerTls(settings(authority, node, crl=authority.revoke(days=days)))
    with pytest.raises(HandshakeFailed) as caught:
        meet(server, greets(lax_context(scanner)))
    assert caught.value.reason is Reason.NO_REVOCATION_LIST


def test_a_list_of_another_authority_is_none(authority: Authority, node: Pair, scanner: Pair, tmp_path: Path) -> None:
    """S4: neither a foreign list nor one that is signed by somebody else says anything of our clients."""
    foreign = Authority(tmp_path, "Foreign Authority")
    forged = Authority(tmp_path, authority.name)
    for crl in (foreign.revoke(), forged.revoke(file="forged")):
        with pytest.raises(HandshakeFailed) as caught:
            meet(ServerTls(settings(authority, node, crl=crl)), greets(lax_context(scanner)))
        assert caught.value.reason is Reason.NO_REVOCATION_LIST


def test_a_new_list_counts_for_the_next_handshake(renewals: Renewals) -> None:
    """S4, hot reload: a device is shut out without a restart, also one that would take up its TLS 1.2 session again."""
    authority, scanner = renewals.authority, renewals.scanner
    server = ServerTls(settings(authority, renewals.node, crl=authority.revoke()), renewals.told.put)
    session: list[ssl.SSLSession] = []
    client = greets(lax_context(scanner, TLS_1_2), session)
    meet(server, client)
    assert meet(server, client, look=lambda wrapped: wrapped.session_reused) is True
    authority.revoke(scanner)
    with pytest.raises(HandshakeFailed) as caught:
        meet(server, client)
    assert caught.value.reason is Reason.REVOKED
    assert renewals.told.get_nowait() == Reload()
    (authority.folder / "revoked.crl").write_bytes(b"half a")
    with pytest.raises(HandshakeFailed):
        meet(server, client)
    assert "revocation list" in renewals.told.get_nowait().fault


def test_what_is_no_list_stops_the_start(authority: Authority, node: Pair, tmp_path: Path) -> None:
    """S4: above all a file of certificates, which would make their owners authorities."""
    empty = tmp_path / "empty.crl"
    empty.write_text("nothing")
    other = Authority(tmp_path, "Other").ca
    for crl, said in ((empty, "no certificate or revocation list"), (authority.ca, "no PEM"), (other, "into ca")):
        with pytest.raises(ConfigError, match=said):
            ServerTls(settings(authority, node, crl=crl))
    with pytest.raises(ConfigError, match="cannot be read"):
        ServerTls(settings(authority, node, crl=tmp_path / "missing.crl"))
    both = tmp_path / "both.crl"
    both.write_bytes(authority.revoke().read_bytes() + other.read_bytes())
    with pytest.raises(ConfigError, match="belong into ca"):
        ServerTls(settings(authority, node, crl=both))


def test_renewals_under_load_fail_no_handshake(renewals: Renewals) -> None:
    """Hot reload: four clients without a pause, twenty renewals meanwhile; every handshake ends well."""
    done, failures, served = threading.Event(), [], []

    def visit() -> None:
        while not done.is_set():
            try:
                meet(renewals.server, greets(lax_context(renewals.scanner)))
                served.append(1)
            except (HandshakeFailed, OSError) as error:
                failures.append(error)

    visitors = [threading.Thread(target=visit) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    try:
        for number in range(20):
            before = len(served)
            renewals.renew(f"renewal {number}")
            until = time.monotonic() + LIMIT_S
            while len(served) < before + 3 and not failures and time.monotonic() < until:
                time.sleep(0.005)
    finally:
        done.set()
        for visitor in visitors:
            visitor.join(60)
    assert failures == []
    assert len(served) >= 60
    assert renewals.subject() == "renewal 19"


def test_files_are_looked_at_once_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hot reload costs a handshake nothing: within a second nothing is looked at."""
    now = [50.0]
    clock(monkeypatch, monotonic=lambda: now[0])
    renewals = Renewals(tmp_path)
    renewals.renew("second")
    now[0] += 0.99
    assert renewals.subject() == "first"
    now[0] += 0.01
    assert renewals.subject() == "second"


FAULTY = {
    "certificate missing": (lambda node: node.cert.unlink(), "cannot be read"),
    "key missing": (lambda node: node.key.unlink(), "cannot be read"),
    "key open to others": (lambda node: node.key.chmod(0o604), "open to others"),
    "key open to the group": (lambda node: node.key.chmod(0o640), "open to others"),
    "key of another user": (lambda node: os.chown(node.key, 12345, -1), "its owner has to be"),
    "no certificate in the file": (lambda node: node.cert.write_text("hello"), "no PEM file"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_files_that_cannot_be_used_stop_the_start(tmp_path: Path, name: str) -> None:
    """S18: a key that others can read stops the start, and so does every file that cannot be used."""
    spoil, said = FAULTY[name]
    authority = Authority(tmp_path)
    node = authority.issue("node")
    if name == "key of another user" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    spoil(node)
    with pytest.raises(ConfigError, match=said):
        ServerTls(settings(authority, node))


def test_a_key_that_is_not_the_certificates_stops_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    node, other = authority.issue("node"), authority.issue("other")
    with pytest.raises(ConfigError, match="not that of the certificate"):
        ServerTls(settings(authority, node, key=other.key))


def test_a_weak_certificate_stops_the_start(tmp_path: Path) -> None:
    """S4: RSA below 2048 bits is below the profile on our side too."""
    authority = Authority(tmp_path)
    node = authority.issue("node", secret=weak_key())
    with pytest.raises(ConfigError, match="too short"):
        ServerTls(settings(authority, node))


def test_the_password_of_a_key_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S18: never from the configuration, never from the terminal; a file of it that is open stops the start."""
    authority = Authority(tmp_path)
    node = authority.issue("node", password=b"correct horse")
    scanner = authority.issue("scanner")
    with pytest.raises(ConfigError, match="password"):
        ServerTls(settings(authority, node))
    secret = tmp_path / "password"
    secret.write_bytes(b"correct horse\n")
    secret.chmod(0o600)
    meet(ServerTls(settings(authority, node, key_password_file=secret)), greets(lax_context(scanner)))
    monkeypatch.setenv("NODE_KEY", "correct horse")
    meet(ServerTls(settings(authority, node, key_password_env="NODE_KEY")), greets(lax_context(scanner)))
    monkeypatch.setenv("NODE_KEY", "battery staple")
    with pytest.raises(ConfigError, match="password"):
        ServerTls(settings(authority, node, key_password_env="NODE_KEY"))
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="open to others"):
        ServerTls(settings(authority, node, key_password_file=secret))
