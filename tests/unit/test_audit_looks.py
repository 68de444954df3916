"""Who looked: every way to see the log, or what the node knows, leaves a row with the one who did."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from dicomnode.audit import AuditFilter, find
from dicomnode.audit.summary import lines, plain, summarised
from dicomnode.cli import cli
from dicomnode.cli.audit_options import names_of_peer
from dicomnode.config import load_config, parse_config
from dicomnode.console.looks import AGAIN_S, MOST, Looks
from dicomnode.console.server import application
from dicomnode.console.status import read_status, troubles
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from tests.unit.auditors_case import build

STUDY = "1.2.826.0.1.3680043.8.498.2001"
COMMANDS: dict[str, list[str]] = {
    "list": ["list", "--peer", "ct-1"],
    "show": ["show", "3"],
    "patient": ["patient", "PAT-1001"],
    "model": ["model", "ct-head@1.2.0"],
    "looked": ["looked"],
    "report": ["report", "--study", STUDY],
    "export": ["export", "--format", "fhir"],
    "evidence": ["evidence", "case.zip", "--study", STUDY],
    "provenance": ["provenance", STUDY],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    build(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{folder}/var/dicomnode.sqlite3")
    yield made
    made.close()


def call(folder: Path, *arguments: str) -> str:
    answer = CliRunner().invoke(
        cli, ["audit", *arguments, "--config", str(folder / "node.toml")], standalone_mode=False
    )
    if answer.exception is not None:
        raise answer.exception
    return answer.output


def newest(store: Store, kind: str = "audit log used") -> dict[str, Any]:
    with store.read() as session:
        return list(find(session, AuditFilter(event=kind)))[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_that_reads_the_log_says_who_read_and_what_for(folder: Path, store: Store, command: str) -> None:
    """A4, B10: Audit Log Used, with the account, before anything is printed."""
    before = newest(store)["seq"]
    call(folder, *COMMANDS[command])
    row = newest(store)
    assert row["seq"] > before
    assert (row["body"]["command"], row["body"]["user"]) == (command, getpass.getuser())
    assert isinstance(row["body"]["filters"], dict)


def test_asking_for_an_account_is_not_taken_for_its_deed(folder: Path, store: Store) -> None:
    """The filters of a question are kept under other names than the facts of rows."""
    call(folder, "list", "--user", "ada", "--model", "ct-head", "--outcome", "findings", "--peer", "pacs")
    asked = newest(store)
    assert asked["body"]["filters"]["of_user"] == "ada"
    for question in ({"user": "ada"}, {"model": "ct-head"}, {"outcome": "findings"}, {"peer": "pacs"}):
        with store.read() as session:
            assert asked["seq"] not in [row["seq"] for row in find(session, AuditFilter(**question))]
    assert {row["body"]["user"] for row in json.loads(call(folder, "list", "--user", "ada", "--json"))} == {"ada"}


def test_a_peer_is_asked_for_by_any_of_its_names(folder: Path) -> None:
    config, _ = load_config(folder / "node.toml")
    assert set(names_of_peer(config, "CT1")) == set(names_of_peer(config, "ct-1")) == {"CT1", "ct-1"}
    assert names_of_peer(config, "ELSE") == ("ELSE",)
    by_title, by_name = (json.loads(call(folder, "list", "--peer", name, "--json")) for name in ("CT1", "ct-1"))
    assert by_title == by_name
    assert {row["kind"] for row in by_title} >= {"instance stored", "series complete", "instances transferred"}


def test_evidence_without_a_key_is_refused_as_a_fault_of_the_configuration(folder: Path) -> None:
    from dicomnode.errors import ConfigError

    text = (folder / "node.toml").read_text().replace('signing_key_file = "audit.key"', "")
    (folder / "node.toml").write_text(text)
    with pytest.raises(ConfigError, match="signing_key_file"):
        call(folder, "evidence", "case.zip")


def test_a_report_counts_and_names_no_patient(store: Store) -> None:
    """B10: a readable account; it says how many patients, not which."""
    with store.read() as session:
        found = summarised(find(session, AuditFilter()))
    told = {(part, what): count for part, what, count in lines(found)}
    assert told["log", "rows"] == 23
    assert told["received from", "ct-1"] == 8
    assert told["analysed by", "ct-head 1.1.0 (cdcdcdcdcdcd): no findings"] == 1
    assert told["delivered to", "pacs"] == 4
    assert told["amiss", "security alert: calling AE title not recognized"] == 1
    assert told["looked", "ada: patient"] == 1
    assert "PAT-" not in json.dumps(plain(found)) + str(list(told))
    assert plain(found)["patients"] == 2


def test_a_look_at_the_console_is_recorded_once_an_hour_for_each_address(store: Store) -> None:
    clock = [1000.0]
    looks = Looks(store, lambda: clock[0])
    for address, page in (("10.0.0.1", "/"), ("10.0.0.1", "/"), ("10.0.0.1", "/status"), ("10.0.0.2", "/")):
        looks.record(address, page)
    clock[0] += AGAIN_S + 1
    looks.record("10.0.0.1", "/", user="ada")
    with store.read() as session:
        bodies = [row["body"] for row in find(session, AuditFilter(event="console viewed"))]
    assert [(body["address"], body["page"]) for body in bodies] == [
        ("10.0.0.1", "/"),
        ("10.0.0.1", "/status"),
        ("10.0.0.2", "/"),
        ("10.0.0.1", "/"),
    ]
    assert bodies[-1]["user"] == "ada"
    assert all(len(looks._seen) <= MOST for _ in [looks.record("10.0.0.1", f"/{n}") for n in range(3)])


def test_pages_with_uids_are_recorded_and_machines_that_ask_for_health_are_not(store: Store, folder: Path) -> None:
    config = parse_config("", "test")[0]
    with TestClient(application(config, store, Spool(folder / "spool"))) as client:
        for path in ("/metrics", "/healthz"):
            client.get(path)
        with store.read() as session:
            assert list(find(session, AuditFilter(event="console viewed"))) == []
        assert client.get("/").status_code == 200
        assert client.get("/status").status_code == 200
    with store.read() as session:
        assert [row["body"]["page"] for row in find(session, AuditFilter(event="console viewed"))] == ["/", "/status"]
    looked = json.loads(call(folder, "looked", "--json"))
    assert {row["kind"] for row in looked} == {"audit log used", "console viewed"}


def test_a_copy_that_is_behind_is_a_trouble_of_the_node(store: Store, folder: Path) -> None:
    """An alert when the copy at the audit record repository is behind: in status, console and metrics."""
    from dicomnode.console.metrics import prometheus
    from dicomnode.store.tables import AuditShippedRow

    config = parse_config('[audit.syslog]\nhost = "arr"\ntls = { ca = "ca.pem" }\n', "test")[0]
    fine = read_status(config, store, Spool(folder / "spool"), 100.0)
    assert fine["audit_copy"] == {"place": "arr:6514", "behind": 23, "failing_s": None, "error": ""}
    assert not any("audit copy" in words for words in troubles(fine))
    with store.write() as session:
        session.add(AuditShippedRow(place="arr:6514", seq=20, failed_since=40.0, alerted=False, error="refused"))
    late = read_status(config, store, Spool(folder / "spool"), 100.0)
    assert "audit copy at arr:6514: 3 rows behind, refused" in troubles(late)
    assert 'dicomnode_audit_copy_behind{place="arr:6514"} 3' in prometheus(late)
