"""Where the node opens connections to, and how: configured peers only, TLS after BCP 195, renewed files at once."""

from __future__ import annotations

import ast
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select

from dicomnode.assemble import finding
from dicomnode.assemble.asking import ask_sender
from dicomnode.assemble.evidence import Evidence
from dicomnode.assemble.judge import SeriesFacts
from dicomnode.config import Config, Peer, StowPeer
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.scu import echo
from dicomnode.deliver.stow import store_instances
from dicomnode.deliver.web import get
from dicomnode.errors import Transient
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.tables import JobRow, SeriesRow, StudyRow
from tests.certificates import Authority, Pair, weak_key
from tests.integration.deliver_fixtures import FakePacs
from tests.integration.stow_fixtures import Reply, StowServer
from tests.integration.test_deliver_stow import outbound
from tests.tls_clients import TLS_1_1, TLS_1_2, TLS_1_3, only

PATIENT = SendLimits(connect_s=60.0, acse_s=60.0, dimse_s=60.0, stall_s=60.0, slowest_bytes_s=1e9)
TOKEN = "sEcReT-bearer-token.0123456789"
PACKAGE = Path(__file__).parents[2] / "dicomnode"


@contextmanager
def tripwire() -> Iterator[tuple[int, list[object]]]:
    """A port that nobody may connect to; yields it and who did."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caught: list[object] = []

        def watch() -> None:
            with suppress(OSError):
                while True:
                    connection, address = listener.accept()
                    caught.append(address)
                    connection.close()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield listener.getsockname()[1], caught
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            watcher.join(60)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pacs_pair(authority: Authority) -> Pair:
    return authority.issue("pacs", cn="pacs", ip=["127.0.0.1"])


def server_side(pair: Pair, version: ssl.TLSVersion | None = None, ca: Path | None = None) -> ssl.SSLContext:
    """A lax server: whatever is refused is refused by the node. ``ca``: it asks for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(pair.cert, pair.key)
    if version is not None:
        only(context, version)
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(tmp_path: Path, authority: Authority, pacs_pair: Pair, status: int) -> None:
    """S22: neither a result nor the token nor a question goes where an answer points to."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with tripwire() as (port, caught):
        away = Reply(status, headers={"Location": f"http://127.0.0.1:{port}/dicom-web/studies"})
        with StowServer(lambda *_: away, tls=server_side(pacs_pair)) as server:
            peer = server.peer(tls={"ca": authority.ca}, token_file=token)
            (sent,) = store_instances(peer, [outbound(tmp_path / "1.dcm")], PATIENT)
            answer = get(peer, "/studies?limit=1", PATIENT)
    assert sent.reason.startswith(f"HTTP {status}")
    assert not sent.accepted
    assert answer.status == status
    assert caught == []


def test_nothing_of_the_environment_turns_a_request_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S22: no proxy and no .netrc of the environment is used."""
    with tripwire() as (port, caught):
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password secret-of-netrc\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        with StowServer() as server:
            assert get(server.peer(), "/studies?limit=1", PATIENT).status == 200
    assert caught == []
    assert "Authorization" not in server.requests[0][2]


