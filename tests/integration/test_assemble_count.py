"""Asking the sender: C-FIND against an SCP that speaks the protocol."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt
from sqlalchemy import select

from dicomnode.assemble import count_at_sender, finding
from dicomnode.config import Config
from dicomnode.dicom.requestor import Acceptor
from dicomnode.errors import LeaseLost, Permanent
from dicomnode.jobs import claim, enqueue
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.tables import JobRow, SeriesRow, StudyRow

STUDY, SERIES = "1.2.3", "1.2.3.1"


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A sender that answers is given the time, on a busy machine too."""
    monkeypatch.setattr(finding, "TIMEOUT_S", 60.0)


@contextmanager
def archive(answers, *, title="CT1"):
    """A Study Root Query SCP; ``answers`` maps an identifier to (status, Dataset) pairs. Yields port and queries."""
    queries = []

    def on_find(event):
        queries.append(event.identifier)
        yield from answers(event.identifier)

    ae = Acceptor(title)
    ae.add_supported_context(finding.STUDY_ROOT_FIND)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, on_find)])
    try:
        yield server.server_address[1], queries
    finally:
        server.shutdown()


def match(**values):
    dataset = Dataset()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return 0xFF00, dataset


@pytest.fixture
def store(tmp_path):
    made = Store(f"sqlite:///{tmp_path / 'node.sqlite3'}")
    migrate(made)
    with made.write() as session:
        session.add(StudyRow(StudyInstanceUID=STUDY, created_at=0))
        session.flush()
        row = SeriesRow(
            study_id=1, SeriesInstanceUID=SERIES, CallingAETitle="CT1", first_received_at=1, last_received_at=1
        )
        session.add(row)
        enqueue(session, "count", "1:1", {"series_id": 1, "generation": 1}, 0.0)
    yield made
    made.close()


def ask(store, port, *, clock=lambda: 50.0, peer="CT1"):
    config = Config.model_validate(
        {"peer": [{"name": "ct", "ae_title": peer, "host": "127.0.0.1", "port": port, "may_send": True}]}
    )
    with store.write() as session:
        job = claim(session, ["count"], "me", 10.0, 60.0)
    return count_at_sender(store, config, job, clock=clock)


def written(store):
    with store.read() as session:
        series, job = session.scalar(select(SeriesRow)), session.scalar(select(JobRow))
    return series.n_expected, series.asked_at, job.state


def test_the_series_level_count_is_taken_and_the_job_is_done(store):
    with archive(lambda _query: [match(NumberOfSeriesRelatedInstances=42)]) as (port, queries):
        assert ask(store, port) == 42
    assert written(store) == (42, 50.0, "done")
    [query] = queries
    assert (query.QueryRetrieveLevel, query.StudyInstanceUID, query.SeriesInstanceUID) == ("SERIES", STUDY, SERIES)


def test_without_a_series_level_count_the_images_are_counted(store):
    def answers(query):
        if query.QueryRetrieveLevel == "SERIES":
            return [match(Modality="CT")]
        return [match(SOPInstanceUID=f"{SERIES}.{number}") for number in (1, 2, 3, 3)]

    with archive(answers) as (port, queries):
        assert ask(store, port) == 3
    assert [query.QueryRetrieveLevel for query in queries] == ["SERIES", "IMAGE"]


def test_answers_about_another_series_do_not_count(store):
    other = match(NumberOfSeriesRelatedInstances=7)
    other[1].SeriesInstanceUID = "1.2.3.2"
    with archive(lambda _query: [other]) as (port, _):
        assert ask(store, port) is None


@pytest.mark.parametrize(
    "answers",
    [lambda _query: [], lambda _query: [(0xA700, None)], lambda _query: [(0xC001, None)]],
    ids=["no match", "out of resources", "unable to process"],
)
def test_a_sender_that_gives_no_count_is_remembered_as_asked(store, answers):
    with archive(answers) as (port, _):
        assert ask(store, port) is None
    assert written(store) == (None, 50.0, "done")


def test_a_failure_in_the_middle_of_the_answers_gives_no_count(store):
    with archive(lambda _query: [match(SOPInstanceUID="1.2"), (0xA700, None)]) as (port, _):
        assert ask(store, port) is None


def test_a_sender_that_never_answers_costs_seconds_only(store, monkeypatch):
    monkeypatch.setattr(finding, "TIMEOUT_S", 0.3)

    def hang(_query):
        import time

        time.sleep(1.0)
        return []

    with archive(hang) as (port, _):
        assert ask(store, port) is None
    assert written(store) == (None, 50.0, "done")


def test_a_sender_without_query_service_gives_no_count(store):
    ae = Acceptor("CT1")
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert ask(store, server.server_address[1]) is None
    server.shutdown()
    assert written(store) == (None, 50.0, "done")


def test_only_configured_peers_are_asked(store):
    with archive(lambda _query: [match(NumberOfSeriesRelatedInstances=42)]) as (port, queries):
        assert ask(store, port, peer="OTHER") is None
    assert queries == []
    assert written(store) == (None, 50.0, "done")


def test_the_answer_about_an_older_generation_is_not_written(store):
    def reopened(_query):
        with store.write() as session:
            session.scalar(select(SeriesRow)).generation = 2
        return [match(NumberOfSeriesRelatedInstances=42)]

    with archive(reopened) as (port, _):
        assert ask(store, port) == 42
    assert written(store) == (None, None, "done")


@pytest.mark.parametrize("answers", [[], [match(NumberOfSeriesRelatedInstances=42)]], ids=["silent", "answered"])
def test_what_a_sender_said_is_known_though_the_series_was_closed_meanwhile(store, answers):
    """Whether it is asked again within ten minutes depends on it: a silent one costs seconds for each Series."""

    def closed(_query):
        with store.write() as session:
            session.scalar(select(SeriesRow)).state = "complete"
        return answers

    with archive(closed) as (port, _):
        assert ask(store, port) == (42 if answers else None)
    assert written(store) == (42 if answers else None, 50.0, "done")


def test_a_lost_lease_writes_nothing(store):
    def stolen(_query):
        with store.write() as session:
            session.scalar(select(JobRow)).lease_token = "other"
        return [match(NumberOfSeriesRelatedInstances=42)]

    with archive(stolen) as (port, _), pytest.raises(LeaseLost):
        ask(store, port)
    assert written(store) == (None, None, "leased")


def test_a_job_without_its_series_is_permanent(store):
    with store.write() as session:
        session.scalar(select(JobRow)).payload = {"series_id": 99, "generation": 1}
    with pytest.raises(Permanent):
        ask(store, 1)
