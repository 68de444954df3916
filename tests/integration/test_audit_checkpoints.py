"""Signed checkpoints at second places: what they prove, and what becomes of a place that fails (trust.md B7, B8)."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from dicomnode.audit import append, check_against, place, write_checkpoint
from dicomnode.audit.chain import canonical
from dicomnode.audit.checkpoint import Checkpoint, Comparison, compare, head_of
from dicomnode.audit.events import Event
from dicomnode.audit.place import append_line
from dicomnode.audit.signing import PublicKey, SigningKey
from dicomnode.config import Config, parse_config
from dicomnode.dicom.tls import server_context
from dicomnode.errors import ConfigError, Permanent, Transient
from dicomnode.node import checkpoints as module
from dicomnode.node.checkpoints import Checkpoints
from dicomnode.store.engine import Store
from dicomnode.store.tables import AuditRow
from tests.certificates import Authority
from tests.unit.audit_fixtures import check, intruder, new_log

spawn = multiprocessing.get_context("spawn")
LIMIT_S = 60.0
"""The bound of a hang."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that answers is given the time, on a busy machine too."""
    monkeypatch.setattr(module, "LIMIT_S", LIMIT_S)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.make(tmp_path / "audit.key")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Store]:
    store = new_log(tmp_path, 6)
    yield store
    store.close()


def signed(store: Store, key: SigningKey | None, origin: str = "NODE") -> str:
    with store.read() as session:
        return head_of(session, origin).signed(key).line()


def held(store: Store, lines: list[str], *keys: PublicKey, origin: str | None = "NODE") -> Comparison:
    with store.read() as session:
        return compare(session, lines, keys, origin=origin)


def grow(store: Store, rows: int = 1) -> None:
    with store.write() as session:
        for _ in range(rows):
            append(session, Event.INFERENCE, {})


def alerts(store: Store) -> list[dict[str, Any]]:
    with store.read() as session:
        found = session.scalars(select(AuditRow.body).where(AuditRow.kind == Event.SECURITY_ALERT))
        return [json.loads(body) for body in found]


# Signatures


def test_a_signed_checkpoint_holds_all_that_it_has_to(log: Store, key: SigningKey) -> None:
    """B8: origin, size, hash, time, key id and an Ed25519 signature."""
    entry = json.loads(signed(log, key))
    assert set(entry) == {"origin", "size", "hash", "time", "key", "signature", "type"}
    assert (entry["origin"], entry["size"], entry["hash"]) == ("NODE", 6, check(log).head.hex())
    assert (entry["key"], len(entry["signature"])) == (key.public.id, 128)
    assert held(log, [signed(log, key)], key.public) == Comparison(agree=1, signed=1)


def test_openssl_verifies_a_checkpoint(log: Store, key: SigningKey, tmp_path: Path) -> None:
    """B8: the signature can be checked without this software: it is of the line without its signature."""
    entry = json.loads(signed(log, key))
    (tmp_path / "s").write_bytes(bytes.fromhex(entry.pop("signature")))
    (tmp_path / "m").write_text(json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    (tmp_path / "k").write_text(key.public.pem)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "k", "-rawin", "-in", "m", "-sigfile", "s"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False).returncode == 0
    (tmp_path / "m").write_text("{}")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False).returncode != 0


@pytest.mark.parametrize("field", ["origin", "size", "hash", "time", "key", "signature"])
def test_a_forged_checkpoint_is_found(log: Store, key: SigningKey, field: str) -> None:
    """B8: no field can be changed by somebody without the key."""
    entry = json.loads(signed(log, key))
    entry[field] = {"size": 5, "hash": "ab" * 32, "signature": "ab" * 64}.get(field, "other")
    fault = held(log, [canonical(entry)], key.public).fault
    assert fault.startswith("checkpoint line 1: ")
    assert "signature is wrong" in fault or "another key" in fault


def test_a_rewritten_log_with_rewritten_checkpoints_is_found_by_the_signature(
    log: Store, key: SigningKey, tmp_path: Path
) -> None:
    """B7: he who changes both log and checkpoint file lacks the key."""
    other = SigningKey.make(tmp_path / "other.key")
    with intruder(log) as connection:
        connection.execute("DELETE FROM audit WHERE seq > 4")
    assert held(log, [signed(log, other)], other.public).fault == ""
    assert "another key" in held(log, [signed(log, other)], key.public).fault
    unsigned = held(log, [signed(log, None)], key.public)
    assert (unsigned.fault, unsigned.signed, unsigned.unsigned) == ("", 0, 1)


