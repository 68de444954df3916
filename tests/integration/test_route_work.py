"""A route job ends in Assignments with detect jobs, or in an honest "not analysed", in one transaction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from dicomnode.config import parse_config
from dicomnode.detectors.contract import Acceptance
from dicomnode.errors import LeaseLost
from dicomnode.jobs import Job, enqueue, take
from dicomnode.route import route_series
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssignmentRow, AuditRow, JobRow, SeriesRow
from tests.integration.detect_fixtures import complete_series

PEERS = """
[[peer]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
[[peer]]
name = "ct"
ae_title = "SCANNER"
host = "127.0.0.1"
port = 105
"""
ROUTE = """
[[route]]
name = "{name}"
when = {{ Modality = "{modality}" }}
detector = "d"
send_to = {to}
priority = {priority}
"""


class Willing:
    """Accepts everything."""

    name, version, default_model, description = "d", "1", "m", "takes all"

    def accepts(self, summary) -> Acceptance:
        return Acceptance(True, f"{summary.n_instances} instances of {summary.Modality}")


@pytest.fixture
def store(tmp_path: Path):
    made = Store(f"sqlite:///{tmp_path}/node.sqlite3")
    migrate(made)
    complete_series(made, Spool(tmp_path / "spool"))
    with made.write() as session:
        session.execute(delete(JobRow))
        session.execute(delete(AssignmentRow))
        series = session.scalars(select(SeriesRow)).one()
        enqueue(session, "route", "1", {"series_id": series.id, "generation": 1}, 1.0)
    yield made
    made.close()


def route(store: Store, *routes: str) -> Job:
    config, _ = parse_config(PEERS + "".join(routes))
    job = take(store, ("route",), "flow-1", 10.0, 60.0)
    assert job is not None
    route_series(store, config, {"d": Willing()}, job, 10.0)
    return job


def rows(store: Store, kind: type) -> list:
    with store.read() as session:
        return list(session.scalars(select(kind)))


def test_a_taken_series_gets_an_assignment_and_a_detect_job(store: Store) -> None:
    route(store, ROUTE.format(name="head", modality="CT", to='["pacs", "sender"]', priority=7))
    assignment = rows(store, AssignmentRow)[0]
    assert (assignment.detector, assignment.send_to, assignment.outcome) == ("d", ["pacs", "ct"], None)
    assert assignment.reason == "3 instances of CT"
    jobs = {job.kind: job for job in rows(store, JobRow)}
    assert jobs["route"].state == "done"
    assert (jobs["detect"].state, jobs["detect"].priority) == ("ready", 7)
    assert jobs["detect"].payload == {"assignment_id": assignment.id}


def test_a_series_that_no_route_takes_is_not_analysed_and_says_so(store: Store) -> None:
    route(store, ROUTE.format(name="mr", modality="MR", to='["pacs"]', priority=0))
    assignment = rows(store, AssignmentRow)[0]
    assert (assignment.outcome, assignment.detector) == ("not analysed", None)
    assert "no route matches" in assignment.reason
    kinds = {row.kind: json.loads(row.body) for row in rows(store, AuditRow)}
    assert kinds["not analysed"]["reason"] == "no route matches this series"
    assert kinds["routed"]["routes"] == [
        {"detector": "d", "route": "mr", "matched": False, "taken": False, "on": "Modality"}
    ]
    assert [job.kind for job in rows(store, JobRow)] == ["route"]


def test_two_routes_to_one_detector_share_one_analysis(store: Store) -> None:
    first = ROUTE.format(name="a", modality="CT", to='["pacs"]', priority=1)
    second = ROUTE.format(name="b", modality="CT", to='["ct"]', priority=5)
    route(store, first, second)
    assignment = rows(store, AssignmentRow)
    assert [(row.route, row.send_to, row.priority) for row in assignment] == [("a", ["pacs", "ct"], 5)]


def test_a_route_that_names_the_detectors_own_model_shares_the_analysis_too(store: Store) -> None:
    """Two analyses with the same weights would give two result sets with the same UIDs."""
    first = ROUTE.format(name="a", modality="CT", to='["pacs"]', priority=1)
    second = ROUTE.format(name="b", modality="CT", to='["ct"]', priority=1) + 'model = "m"\n'
    other = ROUTE.format(name="c", modality="CT", to='["ct"]', priority=1) + 'model = "m2"\n'
    route(store, first, second, other)
    assert [(row.route, row.send_to) for row in rows(store, AssignmentRow)] == [("a", ["pacs", "ct"]), ("c", ["ct"])]


def test_a_newer_generation_ends_the_older_job_without_a_result(store: Store) -> None:
    with store.write() as session:
        session.execute(update(SeriesRow).values(generation=2))
    route(store, ROUTE.format(name="a", modality="CT", to='["pacs"]', priority=1))
    assert rows(store, AssignmentRow) == []
    assert rows(store, JobRow)[0].state == "done"


def test_without_the_lease_nothing_is_decided(store: Store) -> None:
    config, _ = parse_config(PEERS + ROUTE.format(name="a", modality="CT", to='["pacs"]', priority=1))
    job = take(store, ("route",), "flow-1", 10.0, 60.0)
    assert job is not None
    with store.write() as session:
        session.execute(update(JobRow).values(lease_token="another"))
    with pytest.raises(LeaseLost):
        route_series(store, config, {"d": Willing()}, job, 10.0)
    assert rows(store, AssignmentRow) == rows(store, AuditRow) == []
