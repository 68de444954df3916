"""The detect worker: one transaction per result, honest outcomes, three attempts, no lease no result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import SecondaryCaptureImageStorage
from sqlalchemy import select, update

from dicomnode.audit import verify
from dicomnode.detect.reader import Reader
from dicomnode.detectors.contract import DetectionResult, Volume
from dicomnode.errors import Permanent
from dicomnode.report.build import BUILDERS
from dicomnode.sandbox import process
from dicomnode.store.spool import digest
from dicomnode.store.tables import AssignmentRow, AuditRow, DeliveryRow, DerivedRow, InstanceRow, JobRow, SeriesRow
from tests.integration.detect_fixtures import MODEL, Bench, complete_series, finding_result
from tests.lent_blocks import blocks_of


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
    assert [row.kind for row in derived] == ["sc", "sc", "sc", "sr", "sr", "pdf", "page"]
    for row in derived:
        assert digest(bench.spool.absolute(row.path).read_bytes()) == row.sha256
    assert {row.state for row in bench.rows(DeliveryRow)} == {"waiting"}
    sent = {row.derived_id for row in bench.rows(DeliveryRow)}
    assert [row.kind for row in derived if row.id in sent] == ["sc", "sc", "sc", "sr", "sr"]
    assert sorted((job.kind, job.state) for job in bench.rows(JobRow)) == [("deliver", "ready"), ("detect", "done")]
    body = json.loads(next(row.body for row in bench.rows(AuditRow) if row.kind == "inference"))
    assert body["weights_sha256"] == MODEL.sha256
    assert {source["sha256"] for source in body["sources"]} == {row.sha256 for row in bench.rows(InstanceRow)}
    assert [item["kind"] for item in body["outputs"]] == ["sc", "sc", "sc", "sr", "sr"]
    (more,) = bench.audited("stand-ins made")
    assert [item["kind"] for item in more["outputs"]] == ["pdf", "page"]
    assert {item["sha256"] for item in (*body["outputs"], *more["outputs"])} == {row.sha256 for row in derived}
    with bench.store.read() as session:
        assert verify(session).ok


def test_objects_and_provenance_name_the_version_of_the_detector_beside_that_of_the_model(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    assert bench.worker(finding_result).step()
    body = json.loads(next(row.body for row in bench.rows(AuditRow) if row.kind == "inference"))
    assert (body["detector_version"], body["model_version"]) == ("3.1.4", MODEL.version)
    path = next(row.path for row in bench.rows(DerivedRow) if row.kind == "sc")
    assert " 3.1.4 " in dcmread(bench.spool.absolute(path)).DerivationDescription


def test_an_object_that_fails_the_self_check_is_never_sent_and_named_to_operators(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A copied source with another SOP Class: refused at once, no retry, no delivery of the rest of the set."""

    def naive(volume: Volume, headers: Sequence[Dataset], *_: object) -> Iterator[Dataset]:
        dataset = deepcopy(headers[0])
        dataset.SOPClassUID = SecondaryCaptureImageStorage
        yield dataset

    monkeypatch.setitem(BUILDERS, "sr", naive)
    complete_series(bench.store, bench.spool)
    assert bench.worker(finding_result).step()
    job, assignment = bench.rows(JobRow)[0], bench.rows(AssignmentRow)[0]
    assert (job.state, job.attempt, assignment.outcome) == ("dead", 1, "failed")
    assert bench.rows(DerivedRow) == bench.rows(DeliveryRow) == []
    said = bench.audited("dead letter")[0]["reason"]
    assert said == job.error == assignment.reason
    assert "(sr) is not sent" in said
    assert "TEST^CASE" not in said + caplog.text
    assert "ID-1" not in said + caplog.text


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
    """R10: the same input and model give the same UIDs, and the same bytes."""
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


def test_r20_the_memory_that_the_reader_lends_is_given_back_after_every_series(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R20: no analysis leaves pixels mapped once its result is there."""
    lent = blocks_of(process, monkeypatch)
    complete_series(bench.store, bench.spool)
    bench.worker(finding_result).step()
    assert bench.rows(AssignmentRow)[0].outcome == "findings"
    assert len(lent) == 2
    assert [memory() for memory in lent] == [None, None]


def test_memory_for_the_next_series_is_made_when_the_result_is_there(bench: Bench) -> None:
    """Issue part 4: nobody waits for it, and it takes nothing from the analysis that goes on."""
    states: list[list[str]] = []

    class Told(Reader):
        def prepare(self) -> None:
            states.append([job.state for job in bench.rows(JobRow) if job.kind == "detect"])
            super().prepare()

    complete_series(bench.store, bench.spool)
    with Told() as told:
        worker = bench.worker(finding_result, told)
        assert worker.step()
        assert not worker.step()
    assert states == [["done"]]