def test_unsigned_lines_of_before_still_hold_and_are_counted(log: Store, key: SigningKey) -> None:
    """B8: checkpoints of a version that could not sign keep their worth, and nobody takes them for signed ones."""
    lines = [signed(log, None)]
    grow(log)
    assert held(log, [*lines, signed(log, key)], key.public) == Comparison(agree=2, signed=1, unsigned=1)
    assert held(log, [*lines, signed(log, key)]) == Comparison(agree=2, unsigned=1, unchecked=1)


def test_keys_can_be_changed(log: Store, key: SigningKey, tmp_path: Path) -> None:
    """B8: checkpoints of the old key hold with its public half."""
    new = SigningKey.make(tmp_path / "new.key")
    lines = [signed(log, key), signed(log, new)]
    assert held(log, lines, key.public, new.public).signed == 2
    assert "line 1" in held(log, lines, new.public).fault


def test_checkpoints_of_another_node_in_the_same_file_are_told_apart(log: Store, key: SigningKey) -> None:
    """B8: two nodes may share a place; what is of the other one proves and refutes nothing."""
    foreign = Checkpoint("OTHER", 3, bytes(32), "2026").signed(key).line()
    assert held(log, [foreign, signed(log, key)], key.public) == Comparison(agree=1, signed=2, foreign=1)
    own = Checkpoint("NODE", 3, bytes(32), "2026").signed(key).line()
    assert "row 3 is not the row" in held(log, [own], key.public).fault


