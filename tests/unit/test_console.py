"""The console shows what the rows say, escaped, with the notice and without patient identifiers."""

from __future__ import annotations

import queue
import socket
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from dicomnode.cli.status import status as cli_status
from dicomnode.config import parse_config
from dicomnode.console.metrics import HISTOGRAMS, METRICS, prometheus
from dicomnode.console.page import overview
from dicomnode.console.server import application, serve_console
from dicomnode.console.status import read_status
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssignmentRow, JobRow, ProcessRow, SeriesRow, StudyRow

NASTY = '<script>alert("x")</script>'


@pytest.fixture
def parts(tmp_path: Path):
    store = Store(f"sqlite:///{tmp_path}/node.sqlite3")
    migrate(store)
    with store.write() as session:
        study = StudyRow(StudyInstanceUID="1.2.3", PatientID="SECRET-ID", created_at=1.0)
        session.add(study)
        session.flush()
        series = SeriesRow(
            study_id=study.id,
            SeriesInstanceUID="1.2.3.4",
            Modality=NASTY[:16],
            CallingAETitle="SCANNER",
            state="complete",
            first_received_at=1.0,
            last_received_at=2.0,
        )
        session.add(series)
        session.flush()
        session.add(
            AssignmentRow(
                series_id=series.id,
                generation=1,
                route="",
                send_to=[],
                outcome="not analysed",
                reason=NASTY,
                created_at=3.0,
            )
        )
        session.add(ProcessRow(owner="receive-1", role="receive", pid=1, started_at=1.0, heartbeat_at=1.0))
        session.add(JobRow(kind="detect", dedup_key="1", payload={}, state="dead", error=NASTY, created_at=1.0))
    config, _ = parse_config("")
    yield config, store, Spool(tmp_path / "spool")
    store.close()


def test_status_tells_outcome_and_reason(parts) -> None:
    status = read_status(*parts, now=10.0)
    result = status["recent"][0]["results"][0]
    assert (result["outcome"], result["reason"]) == ("not analysed", NASTY)
    assert status["outcomes"] == {"not analysed": 1}
    assert status["dead_letters"][0]["reason"] == NASTY
    assert "SECRET-ID" not in str(status)


def test_page_escapes_everything_and_carries_the_notice(parts) -> None:
    page = overview(read_status(*parts, now=10.0))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "not a medical device" in page


def test_page_says_first_what_somebody_has_to_look_at(parts) -> None:
    page = overview(read_status(*parts, now=100.0))
    assert "<p class=alarm>receive: process not alive · 1 dead letter, see below</p>" in page
    assert ", because &lt;script&gt;" in page


def test_a_request_that_is_sent_drop_by_drop_is_cut(parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.console.server.REQUEST_S", 0.3)
    config, _ = parse_config("[node]\nconsole_port = 0")
    ports: queue.Queue[int] = queue.Queue()
    stop = threading.Event()
    server = threading.Thread(target=serve_console, args=(config, *parts[1:], stop, ports.put))
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", ports.get(timeout=60)), timeout=60) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nX")
            assert slow.recv(1) == b""
    finally:
        stop.set()
        server.join(60)


def test_metrics_are_complete(parts) -> None:
    text = prometheus(read_status(*parts, now=10.0))
    for name in METRICS:
        assert f"# TYPE {name} {'histogram' if name in HISTOGRAMS else 'gauge'}\n" in text
    assert 'dicomnode_outcomes{outcome="not analysed"} 1' in text
    assert 'dicomnode_jobs{kind="detect",state="dead"} 1' in text


def test_health_is_503_when_a_process_is_silent(parts) -> None:
    with TestClient(application(*parts)) as client:
        answer = client.get("/healthz")
        assert answer.status_code == 503
        assert answer.json()["silent"] == ["receive"]
        assert client.get("/").headers["content-security-policy"].startswith("default-src 'none'")
        assert client.get("/status").json()["node"]["ae_title"] == "DICOMNODE"
        assert client.post("/status").status_code == 405


def test_pages_are_503_while_the_database_does_not_answer(parts) -> None:
    config, store, spool = parts
    store.close()
    store.path.write_bytes(b"this is not a database, it is a text of more than a hundred bytes" * 10)
    with TestClient(application(config, store, spool)) as client:
        assert client.get("/status").status_code == 503


def test_what_is_tried_again_is_shown_with_its_reason(parts, tmp_path: Path) -> None:
    """Nothing is dead yet, and still the operator has to renew a token."""
    config, store, spool = parts
    reason = "HTTP 401 Unauthorized: its token is missing, expired or wrong"
    waiting = JobRow(kind="deliver", dedup_key="1:pacs", state="ready", attempt=4, error=reason, created_at=1.0)
    waiting.payload, waiting.not_before = {"assignment_id": 1, "destination": "pacs"}, 60.0
    fresh = JobRow(kind="deliver", dedup_key="2:pacs", state="ready", created_at=1.0, payload={"destination": "pacs"})
    with store.write() as session:
        session.add_all([waiting, fresh])
        session.flush()
        number = waiting.id
    status = read_status(config, store, spool, now=10.0)
    assert status["retrying"] == [
        {"job": number, "kind": "deliver", "destination": "pacs", "attempts": 4, "reason": reason, "next_at": 60.0}
    ]
    assert f"<td>{number}</td><td>deliver</td><td>pacs</td><td>4</td><td>{reason}</td>" in overview(status)
    path = tmp_path / "dicomnode.toml"
    path.write_text(f'[node]\ndata_dir = "{tmp_path}"\ndatabase = "sqlite:///{tmp_path}/node.sqlite3"\n')
    said = CliRunner().invoke(cli_status, ["--config", str(path)])
    assert f"tried again job {number} (deliver to pacs), tried 4 time(s): {reason}" in said.output