def test_no_session_key_is_written_for_the_environment(
    tmp_path: Path, authority: Authority, pacs_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S22: SSLKEYLOGFILE, which opens TLS to whoever can read that file, is not honoured."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with StowServer(tls=server_side(pacs_pair)) as server:
        assert get(server.peer(tls={"ca": authority.ca}), "/studies?limit=1", PATIENT).status == 200
    assert not (tmp_path / "keys").exists()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(f"sqlite:///{tmp_path / 'node.sqlite3'}")
    migrate(made)
    with made.write() as session:
        session.add(StudyRow(StudyInstanceUID="1.2.3", created_at=0))
        session.flush()
        row = SeriesRow(
            study_id=1, SeriesInstanceUID="1.2.3.1", CallingAETitle="EVIL", first_received_at=1, last_received_at=1
        )
        session.add(row)
    return made


def test_a_sender_that_is_no_peer_is_not_asked(store: Store) -> None:
    """S22: C-FIND goes to configured peers only, however the Instances came in."""
    config = Config.model_validate({"receive": {"accept_unknown_peers": True}})
    with store.read() as session:
        series = session.scalars(select(SeriesRow)).one()
    none = Evidence(1)
    facts = SeriesFacts(none, 1, 1.0, "released", 1.0, False, False, 1, 0.0)
    assert ask_sender(store, config, series, facts, now=time.time()) is False
    with store.read() as session:
        assert session.scalar(select(func.count()).select_from(JobRow)) == 0


OPENERS = {"create_connection", "associate", "HTTPConnection", "HTTPSConnection", "connect", "connect_ex", "sendto"}
NETWORK = {"urllib.request", "urllib3", "requests", "httpx", "ftplib", "smtplib", "telnetlib", "poplib", "imaplib"}
ALLOWED = {"deliver/association.py", "deliver/web.py", "assemble/finding.py", "audit/syslog.py"}
"""Modules that open connections: C-STORE, C-ECHO and N-ACTION; STOW-RS; C-FIND, each to a ``Peer``; the log server."""
TO_THE_DATABASE = {"engine", "sqlite3", "self.engine"}
"""``connect`` of these is no network."""


def _opens(text: str) -> bool:
    if not any(word in text for word in OPENERS | NETWORK):
        return False
    for node in ast.walk(ast.parse(text)):
        called = node.func if isinstance(node, ast.Call) else None
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        of = ast.unparse(called.value) if isinstance(called, ast.Attribute) else ""
        if name in OPENERS and not (name == "connect" and of.removeprefix("store.") in TO_THE_DATABASE):
            return True
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if NETWORK & set(names):
            return True
    return False


def test_only_four_modules_open_connections() -> None:
    """S22: a new way out of the node has to be added here, and so be seen."""
    sources = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert {name for name, text in sources.items() if _opens(text)} == ALLOWED


HOSTILE_SERVERS = {
    "TLS 1.1": ({"version": TLS_1_1}, {}, "TLS: "),
    "foreign authority": ({}, {"foreign": True}, "TLS: the certificate of the peer is not valid"),
    "expired": ({}, {"days": (-30, -1)}, "TLS: the certificate of the peer is not valid: certificate has expired"),
    "another name": ({}, {"ip": ["127.0.0.2"]}, "TLS: the certificate of the peer is not valid"),
    "no name but the subject's": ({}, {"ip": [], "cn": "127.0.0.1"}, "TLS: the certificate of the peer is not valid"),
    "weak key": ({}, {"secret": weak_key()}, "TLS: the certificate of the peer is not valid"),
}


@pytest.mark.parametrize("name", HOSTILE_SERVERS)
def test_nothing_is_sent_to_whom_cannot_prove_who_it_is(authority: Authority, name: str) -> None:
    """S22, S4: the profile and the peer's name hold outbound too, for DIMSE and for STOW-RS."""
    context, how, said = HOSTILE_SERVERS[name]
    how = {"ip": ["127.0.0.1"], "cn": "pacs", **how}
    issuer = Authority(authority.folder, "Foreign Authority") if how.pop("foreign", False) else authority
    pair = issuer.issue("hostile", **how)
    with FakePacs(tls=server_side(pair, **context)) as pacs:
        answer = echo(pacs.peer(tls={"ca": authority.ca}), "NODE", PATIENT)
    assert not answer.ok
    assert answer.reason.startswith(said)
    with StowServer(tls=server_side(pair, **context)) as server, pytest.raises(Transient, match=said):
        get(server.peer(tls={"ca": authority.ca}), "/studies?limit=1", PATIENT)
    assert server.requests == []


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_both_versions_of_the_profile_are_spoken(
    authority: Authority, pacs_pair: Pair, version: ssl.TLSVersion
) -> None:
    """S4: outbound with mutual TLS, over 1.2 and over 1.3."""
    node = authority.issue("client")
    files = {"ca": authority.ca, "cert": node.cert, "key": node.key}
    with FakePacs(tls=server_side(pacs_pair, version, authority.ca)) as pacs:
        assert echo(pacs.peer(tls=files), "NODE", PATIENT).ok
        assert not echo(pacs.peer(tls={"ca": authority.ca}), "NODE", PATIENT).ok


def test_renewed_files_count_for_the_next_association(tmp_path: Path, pacs_pair: Pair) -> None:
    """Hot reload outbound: an expired client certificate is renewed under a running sender; an encrypted key works."""
    authority = Authority(tmp_path)
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    password.chmod(0o600)
    pacs_own = authority.issue("pacs", ip=["127.0.0.1"])
    node = authority.issue("client", days=(-30, -1), password=b"correct horse")
    files = {"ca": authority.ca, "cert": node.cert, "key": node.key, "key_password_file": password}
    with FakePacs(tls=server_side(pacs_own, ca=authority.ca)) as pacs:
        peer = pacs.peer(tls=files)
        assert not echo(peer, "NODE", PATIENT).ok
        authority.issue("client", password=b"correct horse")
        assert echo(peer, "NODE", PATIENT).ok


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644])
def test_a_key_that_others_can_read_is_not_used(
    tmp_path: Path, authority: Authority, pacs_pair: Pair, mode: int
) -> None:
    """S18: neither by an association nor by STOW-RS; the reason says what to do."""
    node = authority.issue("client")
    key = tmp_path / "open.key"
    key.write_bytes(node.key.read_bytes())
    key.chmod(mode)
    files = {"ca": authority.ca, "cert": node.cert, "key": key}
    with FakePacs(tls=server_side(pacs_pair)) as pacs:
        answer = echo(pacs.peer(tls=files), "NODE", PATIENT)
    assert not answer.ok
    assert "its mode has to be 0600" in answer.reason
    peer = StowPeer(name="p", stow="https://127.0.0.1:1/", tls=files)
    with pytest.raises(Transient, match="its mode has to be 0600"):
        get(peer, "/studies", PATIENT)


