"""How long each stage took is recorded with the result, summed up without end, and shown everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import delete, select, update

from dicomnode.cli.status import status as cli_status
from dicomnode.config import parse_config
from dicomnode.console.metrics import prometheus
from dicomnode.console.page import overview
from dicomnode.console.stages import quantile
from dicomnode.console.status import read_status
from dicomnode.jobs import enqueue
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from dicomnode.store.stages import BOUNDS, STAGES, Took, record_analysis, record_delivery
from dicomnode.store.tables import AssignmentRow, AssociationRow, SeriesRow, StageHistogramRow, StagesRow, StudyRow

TOOK = Took(load=1.5, inference=0.004, report=0.75)
EXPECTED = {
    "complete": 2.0,
    "route": 0.25,
    "wait": 0.5,
    "load": 1.5,
    "inference": 0.004,
    "report": 0.75,
    "deliver": 3.0,
    "total": 8.0,
}


@pytest.fixture
def store(tmp_path: Path):
    store = Store(f"sqlite:///{tmp_path}/node.sqlite3")
    migrate(store)
    yield store
    store.close()


def analysed(store: Store, *, completed_at: float | None = 102.0, took: Took = TOOK) -> int:
    """A Series received at 100, routed 0.25 s after it was complete, claimed 0.5 s later, with a result at 105."""
    with store.write() as session:
        study = StudyRow(StudyInstanceUID="1.2.3", PatientID="SECRET", created_at=1.0)
        session.add(study)
        session.flush()
        series = SeriesRow(
            study_id=study.id,
            SeriesInstanceUID="1.2.3.4",
            Modality="CT",
            CallingAETitle="SCANNER",
            state="complete",
            first_received_at=90.0,
            last_received_at=100.0,
            completed_at=completed_at,
        )
        session.add(series)
        session.flush()
        row = AssignmentRow(series_id=series.id, generation=1, route="r", detector="d", send_to=["pacs", "web"])
        row.created_at, row.started_at, row.finished_at, row.outcome = 102.25, 102.75, 105.0, "no findings"
        session.add(row)
        session.flush()
        record_analysis(session, row, series, took)
        return row.id


def recorded(store: Store) -> dict[str, float | None]:
    with store.read() as session:
        row = session.scalars(select(StagesRow)).one()
        return {stage: getattr(row, stage) for stage in STAGES}


def counted(store: Store) -> dict[str, tuple[int, float]]:
    with store.read() as session:
        return {row.stage: (row.n, row.seconds) for row in session.scalars(select(StageHistogramRow))}


def test_every_stage_of_a_result_is_recorded(store: Store) -> None:
    """Issue part 4: from the last instance to delivered, per stage, in seconds."""
    assignment = analysed(store)
    assert recorded(store) == {**EXPECTED, "deliver": None, "total": None}
    with store.write() as session:
        record_delivery(session, assignment, 108.0)
    assert recorded(store) == EXPECTED
    assert counted(store) == {stage: (1, seconds) for stage, seconds in EXPECTED.items()}


def test_a_second_destination_counts_too_and_the_row_keeps_the_last(store: Store) -> None:
    """Each destination is one delivery in the histogram; the result is delivered when the last one has it."""
    assignment = analysed(store)
    for now in (108.0, 109.0):
        with store.write() as session:
            record_delivery(session, assignment, now)
    assert (recorded(store)["deliver"], recorded(store)["total"]) == (4.0, 9.0)
    assert counted(store)["deliver"] == (2, 7.0)
    assert counted(store)["load"] == (1, 1.5)


def test_a_clock_that_was_set_back_gives_no_negative_times(store: Store) -> None:
    """Differences of the time of day between two processes are never below 0."""
    analysed(store, completed_at=99.0)
    assert recorded(store)["complete"] == 0.0


def test_what_was_not_done_has_no_time(store: Store) -> None:
    """A Series that no detector saw has no inference, and none is counted."""
    analysed(store, took=Took(load=0.1))
    assert recorded(store)["inference"] is recorded(store)["report"] is None
    assert "inference" not in counted(store)


def test_delivery_of_what_was_never_timed_changes_nothing(store: Store) -> None:
    """A result of an earlier version, or a page about a failure, has no stages."""
    assignment = analysed(store)
    with store.write() as session:
        session.execute(delete(StagesRow))
        record_delivery(session, assignment, 108.0)
    assert "deliver" not in counted(store)


def test_histograms_outlive_the_rows_that_retention_takes(store: Store) -> None:
    """The counts of a monitoring system only grow; the times of an Assignment go with it."""
    assignment = analysed(store)
    with store.write() as session:
        session.execute(delete(AssignmentRow).where(AssignmentRow.id == assignment))
        assert session.scalars(select(StagesRow)).all() == []
    assert counted(store)["load"] == (1, 1.5)


def test_status_console_and_metrics_show_the_stages_and_no_patient(store: Store, tmp_path: Path) -> None:
    """Issue part 4: per stage, in the status and metrics."""
    assignment = analysed(store)
    with store.write() as session:
        record_delivery(session, assignment, 108.0)
        session.execute(update(SeriesRow).values(association_id=None))
        refusing = AssociationRow(CallingAETitle="CT1", CalledAETitle="NODE", address="192.0.2.1", opened_at=1.0)
        refusing.n_refused = 7
        session.add(refusing)
        enqueue(session, "deliver", "1", {}, 100.0)
        enqueue(session, "deliver", "2", {}, 101.0, not_before=900.0)
    config, _ = parse_config("")
    status = read_status(config, store, Spool(tmp_path / "spool"), 110.0)
    assert {stage: one["p95"] for stage, one in status["stages"].items()} == EXPECTED
    assert status["recent"][0]["results"][0]["stages"] == EXPECTED
    assert status["queues"] == {"deliver": {"due": 1, "later": 1, "oldest_s": 10.0}}
    text = prometheus(status)
    for line in (
        'dicomnode_stage_seconds_bucket{stage="load",le="1"} 0',
        'dicomnode_stage_seconds_bucket{stage="load",le="2"} 1',
        'dicomnode_stage_seconds_bucket{stage="load",le="+Inf"} 1',
        'dicomnode_stage_seconds_sum{stage="total"} 8',
        'dicomnode_stage_seconds_count{stage="total"} 1',
        'dicomnode_queue{kind="deliver",when="due"} 1',
        'dicomnode_queue_oldest_seconds{kind="deliver"} 10',
        "dicomnode_instances_refused 7",
    ):
        assert line in text.splitlines()
    page = overview(status)
    assert "How long it takes" in page
    assert "8.00 s" in page
    assert "SECRET" not in text + page


def test_the_command_line_shows_the_stages(store: Store, tmp_path: Path) -> None:
    """``dicomnode status`` says them in words, ``--json`` in numbers."""
    assignment = analysed(store)
    with store.write() as session:
        record_delivery(session, assignment, 108.0)
    settings = tmp_path / "dicomnode.toml"
    settings.write_text(f'[node]\ndata_dir = "{tmp_path}"\ndatabase = "{store.url}"\n')
    said = CliRunner().invoke(cli_status, ["--config", str(settings)])
    assert said.exit_code == 0, said.output
    assert "report 0.75 s / 0.75 s" in said.output
    assert "total 8.00 s" in said.output


def test_buckets_are_counted_up_to_and_with_their_bound(store: Store) -> None:
    """Prometheus: ``le`` is less than or equal; what exceeds every bound is in the last bucket."""
    for load in (BOUNDS[0], BOUNDS[-1] + 1.0):
        with store.write() as session:
            for table in (StagesRow, AssignmentRow, SeriesRow, StudyRow):
                session.execute(delete(table))
        analysed(store, took=Took(load=load))
    with store.read() as session:
        row = session.get_one(StageHistogramRow, "load")
        assert (row.buckets[0], row.buckets[-1], sum(row.buckets)) == (1, 1, 2)


@pytest.mark.parametrize(("values", "p50", "p95"), [([], None, None), ([1.0], 1.0, 1.0), ([1, 2, 3, 4], 2, 4)])
def test_quantiles_are_values_that_occurred(values: list[float], p50: float, p95: float) -> None:
    """No interpolation: the figure is one that a study really took."""
    assert (quantile(values, 0.5), quantile(values, 0.95)) == (p50, p95)
    assert quantile(list(range(1, 101)), 0.95) == 95
