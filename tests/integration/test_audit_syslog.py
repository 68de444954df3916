"""The copy of the log at an audit record repository: syslog over TLS to a server that speaks the protocol."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from sqlalchemy import select

from dicomnode.audit import AuditFilter, append, find
from dicomnode.audit.events import Event
from dicomnode.audit.ship import BATCH, Shipment, behind, ship
from dicomnode.audit.syslog import SyslogMessage, SyslogSender, framed
from dicomnode.config import Config, parse_config
from dicomnode.dicom.tls import client_context, server_context
from dicomnode.errors import ConfigError, Transient
from dicomnode.node.shipping import FIRST_PAUSE_S, Shipping
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.tables import AuditShippedRow
from tests.certificates import Authority
from tests.unit.audit_fixtures import intruder

HEADER = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) dicomnode (\d+) ([!-~]{1,32}) - "
    rb"\xef\xbb\xbf(.*)",
    re.DOTALL,
)
"""RFC 5424 6, with NILVALUE for structured data and the mark before UTF-8."""


@dataclass
class Repository:
    """An audit record repository: RFC 5425, strict about frames. ``mood`` says how it takes the next connection."""

    context: ssl.SSLContext
    mood: Callable[[Repository, ssl.SSLSocket], None] | None = None
    messages: list[bytes] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            plain.settimeout(60)
            with plain, contextlib.suppress(OSError), self.context.wrap_socket(plain, server_side=True) as connection:
                (self.mood or Repository.obliging)(self, connection)

    def obliging(self, connection: ssl.SSLSocket) -> None:
        """Reads to the end, keeps everything, says goodbye."""
        self.messages += self.read(connection)
        connection.unwrap()

    def curt(self, connection: ssl.SSLSocket) -> None:
        """Reads to the end and ends the connection without a close_notify, as some servers do."""
        self.messages += self.read(connection)

    def dying(self, connection: ssl.SSLSocket) -> None:
        """Dies with something unread: the kernel resets the connection."""
        connection.recv(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def read(self, connection: ssl.SSLSocket) -> list[bytes]:
        content = b""
        while part := connection.recv(65536):
            content += part
        found = []
        while content:
            length, space, rest = content.partition(b" ")
            assert space
            assert length.isdigit()
            assert not length.startswith(b"0")
            assert len(rest) >= int(length)
            found.append(rest[: int(length)])
            content = rest[int(length) :]
        return found

    def texts(self) -> list[str]:
        parsed = [HEADER.fullmatch(message) for message in self.messages]
        assert all(parsed)
        return [match[6].decode() for match in parsed if match]

    def rows(self) -> list[int]:
        """The numbers of the audit rows that came, in the order in which they came."""
        found = []
        for text in self.texts():
            for one in fromstring(text).findall("ParticipantObjectIdentification"):
                kind = one.find("ParticipantObjectIDTypeCode")
                if kind is not None and kind.get("csd-code") == "audit-row":
                    found.append(int(one.get("ParticipantObjectID", "0")))
        return found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> dict[str, Path]:
    server = authority.issue("server", ip=("127.0.0.1",))
    client = authority.issue("client", dns=("node.example.org",))
    return {"ca": authority.ca, "cert": server.cert, "key": server.key, "own": client.cert, "own_key": client.key}


@pytest.fixture
def repository(files: dict[str, Path]) -> Iterator[Repository]:
    made = Repository(server_context(files["cert"], files["key"], None, files["ca"]))
    yield made
    made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()
    made.thread.join(60)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/x.sqlite3")
    migrate(made)
    yield made
    made.close()


def sender(repository: Repository, files: dict[str, Path]) -> SyslogSender:
    context = client_context(files["ca"], files["own"], files["own_key"], None)
    return SyslogSender("127.0.0.1", repository.port, context, 60.0, "node 1.example.org")


def shipment(repository: Repository, files: dict[str, Path], *, images: bool = False) -> Shipment:
    return Shipment(sender(repository, files), f"127.0.0.1:{repository.port}", "NODE", "node", images, 100.0)


def fill(store: Store, count: int, event: Event = Event.DELIVERED) -> None:
    with store.write() as session:
        for number in range(count):
            append(session, event, {"PatientID": f"P{number}", "StudyInstanceUID": f"1.2.{number}", "peer": "pacs"})


def behind_of(store: Store, repository: Repository) -> int:
    with store.read() as session:
        return behind(session, f"127.0.0.1:{repository.port}").rows


def test_a_message_is_of_rfc_5424_and_framed_by_rfc_5425(repository: Repository, files: dict[str, Path]) -> None:
    """PS3.15 A.6: PRI 85, version 1, MSGID DICOM+RFC3881, UTF-8 behind its mark, MSG-LEN in octets."""
    at = datetime(2026, 1, 1, 10, 0, 0, 5, UTC)
    sender(repository, files).send([SyslogMessage("<a>Ünal</a>", at), SyslogMessage("b", at, "checkpoint", 4)])
    wait_for(lambda: len(repository.messages) == 2)
    first, second = (HEADER.fullmatch(message) for message in repository.messages)
    assert first is not None
    assert second is not None
    assert (first[1], first[2], first[3]) == (b"85", b"2026-01-01T10:00:00.000005Z", b"node_1.example.org")
    assert (first[5], first[6].decode()) == (b"DICOM+RFC3881", "<a>Ünal</a>")
    assert (second[1], second[5]) == (b"84", b"checkpoint")
    assert framed("ä".encode()) == b"2 \xc3\xa4"


def wait_for(holds: Callable[[], bool]) -> None:
    until = threading.Event()
    for _ in range(6000):
        if holds():
            return
        until.wait(0.01)
    raise AssertionError("it did not come to that")


def test_every_row_arrives_once_and_in_order(store: Store, repository: Repository, files: dict[str, Path]) -> None:
    """More rows than one connection takes; the position is kept in the database."""
    fill(store, BATCH + 70)
    assert ship(store, shipment(repository, files), 1.0) == BATCH + 70
    wait_for(lambda: len(repository.messages) == BATCH + 70)
    assert repository.rows() == list(range(1, BATCH + 71))
    assert repository.connections == 2
    assert ship(store, shipment(repository, files), 2.0) == 0
    fill(store, 1)
    assert ship(store, shipment(repository, files), 3.0) == 1
    wait_for(lambda: repository.rows()[-1] == BATCH + 71)
    assert behind_of(store, repository) == 0


def test_rows_of_single_images_go_only_where_that_is_asked_for(
    store: Store, repository: Repository, files: dict[str, Path]
) -> None:
    """Transfers are told by Study (PS3.15 A.5.3.7); the position moves over the rows of images all the same."""
    fill(store, 3, Event.INSTANCE_STORED)
    fill(store, 1, Event.INSTANCES_TRANSFERRED)
    assert ship(store, shipment(repository, files), 1.0) == 4
    wait_for(lambda: repository.rows() == [4])
    other = Shipment(sender(repository, files), "again", "NODE", "node", True, 100.0)
    assert ship(store, other, 1.0) == 4
    wait_for(lambda: repository.rows() == [4, 1, 2, 3, 4])


def test_a_server_that_ends_the_connection_after_reading_has_it(
    store: Store, repository: Repository, files: dict[str, Path]
) -> None:
    repository.mood = Repository.curt
    fill(store, 5)
    assert ship(store, shipment(repository, files), 1.0) == 5
    wait_for(lambda: repository.rows() == [1, 2, 3, 4, 5])


def test_after_an_outage_everything_is_sent_and_nothing_is_skipped(
    store: Store, repository: Repository, files: dict[str, Path]
) -> None:
    """R9 for the copy: a server that dies in the middle gets all of it again."""
    fill(store, 30)
    repository.mood = Repository.dying
    with pytest.raises(Transient, match="syslog server"):
        ship(store, shipment(repository, files), 10.0)
    assert behind_of(store, repository) == 30
    fill(store, 5)
    repository.mood = None
    assert ship(store, shipment(repository, files), 20.0) == 35
    wait_for(lambda: repository.rows() == list(range(1, 36)))
    with store.read() as session:
        assert session.scalars(select(AuditShippedRow)).one().failed_since is None


def test_a_long_outage_is_one_security_alert(store: Store, repository: Repository, files: dict[str, Path]) -> None:
    """An alert when behind, once for an outage; it is a row itself and is shipped when the server is back."""
    fill(store, 2)
    repository.mood = Repository.dying
    for now in (1000.0, 1050.0, 1100.0, 1200.0, 1300.0):
        with pytest.raises(Transient):
            ship(store, shipment(repository, files), now)
    with store.read() as session:
        alerts = list(find(session, AuditFilter(event="security alert")))
        late = behind(session, f"127.0.0.1:{repository.port}")
    assert [alert["body"]["shipped"] for alert in alerts] == [0]
    assert "not reached for 100 s" in alerts[0]["body"]["reason"]
    assert (late.rows, late.failed_since) == (3, 1000.0)
    repository.mood = None
    assert ship(store, shipment(repository, files), 1400.0) == 3


def test_rows_that_were_archived_before_they_were_sent_are_told(
    store: Store, repository: Repository, files: dict[str, Path]
) -> None:
    """No gap in silence: what left for an archive during an outage is an alert that names how many rows."""
    fill(store, 3)
    ship(store, shipment(repository, files), 1.0)
    fill(store, 7)
    with intruder(store) as connection:
        connection.execute("DELETE FROM audit WHERE seq <= 8")
    assert ship(store, shipment(repository, files), 2.0) == 7
    assert ship(store, shipment(repository, files), 3.0) == 1
    wait_for(lambda: repository.rows() == [1, 2, 3, 9, 10, 11])
    with store.read() as session:
        (alert,) = find(session, AuditFilter(event="security alert"))
    assert alert["body"]["reason"].startswith("5 audit rows were archived")


def test_a_server_that_shows_a_foreign_certificate_gets_nothing(
    store: Store, repository: Repository, files: dict[str, Path], tmp_path: Path
) -> None:
    """S4: the repository is authenticated before a row leaves."""
    stranger = Authority(tmp_path / "stranger", "Stranger").issue("server", ip=("127.0.0.1",))
    repository.context = server_context(stranger.cert, stranger.key, None, None)
    fill(store, 2)
    with pytest.raises(Transient, match="certificate is not accepted"):
        ship(store, shipment(repository, files), 1.0)
    assert repository.messages == []


def test_without_our_certificate_a_server_that_wants_one_takes_nothing(
    store: Store, repository: Repository, files: dict[str, Path]
) -> None:
    """Mutual TLS: TLS 1.3 tells a client late; what was written until then does not count as sent."""
    bare = SyslogSender("127.0.0.1", repository.port, client_context(files["ca"], None, None, None), 60.0)
    fill(store, 2)
    for _ in range(40):
        with pytest.raises(Transient, match="syslog server"):
            ship(store, Shipment(bare, "bare", "NODE", "node", False, 1e9), 1.0)
    assert repository.messages == []


def settings(repository: Repository, files: dict[str, Path]) -> Config:
    tls = f'tls = {{ ca = "{files["ca"]}", cert = "{files["own"]}", key = "{files["own_key"]}" }}'
    text = f'[audit.syslog]\nhost = "127.0.0.1"\nport = {repository.port}\ntimeout_s = 60.0\n{tls}\n'
    return parse_config(text, "test")[0]


def test_the_timer_waits_longer_after_each_failure_and_never_raises(
    store: Store, repository: Repository, files: dict[str, Path]
) -> None:
    clock = [0.0]
    timer = Shipping(settings(repository, files), store, lambda: 5.0, lambda: clock[0])
    fill(store, 3)
    repository.mood = Repository.dying
    assert timer.tick() == 0
    assert timer.tick() == 0
    assert repository.connections == 1, "it asks again before its pause is over"
    clock[0] = FIRST_PAUSE_S + 0.1
    assert timer.tick() == 0
    assert repository.connections == 2
    clock[0] += FIRST_PAUSE_S + 0.1
    assert timer.tick() == 0
    assert repository.connections == 2
    clock[0] += FIRST_PAUSE_S
    repository.mood = None
    assert timer.tick() == 3
    wait_for(lambda: repository.rows() == [1, 2, 3])


def test_a_node_without_a_repository_ships_nothing(store: Store) -> None:
    fill(store, 3)
    assert Shipping(parse_config("", "test")[0], store, lambda: 1.0).tick() == 0


def test_a_key_that_others_can_read_is_refused_at_start(
    repository: Repository, files: dict[str, Path], tmp_path: Path
) -> None:
    """S18."""
    from dicomnode.config import check_secrets

    open_key = tmp_path / "open.key"
    open_key.write_bytes(files["own_key"].read_bytes())
    open_key.chmod(0o644)
    text = (
        f'[audit.syslog]\nhost = "h"\ntls = {{ ca = "{files["ca"]}", cert = "{files["own"]}", key = "{open_key}" }}\n'
    )
    config, source = parse_config(text, "test")
    with pytest.raises(ConfigError, match="syslog"):
        check_secrets(config, source)


def test_the_timers_of_a_node_ship_by_themselves(
    store: Store, repository: Repository, files: dict[str, Path], tmp_path: Path
) -> None:
    """The node's own scheduler sends what is new; nobody has to call it."""
    from dicomnode.config import ConfigSource
    from dicomnode.node.build import Blueprint
    from dicomnode.node.checkpoints import Checkpoints
    from dicomnode.node.timers import start_timers
    from dicomnode.store.spool import Spool

    config = settings(repository, files)
    blueprint = Blueprint(config, ConfigSource("test", ""))
    fill(store, 3)
    timers = start_timers(blueprint, store, Spool(tmp_path / "spool"), Checkpoints(config, store), working=True)
    try:
        timers.all_due()
        wait_for(lambda: repository.rows()[:3] == [1, 2, 3])
    finally:
        timers.shutdown(wait=True)
