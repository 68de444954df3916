"""Every outcome end to end: what the PACS gets, what operators see. Not analysed is never "no findings"."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom import Dataset, dcmread
from sqlalchemy import delete, select, update

from dicomnode.cli.status import status as cli_status
from dicomnode.console.metrics import prometheus
from dicomnode.console.page import overview
from dicomnode.console.status import read_status
from dicomnode.detect.case import read_case
from dicomnode.detectors.contract import Acceptance, DetectionResult, Outcome, Volume
from dicomnode.jobs import enqueue
from dicomnode.node.requeue import requeue_dead_job
from dicomnode.report.legend import SUPERSEDES
from dicomnode.store.spool import digest
from dicomnode.store.tables import AssignmentRow, DeliveryRow, DerivedRow, InstanceRow, JobRow, SeriesRow
from tests.integration.detect_fixtures import (
    PEER,
    STUDY,
    Bench,
    assign,
    complete_series,
    finding_result,
    late_image,
)

SECOND = PEER.replace("pacs", "viewer").replace("PACS", "VIEWER")
ROUTE = '[[route]]\nname = "r"\nwhen = { Modality = "CT" }\ndetector = "scripted"\nsend_to = ["pacs"]\n'
FAILED = '[results]\nstatus = ["not analysed", "failed"]\n'
GAP = (1, 2, 3, 9)
"""Instance Numbers of a stack in which slices are missing."""


@pytest.fixture
def bench_of(tmp_path: Path):
    made: list[Bench] = []

    def build(config: str = PEER) -> Bench:
        made.append(Bench(tmp_path / str(len(made)), config))
        return made[-1]

    yield build
    for bench in made:
        bench.store.close()


@pytest.fixture
def bench(bench_of: Callable[..., Bench]) -> Bench:
    return bench_of()


def refuse(_: Volume) -> DetectionResult:
    return DetectionResult(Outcome.NOT_ANALYSED, reason="no brain in the images")


def explode(_: Volume) -> DetectionResult:
    raise RuntimeError("PATIENT^NAME must not leak")


def fail_for_good(bench: Bench) -> None:
    """Let the ``detect`` job fail until it is dead."""
    worker = bench.worker(explode)
    while worker.step():
        bench.now += 60.0


def jobs(bench: Bench, kind: str) -> list[JobRow]:
    return [job for job in bench.rows(JobRow) if job.kind == kind]


def sent(bench: Bench) -> list[tuple[str, str]]:
    """(kind, Destination) of everything that waits to be sent."""
    kinds = {row.id: row.kind for row in bench.rows(DerivedRow)}
    return [(kinds[row.derived_id], row.destination) for row in bench.rows(DeliveryRow)]


def page_of(bench: Bench) -> Dataset:
    row = next(row for row in reversed(bench.rows(DerivedRow)) if row.kind == "page")
    return dcmread(bench.spool.absolute(row.path))


def test_a_series_that_is_no_volume_sends_one_page_that_says_so(bench: Bench) -> None:
    """The volume gate: a route took the series, its images have a gap."""
    complete_series(bench.store, bench.spool, numbers=GAP)
    assert bench.worker(finding_result).step()
    assert bench.flow().step()
    assignment = bench.rows(AssignmentRow)[0]
    assert (assignment.outcome, assignment.gate) == ("not analysed", "volume")
    assert "slice gap" in assignment.reason
    assert sent(bench) == [("page", "pacs")]
    assert [row.kind for row in bench.rows(DerivedRow)] == ["page", "pdf"]
    assert [job.payload for job in jobs(bench, "deliver")] == [{"assignment_id": assignment.id, "destination": "pacs"}]
    assert bench.audited("inference")[0]["gate"] == "volume"
    told = bench.audited("status page")[0]
    assert (told["gate"], told["outcome"], told["peers"]) == ("volume", "not analysed", ["pacs"])
    assert {item["sha256"] for item in told["outputs"]} == {row.sha256 for row in bench.rows(DerivedRow)}


def test_the_page_belongs_to_patient_and_study_and_to_a_series_of_its_own(bench: Bench) -> None:
    complete_series(bench.store, bench.spool, numbers=GAP)
    bench.worker(finding_result).step()
    bench.flow().step()
    page, source = page_of(bench), dcmread(bench.spool.absolute(bench.rows(InstanceRow)[0].path))
    assert (page.StudyInstanceUID, page.PatientID, page.AccessionNumber) == (STUDY, "ID-1", "A1")
    assert page.SeriesInstanceUID != source.SeriesInstanceUID
    assert [row.SeriesNumber for row in bench.rows(DerivedRow) if row.kind == "page"] == [page.SeriesNumber]
    assert "not analysed" in page.ImageComments
    assert bench.rows(AssignmentRow)[0].reason in page.ImageComments
    assert "no finding" not in str(page).lower()


def test_a_volume_that_the_detector_declines_sends_one_page_that_says_so(bench: Bench) -> None:
    """The detector gate."""
    complete_series(bench.store, bench.spool)
    bench.worker(refuse).step()
    bench.flow().step()
    assignment = bench.rows(AssignmentRow)[0]
    assert (assignment.outcome, assignment.gate, assignment.reason) == (
        "not analysed",
        "detector",
        "no brain in the images",
    )
    assert sent(bench) == [("page", "pacs")]


def test_operators_see_the_gate_the_page_and_what_was_replaced(bench: Bench, tmp_path: Path) -> None:
    complete_series(bench.store, bench.spool, numbers=GAP)
    bench.worker(finding_result).step()
    bench.flow().step()
    with bench.store.write() as session:
        session.execute(update(DeliveryRow).values(state="replaced"))
    status = read_status(bench.config, bench.store, bench.spool, time.time())
    assert status["recent"][0]["results"][0]["objects"] == {"pacs": {"replaced": 1}}
    shown = overview(status)
    assert "not analysed</span> by the volume gate, because slice gap" in shown
    assert "<span class=replaced>1 replaced</span> (status page)" in shown
    metrics = prometheus(status)
    assert 'dicomnode_not_analysed{gate="volume"} 1' in metrics
    assert 'dicomnode_deliveries{destination="pacs",state="replaced"} 1' in metrics
    file = tmp_path / "node.toml"
    file.write_text(f'[node]\ndata_dir = "{tmp_path / "data"}"\ndatabase = "{bench.store.url}"\n{PEER}')
    told = CliRunner().invoke(cli_status, ["--config", str(file)])
    assert told.exit_code == 0, told.output
    assert "not analysed by the volume gate; because slice gap" in told.output
    assert "pacs: 1 replaced (status page)" in told.output


class Choosy:
    """Refuses every Series by its headers."""

    name, version, default_model, description = "scripted", "1", "m", "takes none"

    def accepts(self, _: object) -> Acceptance:
        return Acceptance(False, "a knee")


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_series_that_no_route_takes_sends_nothing_and_is_visible(bench_of: Callable[..., Bench], modality) -> None:
    """No rule matches (MR), or one does and its detector refuses the headers (CT)."""
    from dicomnode.node.flow import FlowWorker

    bench = bench_of(PEER + ROUTE.replace("CT", modality))
    complete_series(bench.store, bench.spool)
    with bench.store.write() as session:
        session.execute(delete(JobRow))
        session.execute(delete(AssignmentRow))
        enqueue(session, "route", "1", {"series_id": 1, "generation": 1}, 1.0)
    flow = FlowWorker(bench.store, bench.spool, bench.config, {"scripted": Choosy()}, "flow-1")  # type: ignore[dict-item]
    assert flow.step()
    assert not flow.step()
    assert bench.rows(DerivedRow) == jobs(bench, "status") == jobs(bench, "detect") == []
    status = read_status(bench.config, bench.store, bench.spool, time.time())
    assert status["not_analysed"] == {"route": 1}
    assert bench.audited("not analysed")[0]["reason"]


def test_a_failure_says_nothing_to_the_pacs_and_is_loud_for_operators(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    complete_series(bench.store, bench.spool)
    fail_for_good(bench)
    assert not bench.flow().step()
    assert bench.rows(DerivedRow) == []
    assert {record.levelname for record in caplog.records} == {"ERROR"}
    status = read_status(bench.config, bench.store, bench.spool, time.time())
    assert status["outcomes"] == {"failed": 1}
    assert status["jobs"]["detect"] == {"dead": 1}
    page = overview(status)
    assert "<p class=alarm>" in page
    assert "1 failed without a result · 1 dead letter, see below" in page
    assert "PATIENT" not in str(status) + str(bench.audited("dead letter")) + page


def test_a_site_may_ask_for_a_page_about_a_failure(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(FAILED + PEER)
    complete_series(bench.store, bench.spool)
    fail_for_good(bench)
    assert bench.flow().step()
    assert sent(bench) == [("page", "pacs")]
    assert (bench.audited("status page")[0]["outcome"], bench.audited("status page")[0]["gate"]) == ("failed", None)


def test_a_detector_that_answers_failed_is_a_failure_and_no_result(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    bench.worker(lambda _: DetectionResult(Outcome.FAILED, reason="out of memory")).step()
    assert [job.state for job in jobs(bench, "detect")] == ["dead"]
    assert [(row.outcome, row.reason) for row in bench.rows(AssignmentRow)] == [("failed", "out of memory")]


def test_each_peer_decides_for_itself_whether_it_gets_pages(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(f"{PEER}{SECOND}[results.peer.viewer]\nstatus = []\n")
    complete_series(bench.store, bench.spool, send_to=("pacs", "viewer"))
    bench.worker(refuse).step()
    bench.flow().step()
    assert sent(bench) == [("page", "pacs")]


def test_no_page_is_made_when_nobody_wants_one(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of("[results]\nstatus = []\n" + PEER)
    complete_series(bench.store, bench.spool)
    bench.worker(refuse).step()
    assert jobs(bench, "status") == []


def test_a_page_that_is_made_again_has_the_same_bytes(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    bench.worker(refuse).step()
    bench.flow().step()
    first = {row.SOPInstanceUID: row.sha256 for row in bench.rows(DerivedRow)}
    with bench.store.write() as session:
        session.execute(delete(DeliveryRow))
        session.execute(update(JobRow).where(JobRow.kind == "status").values(state="ready"))
    assert bench.flow().step()
    assert {row.SOPInstanceUID: row.sha256 for row in bench.rows(DerivedRow)} == first


def test_a_result_replaces_the_page_of_the_generation_before_it(bench: Bench) -> None:
    """A late image fills the gap: the new result says that it replaces what the PACS has, in a Series Number apart."""
    complete_series(bench.store, bench.spool, numbers=(1, 2, 4))
    bench.worker(refuse).step()
    bench.flow().step()
    page = bench.rows(DerivedRow)[0]
    second = late_image(bench.store, bench.spool, 3)
    with bench.store.read() as session:
        case = read_case(session, bench.spool, second)
    assert case.replaces_earlier
    assert case.supersedes == ()
    assert page.SeriesNumber in case.series_numbers
    bench.worker(finding_result).step()
    later = [row for row in bench.rows(DerivedRow) if row.assignment_id == second]
    assert {row.SeriesNumber for row in later}.isdisjoint({page.SeriesNumber})
    pictures = [dcmread(bench.spool.absolute(row.path)) for row in later if row.kind == "sc"]
    assert all(SUPERSEDES in picture.ImageComments for picture in pictures)
    assert bench.rows(AssignmentRow)[1].outcome == "findings"


def test_reports_of_the_generation_before_are_named_as_predecessors(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of('[results]\nobjects = ["sr"]\n' + PEER)
    complete_series(bench.store, bench.spool)
    bench.worker(finding_result).step()
    reports = {row.SOPInstanceUID for row in bench.rows(DerivedRow) if row.kind == "sr"}
    second = late_image(bench.store, bench.spool, 4)
    with bench.store.read() as session:
        case = read_case(session, bench.spool, second)
    assert {reference.SOPInstanceUID for reference in case.supersedes} == reports
    assert case.replaces_earlier


def test_a_page_about_a_generation_that_was_overtaken_is_not_made(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    bench.worker(refuse).step()
    late_image(bench.store, bench.spool, 4)
    assert bench.flow().step()
    assert bench.rows(DerivedRow) == []
    assert [job.state for job in jobs(bench, "status")] == ["done"]


def test_an_assignment_that_gave_way_to_a_newer_generation_announces_nothing(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    with bench.store.write() as session:
        session.execute(update(SeriesRow).values(generation=2))
    bench.worker(finding_result).step()
    assert jobs(bench, "status") == []
    status = read_status(bench.config, bench.store, bench.spool, time.time())
    assert status["not_analysed"] == {"superseded": 1}


def test_a_result_after_a_requeued_failure_is_sent_and_replaces_the_page(bench_of: Callable[..., Bench]) -> None:
    """The page about the failure and the result share Assignment and Destination; neither keeps the other back."""
    bench = bench_of(FAILED + PEER)
    complete_series(bench.store, bench.spool)
    fail_for_good(bench)
    bench.flow().step()
    requeue_dead_job(bench.store, jobs(bench, "detect")[0].id, bench.now)
    with bench.store.read() as session:
        assert read_case(session, bench.spool, 1).replaces_earlier
    assert bench.worker(finding_result).step()
    assert [kind for kind, _ in sent(bench)] == ["page", "sc", "sc", "sc", "sr", "sr"]
    assert len(jobs(bench, "deliver")) == 2


def test_a_failure_that_was_requeued_before_its_page_was_made_has_none(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(FAILED + PEER)
    complete_series(bench.store, bench.spool)
    fail_for_good(bench)
    requeue_dead_job(bench.store, jobs(bench, "detect")[0].id, bench.now)
    assert bench.flow().step()
    assert bench.rows(DerivedRow) == []
    with bench.store.read() as session:
        assert not read_case(session, bench.spool, 1).replaces_earlier


def test_a_failure_that_comes_back_after_a_requeue_has_its_page(bench_of: Callable[..., Bench]) -> None:
    """Its first announcement came to nothing, since the analysis had been requeued when the page was to be made."""
    bench = bench_of(FAILED + PEER)
    complete_series(bench.store, bench.spool)
    fail_for_good(bench)
    requeue_dead_job(bench.store, jobs(bench, "detect")[0].id, bench.now)
    assert bench.flow().step()
    assert bench.audited("requeued by hand")[0]["StudyInstanceUID"] == STUDY
    fail_for_good(bench)
    assert bench.flow().step()
    assert sent(bench) == [("page", "pacs")]
    requeue_dead_job(bench.store, jobs(bench, "detect")[0].id, bench.now)
    fail_for_good(bench)
    assert not bench.flow().step(), "once it is made, it is not announced again"


def test_what_an_older_version_refused_is_not_called_superseded(bench: Bench) -> None:
    complete_series(bench.store, bench.spool, numbers=GAP)
    bench.worker(finding_result).step()
    with bench.store.write() as session:
        session.execute(update(AssignmentRow).values(gate=None))
    assert read_status(bench.config, bench.store, bench.spool, bench.now)["not_analysed"] == {"unknown": 1}


def test_there_is_no_page_about_unreadable_files_and_the_log_says_why(bench: Bench) -> None:
    """Without one readable header the node knows no patient for sure; it makes none up. No retry would help."""
    complete_series(bench.store, bench.spool)
    for row in bench.rows(InstanceRow):
        bench.spool.absolute(row.path).write_bytes(b"no DICOM at all")
    bench.worker(finding_result).step()
    bench.flow().step()
    assert bench.rows(AssignmentRow)[0].gate == "volume"
    assert [job.state for job in jobs(bench, "status")] == ["done"]
    assert bench.audited("dead letter") == []
    [record] = bench.audited("status page")
    assert "readable" in record["not_made"]
    assert (record["peers"], record["outputs"]) == ([], [])
    assert record["StudyInstanceUID"] == STUDY
    assert sent(bench) == []


def test_one_unreadable_file_does_not_keep_the_page_back(bench: Bench) -> None:
    complete_series(bench.store, bench.spool, numbers=GAP)
    bench.spool.absolute(bench.rows(InstanceRow)[0].path).write_bytes(b"no DICOM at all")
    bench.worker(finding_result).step()
    bench.flow().step()
    assert sent(bench) == [("page", "pacs")]


def test_analyses_at_work_together_keep_their_series_numbers_apart(bench: Bench) -> None:
    """Two detectors look at one Study at the same time; whichever is ready first, no number is given twice."""
    first = complete_series(bench.store, bench.spool)
    with bench.store.write() as session:
        second = assign(session, session.scalars(select(SeriesRow)).one(), route="s")
    with bench.store.read() as session:
        one, other = (read_case(session, bench.spool, item).series_numbers for item in (first, second))
    assert one == {1}
    assert {1, 9001, 9002} < other


def test_results_of_an_older_version_keep_the_numbers_that_were_not_recorded(bench: Bench) -> None:
    complete_series(bench.store, bench.spool)
    bench.worker(finding_result).step()
    with bench.store.write() as session:
        session.execute(update(DerivedRow).values(SeriesNumber=None))
        second = assign(session, session.scalars(select(SeriesRow)).one(), route="s")
    with bench.store.read() as session:
        assert {9001, 9002, 9003} < read_case(session, bench.spool, second).series_numbers


def test_two_analyses_that_share_a_page_send_it_once_to_each_peer(bench_of: Callable[..., Bench]) -> None:
    """Two routes, one detector, both failed before any weights were read: one page, for the peers of both."""
    bench = bench_of(FAILED + PEER + SECOND)
    complete_series(bench.store, bench.spool)
    with bench.store.write() as session:
        assign(session, session.scalars(select(SeriesRow)).one(), ("pacs", "viewer"), "s")
    fail_for_good(bench)
    flow = bench.flow()
    assert flow.step()
    assert flow.step()
    assert [job.state for job in jobs(bench, "status")] == ["done", "done"]
    assert sent(bench) == [("page", "pacs"), ("page", "viewer")]
    page = next(row for row in bench.rows(DerivedRow) if row.kind == "page")
    assert digest(bench.spool.absolute(page.path).read_bytes()) == page.sha256


def test_the_process_that_makes_status_pages_loads_no_torch() -> None:
    code = "import sys, dicomnode.node.flow; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
