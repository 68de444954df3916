"""Several Series at a time: decoded side by side, analysed together, and nobody pays for a neighbour's failure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select, update

from dicomnode.detectors.contract import DetectionResult, Volume
from dicomnode.report import to_bytes
from dicomnode.store.spool import digest
from dicomnode.store.tables import AssignmentRow, DerivedRow, InstanceRow, JobRow, SeriesRow
from tests.integration.detect_fixtures import (
    PEER,
    Bench,
    ScriptedDetector,
    assign,
    complete_series,
    ct_slice,
    finding_result,
)

TOGETHER = PEER + "\n[detect]\nseries_at_once = 4\nbatch_planes = 4\n"


@pytest.fixture
def bench(tmp_path: Path):
    made = Bench(tmp_path, TOGETHER)
    yield made
    made.store.close()


def another_series(bench: Bench, number: int, *, broken: bool = False) -> int:
    """One more complete Series of the same Study, with images of its own; returns the Assignment's id."""
    with bench.store.write() as session:
        first = session.scalars(select(SeriesRow).limit(1)).one()
        series = SeriesRow(
            generation=1, study_id=first.study_id, SeriesInstanceUID=f"2.25.77.{number}", Modality="CT",
            CallingAETitle="SCANNER", state="complete", first_received_at=1.0, last_received_at=2.0,
        )  # fmt: skip
        session.add(series)
        session.flush()
        for image in range(1, 4):
            dataset = ct_slice(image)
            dataset.SeriesInstanceUID, dataset.SOPInstanceUID = f"2.25.77.{number}", f"2.25.77.{number}.{image}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            if broken:
                dataset.PixelData = dataset.PixelData[:100]
            content = to_bytes(dataset)
            session.add(
                InstanceRow(
                    series_id=series.id, SOPInstanceUID=dataset.SOPInstanceUID, SOPClassUID=dataset.SOPClassUID,
                    TransferSyntaxUID=ExplicitVRLittleEndian, sha256=digest(content), size=len(content),
                    path=bench.spool.store((content,), "received", digest(content)),
                    header={"Modality": ["CT"], "SeriesNumber": [number]}, generation=1, received_at=2.0,
                )
            )  # fmt: skip
        return assign(session, series)


class Together(ScriptedDetector):
    """A detector that can analyse several Volumes at once; remembers how many it got."""

    def __init__(self, script) -> None:
        super().__init__(script)
        self.groups: list[int] = []

    def detect_many(self, volumes: Sequence[Volume]) -> list[DetectionResult]:
        self.groups.append(len(volumes))
        return [self.script(volume) for volume in volumes]


def worker(bench: Bench, detector: ScriptedDetector):
    made = bench.worker(detector.script)
    made._detectors = detector
    return made


def series_of(volume: Volume) -> str:
    return volume.summary.reference.SeriesInstanceUID


def outcomes(bench: Bench) -> dict[int, str | None]:
    return {row.id: row.outcome for row in bench.rows(AssignmentRow)}


def test_one_step_analyses_all_that_wait_together_and_each_has_its_own_result(bench: Bench) -> None:
    ids = [complete_series(bench.store, bench.spool), another_series(bench, 2), another_series(bench, 3)]
    detector = Together(finding_result)
    assert worker(bench, detector).step()
    assert outcomes(bench) == dict.fromkeys(ids, "findings")
    assert sum(detector.groups) + detector.calls == 3
    assert {row.state for row in bench.rows(JobRow) if row.kind == "detect"} == {"done"}
    assert {row.assignment_id for row in bench.rows(DerivedRow)} == set(ids)
    assert not worker(bench, detector).step()


def test_results_are_the_same_bytes_together_and_one_by_one(tmp_path: Path) -> None:
    digests = []
    for name, config in (("together", TOGETHER), ("alone", PEER)):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name, config)
        complete_series(bench.store, bench.spool)
        another_series(bench, 2)
        detector = Together(finding_result)
        while worker(bench, detector).step():
            pass
        digests.append(sorted((row.kind, row.sha256) for row in bench.rows(DerivedRow)))
        bench.store.close()
    assert digests[0] == digests[1]


def test_a_group_that_fails_is_told_of_the_series_that_made_it_fail(bench: Bench) -> None:
    good, bad = complete_series(bench.store, bench.spool), another_series(bench, 2)

    def script(volume: Volume) -> DetectionResult:
        if series_of(volume) == "2.25.77.2":
            raise ArithmeticError("not for logs")
        return finding_result(volume)

    assert worker(bench, Together(script)).step()
    assert outcomes(bench) == {good: "findings", bad: None}
    states = {
        job.payload["assignment_id"]: (job.state, job.attempt) for job in bench.rows(JobRow) if job.kind == "detect"
    }
    assert states == {good: ("done", 1), bad: ("ready", 1)}


def test_a_series_without_a_volume_is_not_analysed_and_costs_the_others_nothing(bench: Bench) -> None:
    good, bad = complete_series(bench.store, bench.spool), another_series(bench, 2, broken=True)
    assert worker(bench, Together(finding_result)).step()
    assert outcomes(bench) == {good: "findings", bad: "not analysed"}
    row = next(row for row in bench.rows(AssignmentRow) if row.id == bad)
    assert row.gate == "volume"


def test_a_job_that_has_failed_before_is_done_alone(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    another_series(bench, 2)
    with bench.store.write() as session:
        session.execute(update(JobRow).where(JobRow.id == 1).values(attempt=1, crashes=1))
    detector = Together(finding_result)
    assert worker(bench, detector).step()
    assert (detector.groups, detector.calls) == ([], 1)
    assert sorted(job.state for job in bench.rows(JobRow) if job.kind == "detect") == ["done", "ready"]


def test_a_group_holds_no_more_planes_than_fit(bench: Bench) -> None:
    """Each Series has three planes; eight calls of four planes are room for ten of them, so three go together."""
    from dicomnode.detect.together import ready_group

    class Item:
        def __init__(self, detector: object, planes: int, *, done: bool = True) -> None:
            self.begun, self.planes = type("Begun", (), {"detector": detector}), planes
            self.decoded = type("Decoded", (), {"done": staticmethod(lambda: done)})

    one, other = object(), object()
    waiting = [Item(one, 30), Item(other, 1), Item(one, 30), Item(one, 5), Item(one, 1, done=False)]
    assert ready_group(waiting, 40) == [waiting[0], waiting[3]]
    assert ready_group(waiting[:1], 5) == waiting[:1]