def test_a_find_over_tls_goes_by_the_same_profile(authority: Authority, pacs_pair: Pair) -> None:
    """S22: C-FIND does not fall back to plain text, nor to a peer that cannot prove who it is."""
    with tripwire() as (port, caught):
        peer = Peer(name="p", ae_title="P", host="127.0.0.1", port=port, tls={"ca": authority.ca})
        assert finding.count_by_find("NODE", peer, finding.Counted("1.2", "1.3")) is None
        until = time.monotonic() + 60
        while not caught and time.monotonic() < until:
            time.sleep(0.01)
    assert len(caught) == 1


LISTS = {
    "clean": (lambda own, _: own.authority.revoke(file="clean"), ""),
    "revoked": (lambda own, _: own.authority.revoke(own.pair, file="gone"), "revoked"),
    "over": (lambda own, _: own.authority.revoke(days=(-8, -1 / 24), file="over"), "CRL has expired"),
    "foreign": (lambda _, folder: Authority(folder, "Foreign Authority").revoke(), "unable to get certificate CRL"),
}


@dataclass(frozen=True)
class Own:
    """The archive's certificate and its authority."""

    authority: Authority
    pair: Pair


@pytest.mark.parametrize("name", LISTS)
def test_a_revoked_archive_gets_nothing(tmp_path: Path, authority: Authority, pacs_pair: Pair, name: str) -> None:
    """S4, S22: the certificate of a peer is looked up on its authority's list, for DIMSE and for STOW-RS."""
    make, reason = LISTS[name]
    files = {"ca": authority.ca, "crl": make(Own(authority, pacs_pair), tmp_path)}
    with FakePacs(tls=server_side(pacs_pair)) as pacs:
        answer = echo(pacs.peer(tls=files), "NODE", PATIENT)
    assert (answer.ok, reason in answer.reason) == (not reason, True)
    with StowServer(tls=server_side(pacs_pair)) as server:
        if not reason:
            assert get(server.peer(tls=files), "/studies?limit=1", PATIENT).status == 200
            return
        with pytest.raises(Transient, match=reason):
            get(server.peer(tls=files), "/studies?limit=1", PATIENT)


def test_a_new_list_counts_for_the_next_connection(tmp_path: Path) -> None:
    """S4: what is revoked while the node runs gets nothing any more; a list that is none is told."""
    authority = Authority(tmp_path)
    pair, crl = authority.issue("pacs", ip=["127.0.0.1"]), authority.revoke()
    with FakePacs(tls=server_side(pair)) as pacs:
        peer = pacs.peer(tls={"ca": authority.ca, "crl": crl})
        assert echo(peer, "NODE", PATIENT).ok
        assert authority.revoke(pair) == crl
        assert "revoked" in echo(peer, "NODE", PATIENT).reason
        crl.write_bytes(authority.ca.read_bytes())
        assert "cannot be used: crl: " in echo(peer, "NODE", PATIENT).reason
