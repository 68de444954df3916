"""The detect worker: one transaction per result, honest outcomes, three attempts, no lease no result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import select, update

from dicomnode.audit import verify
from dicomnode.config import parse_config
from dicomnode.detect.worker import DetectWorker
from dicomnode.detectors.contract import DetectionResult, Outcome, Volume
from dicomnode.errors import Permanent
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool, digest
from dicomnode.store.tables import AssignmentRow, AuditRow, DeliveryRow, DerivedRow, InstanceRow, JobRow, SeriesRow
from tests.integration.detect_fixtures import MODEL, ScriptedDetector, complete_series, finding_result

CONFIG = """
[[peer]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
"""


class Bench:
    """A worker with its own store, spool and clock."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(f"sqlite:///{folder}/node.sqlite3")
        migrate(self.store)
        self.spool = Spool(folder / "spool")
        self.now = 100.0

    def worker(self, script: Callable[[Volume], DetectionResult]) -> DetectWorker:
        config, source = parse_config(CONFIG)
        return DetectWorker(
            self.store, self.spool, config, source.sha256, ScriptedDetector(script), "worker-1", lambda: self.now
        )

    def rows(self, kind: type) -> list:
        with self.store.read() as session:
            return list(session.scalars(select(kind)))


@pytest.fixture
def bench(tmp_path: Path):
    made = Bench(tmp_path)
    yield made
    made.store.close()


def test_a_finding_becomes_objects_deliveries_and_provenance_in_one_step(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    assert bench.worker(finding_result).step()
    assignment = bench.rows(AssignmentRow)[0]
    assert (assignment.outcome, assignment.score, assignment.weights_sha256) == ("findings", 0.97, MODEL.sha256)
    derived = bench.rows(DerivedRow)
    assert sorted(row.kind for row in derived) == ["sc", "sc", "sc", "sr", "sr"]
    for row in derived:
        assert digest(bench.spool.absolute(row.path).read_bytes()) == row.sha256
    assert {row.state for row in bench.rows(DeliveryRow)} == {"waiting"}
    assert len(bench.rows(DeliveryRow)) == len(derived)
    assert sorted((job.kind, job.state) for job in bench.rows(JobRow)) == [("deliver", "ready"), ("detect", "done")]
    body = json.loads(next(row.body for row in bench.rows(AuditRow) if row.kind == "inference"))
    assert body["weights_sha256"] == MODEL.sha256
    assert {source["sha256"] for source in body["sources"]} == {row.sha256 for row in bench.rows(InstanceRow)}
    assert {item["sha256"] for item in body["outputs"]} == {row.sha256 for row in derived}
    with bench.store.read() as session:
        assert verify(session).ok


def test_objects_and_provenance_name_the_version_of_the_detector_beside_that_of_the_model(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    assert bench.worker(finding_result).step()
    body = json.loads(next(row.body for row in bench.rows(AuditRow) if row.kind == "inference"))
    assert (body["detector_version"], body["model_version"]) == ("3.1.4", MODEL.version)
    path = next(row.path for row in bench.rows(DerivedRow) if row.kind == "sc")
    assert " 3.1.4 " in dcmread(bench.spool.absolute(path)).DerivationDescription


def test_a_gate_that_refuses_ends_as_not_analysed_with_its_reason(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    refused = DetectionResult(Outcome.NOT_ANALYSED, reason="no brain in the images")
    bench.worker(lambda _: refused).step()
    assignment = bench.rows(AssignmentRow)[0]
    assert (assignment.outcome, assignment.reason) == ("not analysed", "no brain in the images")
    assert bench.rows(DerivedRow) == bench.rows(DeliveryRow) == []


def test_an_unreadable_series_is_not_analysed_and_says_why(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    for row in bench.rows(InstanceRow):
        bench.spool.absolute(row.path).write_bytes(b"no DICOM at all")
    bench.worker(finding_result).step()
    assignment = bench.rows(AssignmentRow)[0]
    assert assignment.outcome == "not analysed"
    assert assignment.reason


def test_a_poison_series_is_dead_after_three_attempts_and_others_flow(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)

    def explode(_: Volume) -> DetectionResult:
        raise RuntimeError("PATIENT^NAME must not leak")

    worker = bench.worker(explode)
    for _ in range(3):
        assert worker.step()
        bench.now += 60.0
    assert not worker.step()
    job, assignment = bench.rows(JobRow)[0], bench.rows(AssignmentRow)[0]
    assert (job.state, job.attempt, assignment.outcome) == ("dead", 3, "failed")
    assert "RuntimeError" in assignment.reason
    assert "PATIENT" not in assignment.reason + job.error
    assert [row.kind for row in bench.rows(AuditRow)] == ["dead letter"]


def test_a_retry_makes_the_same_bytes(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    attempts = []

    def first_fails(volume: Volume) -> DetectionResult:
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError
        return finding_result(volume)

    worker = bench.worker(first_fails)
    worker.step()
    bench.now += 60.0
    worker.step()
    first = {row.SOPInstanceUID: row.sha256 for row in bench.rows(DerivedRow)}
    with bench.store.write() as session:
        session.execute(update(JobRow).where(JobRow.kind == "detect").values(state="ready", not_before=0.0))
        session.execute(update(AssignmentRow).values(outcome=None))
        for row in session.scalars(select(DeliveryRow)):
            session.delete(row)
    bench.now += 1000.0
    worker.step()
    assert {row.SOPInstanceUID: row.sha256 for row in bench.rows(DerivedRow)} == first


def test_without_the_lease_nothing_is_written(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)

    def lose_lease(volume: Volume) -> DetectionResult:
        with bench.store.write() as session:
            session.execute(update(JobRow).values(lease_token="somebody else"))
        return finding_result(volume)

    bench.worker(lose_lease).step()
    assert bench.rows(DerivedRow) == []
    assert bench.rows(AssignmentRow)[0].outcome is None


def test_a_lease_that_is_lost_before_a_final_failure_does_not_end_the_worker(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)

    def lose_lease_and_fail(_: Volume) -> DetectionResult:
        with bench.store.write() as session:
            session.execute(update(JobRow).values(lease_token="somebody else"))
        raise Permanent("never again")

    assert bench.worker(lose_lease_and_fail).step()
    assert bench.rows(AssignmentRow)[0].outcome is None


def test_an_assignment_of_an_older_generation_gives_way(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    with bench.store.write() as session:
        session.execute(update(SeriesRow).values(generation=2))
    bench.worker(finding_result).step()
    assignment = bench.rows(AssignmentRow)[0]
    assert assignment.outcome == "not analysed"
    assert "superseded by generation 2" in assignment.reason


def test_an_idle_worker_does_nothing(bench: Bench) -> None:
    assert not bench.worker(finding_result).step()