def test_a_key_is_private_and_never_written_over(tmp_path: Path) -> None:
    """B8: mode 0600, refused when others can read it or when it is no Ed25519 key."""
    path = tmp_path / "keys" / "audit.key"
    made = SigningKey.make(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load(path).public.id == made.public.id
    with pytest.raises(ConfigError, match="never written over"):
        SigningKey.make(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="open to others"):
        SigningKey.load(path)
    (tmp_path / "no").write_text("no key")
    (tmp_path / "no").chmod(0o600)
    with pytest.raises(ConfigError, match="no private key"):
        SigningKey.load(tmp_path / "no")
    with pytest.raises(Permanent, match="no public key"):
        PublicKey.load(tmp_path / "no")


# Places


def add_lines(path: str, name: str, times: int) -> None:
    place.LOCK_S = LIMIT_S  # in a process of its own
    for number in range(times):
        append_line(Path(path), canonical({"hash": "ab" * 200, "origin": name, "size": number}))


def test_processes_of_two_nodes_never_write_into_each_others_lines(tmp_path: Path) -> None:
    """B8: every line of a shared file is whole, whoever writes at the same moment."""
    path = tmp_path / "far" / "points.jsonl"
    writers = [spawn.Process(target=add_lines, args=(str(path), f"N{n}", 25)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(2 * LIMIT_S)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(found) == 75
    for name in ("N0", "N1", "N2"):
        assert [entry["size"] for entry in found if entry["origin"] == name] == list(range(25))


def test_a_line_behind_one_that_a_power_cut_tore_is_whole(log: Store, tmp_path: Path) -> None:
    """B8: the torn line is named, the next one begins a line of its own."""
    path = tmp_path / "points.jsonl"
    path.write_text('{"hash":"ab')
    with log.read() as session:
        write_checkpoint(session, path, "NODE")
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    with log.read() as session:
        assert check_against(session, lines[1:]) == ""
        with pytest.raises(Permanent, match="line 1"):
            check_against(session, lines)


def config(audit: str) -> Config:
    return parse_config(f'[node]\nae_title = "NODE"\n[audit]\n{audit}')[0]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_every_place_gets_its_checkpoint_by_rows_and_by_the_hour(log: Store, key: SigningKey, tmp_path: Path) -> None:
    """B8: at the first tick, after N rows, after an hour, and not in between; also at ``checkpoint_path``."""
    one, two, clock = tmp_path / "one", tmp_path / "two", Clock()
    places = f'checkpoint_path = "{one}"\ncheckpoints = [{{ kind = "file", path = "{two}" }}]\ncheckpoint_rows = 100\n'
    written = Checkpoints(config(f'{places}signing_key_file = "{tmp_path / "audit.key"}"'), log, clock)

    def sizes() -> list[int]:
        lines = [path.read_text().splitlines() for path in (one, two)]
        assert lines[0] == lines[1]
        assert held(log, lines[0], key.public).signed == len(lines[0])
        return [json.loads(line)["size"] for line in lines[0]]

    written.tick()
    written.tick()
    assert sizes() == [6]
    grow(log, 99)
    clock.now = 3599.0
    written.tick()
    assert sizes() == [6]
    grow(log)
    written.tick()
    assert sizes() == [6, 106]
    clock.now += 3600.0
    written.tick()
    assert sizes() == [6, 106, 106]
    written.now()
    assert sizes() == [6, 106, 106, 106]


def test_a_place_that_cannot_be_written_is_an_alert_and_is_tried_again(log: Store, tmp_path: Path) -> None:
    """B8: once for each outage, the other places get theirs, and the one that comes back gets it all."""
    (tmp_path / "far").touch()
    broken, good, clock = tmp_path / "far" / "c", tmp_path / "good", Clock()
    files = ", ".join(f'{{ kind = "file", path = "{path}" }}' for path in (broken, good))
    written = Checkpoints(config(f"checkpoints = [{files}]"), log, clock)
    for moment in (0.0, 30.0, 61.0, 122.0):
        clock.now = moment
        written.tick()
    assert [alert["place"] for alert in alerts(log)] == [f"file {broken}"]
    assert alerts(log)[0]["reason"] == "checkpoint not written"
    assert len(good.read_text().splitlines()) == 1
    (tmp_path / "far").unlink()
    clock.now = 183.0
    written.tick()
    assert json.loads(broken.read_text())["size"] == check(log).rows
    broken.unlink()
    broken.parent.rmdir()
    broken.parent.touch()
    clock.now += 3600.0
    written.tick()
    assert len(alerts(log)) == 2


def test_a_place_that_hangs_does_not_hold_up_the_node(
    log: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B8: a file system that answers nothing costs a thread, an alert, and no second thread."""
    good, release = tmp_path / "good", threading.Event()
    files = ", ".join(f'{{ kind = "file", path = "{path}" }}' for path in (tmp_path / "dead", good))
    real = module.append_line
    monkeypatch.setattr(
        module, "append_line", lambda path, line: release.wait(240) if path.name == "dead" else real(path, line)
    )
    within = module._within

    def hasty(place: Any, checkpoint: Checkpoint) -> None:
        monkeypatch.setattr(module, "LIMIT_S", 0.2 if place.name.endswith("dead") else LIMIT_S)
        within(place, checkpoint)

    monkeypatch.setattr(module, "_within", hasty)
    written = Checkpoints(config(f"checkpoints = [{files}]"), log, Clock())
    before = threading.active_count()
    for _ in range(3):
        written.now()
    assert threading.active_count() <= before + 1
    assert len(good.read_text().splitlines()) == 3
    assert [alert["error"] for alert in alerts(log)] == ["the place does not answer"]
    release.set()


def test_a_file_that_another_process_holds_is_no_place_to_wait_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B8: the lock is asked for a bounded time."""
    monkeypatch.setattr("dicomnode.audit.place.LOCK_S", 0.1)
    path = tmp_path / "points"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Transient, match="another process"):
            append_line(path, "{}")
    append_line(path, "{}")
    assert path.read_text() == "{}\n"


@contextmanager
def log_server(authority: Authority) -> Iterator[tuple[int, list[bytes]]]:
    """A syslog server over TLS (RFC 5425): its port, and what each connection brought."""
    pair = authority.issue("server", dns=["localhost"])
    context = server_context(pair.cert, pair.key, None, None)
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT_S)

        def serve() -> None:
            connection, _ = listener.accept()
            connection.settimeout(LIMIT_S)
            with suppress(ssl.SSLError, OSError), context.wrap_socket(connection, server_side=True) as secured:
                content = b""
                while part := secured.recv(65536):
                    content += part
                received.append(content)
                secured.unwrap()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], received
        thread.join(LIMIT_S)


def test_a_checkpoint_reaches_a_log_server_over_tls(log: Store, key: SigningKey, tmp_path: Path) -> None:
    """B8: syslog over TLS is a second place; the line arrives as it would lie in a file."""
    authority = Authority(tmp_path / "ca")
    with log_server(authority) as (port, received):
        place = f'kind = "syslog", host = "localhost", port = {port}, tls = {{ ca = "{authority.ca}" }}'
        settings = f'checkpoints = [{{ {place} }}]\nsigning_key_file = "{tmp_path / "audit.key"}"'
        Checkpoints(config(settings), log).now()
    assert not alerts(log)
    length, _, message = received[0].partition(b" ")
    assert len(message) == int(length)
    line = message[message.index(b"{") :].decode()
    assert held(log, [line], key.public).signed == 1


def test_a_log_server_that_is_nobody_we_trust_gets_nothing(log: Store, tmp_path: Path) -> None:
    """B8: the wrong certificate is an outage like any other."""
    with log_server(Authority(tmp_path / "ca")) as (port, received):
        other = Authority(tmp_path / "other", name="Other")
        place = f'kind = "syslog", host = "localhost", port = {port}, tls = {{ ca = "{other.ca}" }}'
        Checkpoints(config(f"checkpoints = [{{ {place} }}]"), log).now()
    assert not received
    assert alerts(log)[0]["place"] == f"syslog localhost:{port}"
