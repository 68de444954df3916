"""The sweep on a real database: what completes, what it writes, and when the sender is asked."""

from __future__ import annotations

import json
import sys

import pytest
from sqlalchemy import select

from dicomnode.assemble import EvidenceMemory, Sweeper, sweep
from dicomnode.assemble.facts import read_headers
from dicomnode.config import Config
from dicomnode.dicom.sop_classes import CT_IMAGE
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.tables import AssociationRow, AuditRow, InstanceRow, JobRow, ProcessRow, SeriesRow, StudyRow

NOW = 100_000.0
CONFIG = Config.model_validate(
    {
        "assemble": {"quiet_period_s": 60, "max_wait_s": 900, "settle_s": 2},
        "peer": [{"name": "ct", "ae_title": "CT1", "host": "127.0.0.1", "port": 104, "may_send": True}],
    }
)


class Rows:
    """Writes what reception would have written."""

    def __init__(self, folder):
        self.store = Store(f"sqlite:///{folder / 'node.sqlite3'}")
        migrate(self.store)
        with self.store.write() as session:
            session.add(StudyRow(StudyInstanceUID="1.2", PatientID="P1", created_at=NOW))

    def association(self, ended="released", ended_at=NOW, *, calling="CT1", stored=1):
        with self.store.write() as session:
            row = AssociationRow(
                CallingAETitle=calling,
                CalledAETitle="NODE",
                address="127.0.0.1",
                opened_at=NOW - 10,
                ended=ended,
                ended_at=None if ended == "open" else ended_at,
                n_stored=stored,
            )
            session.add(row)
            session.flush()
            return row.id

    def series(self, association, numbers, uid="1.2.1", *, calling="CT1", last=NOW, conflict=False):
        with self.store.write() as session:
            row = SeriesRow(
                study_id=1,
                SeriesInstanceUID=uid,
                CallingAETitle=calling,
                association_id=association,
                first_received_at=last,
                last_received_at=last,
            )
            session.add(row)
            session.flush()
            for number in numbers:
                session.add(instance(row, association, number, last, conflict=conflict))
            return row.id

    def add(self, series_id, association, number, at):
        """A late Instance, as reception records it."""
        with self.store.write() as session:
            row = session.get_one(SeriesRow, series_id)
            row.state, row.generation, row.last_received_at = "open", row.generation + 1, at
            session.add(instance(row, association, number, at))

    def get(self, series_id):
        with self.store.read() as session:
            return session.get_one(SeriesRow, series_id)

    def jobs(self, kind):
        with self.store.read() as session:
            return session.scalars(select(JobRow).where(JobRow.kind == kind)).all()

    def audit(self):
        with self.store.read() as session:
            return [json.loads(body) for body in session.scalars(select(AuditRow.body).order_by(AuditRow.seq))]


def instance(series, association, number, at, *, conflict=False):
    uid = f"{series.SeriesInstanceUID}.{number}"
    return InstanceRow(
        series_id=series.id,
        association_id=association,
        SOPInstanceUID=uid,
        SOPClassUID=CT_IMAGE,
        TransferSyntaxUID="1.2.840.10008.1.2",
        sha256=f"{number:064}",
        size=1,
        path=uid,
        header={
            "Modality": ["CT"],
            "SOPClassUID": [CT_IMAGE],
            "InstanceNumber": [number],
            "ImagePositionPatient": [0.0, 0.0, 3.0 * number],
            "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        },
        generation=series.generation,
        received_at=at,
        conflict=conflict,
    )


@pytest.fixture
def rows(tmp_path):
    made = Rows(tmp_path)
    yield made
    made.store.close()


def test_a_whole_released_series_is_completed_with_its_route_job_and_evidence(rows):
    series = rows.series(rows.association(), range(1, 11))
    assert sweep(rows.store, CONFIG, NOW + 1) == 0
    assert sweep(rows.store, CONFIG, NOW + 2) == 1
    row, [job], [record] = rows.get(series), rows.jobs("route"), rows.audit()
    assert (row.state, row.incomplete, row.completed_at) == ("complete", False, NOW + 2)
    assert row.complete_by == "association released, InstanceNumber 1 to 10 without gap"
    assert (job.dedup_key, job.payload) == (f"{series}:1", {"series_id": series, "generation": 1})
    assert record["complete_by"] == row.complete_by
    assert (record["PatientID"], record["n_instances"], record["association_ended"]) == ("P1", 10, "released")


def test_a_completed_series_is_not_completed_again(rows):
    rows.series(rows.association(), range(1, 11))
    assert sweep(rows.store, CONFIG, NOW + 2) == 1
    assert sweep(rows.store, CONFIG, NOW + 3) == 0
    assert len(rows.jobs("route")) == 1


def test_a_gap_is_waited_for_and_then_marked_incomplete(rows):
    series = rows.series(rows.association(), [1, 2, 3, 4, 6, 7, 8])
    assert sweep(rows.store, CONFIG, NOW + 899) == 0
    assert sweep(rows.store, CONFIG, NOW + 900) == 1
    assert rows.get(series).incomplete
    assert "gap" in rows.get(series).complete_by


def test_r6_a_late_slice_gives_a_second_generation_of_the_whole_series(rows):
    association = rows.association()
    series = rows.series(association, range(1, 11))
    memory = EvidenceMemory()
    sweep(rows.store, CONFIG, NOW + 2, memory)
    rows.add(series, association, 11, NOW + 20)
    assert sweep(rows.store, CONFIG, NOW + 24, memory) == 1
    assert [job.dedup_key for job in rows.jobs("route")] == [f"{series}:1", f"{series}:2"]
    assert rows.audit()[-1]["n_instances"] == 11


def test_headers_are_read_once_and_weigh_the_same(rows):
    """Issue part 4: the sweep at the end of an Association has to read only what came since the one before it."""
    association = rows.association("open")
    series, memory = rows.series(association, [1, 2, 5]), EvidenceMemory()
    for number in (6, 3, 7, 4, 8):
        with rows.store.read() as session:
            row = session.get_one(SeriesRow, series)
            assert memory.of(session, row) == EvidenceMemory().of(session, row)
            newest = memory.known[series].newest_id
        rows.add(series, association, number, NOW + number / 100)
        with rows.store.read() as session:
            assert [header["InstanceNumber"] for _, header in read_headers(session, series, newest)] == [(number,)]
    with rows.store.read() as session:
        evidence = memory.of(session, session.get_one(SeriesRow, series))
    assert (evidence.n_instances, evidence.reason) == (8, "InstanceNumber 1 to 8 without gap")


def test_the_sweep_reads_and_weighs_only_what_is_new(rows, monkeypatch):
    """Issue part 4: however often a Series is looked at, each header is read once, and weighed when one has come."""
    association = rows.association("open")
    series, memory = rows.series(association, [1, 2, 5]), EvidenceMemory()
    sweeping = sys.modules[Sweeper.__module__]
    read, weighed, weigh = [], [], sweeping.weigh

    def reading(*about):
        came = read_headers(*about)
        read.append(len(came))
        return came

    monkeypatch.setattr(sweeping, "read_headers", reading)
    monkeypatch.setattr(sweeping, "weigh", lambda headers: (weighed.append(len(headers)), weigh(headers))[1])
    for number in (None, None, 6, None, 7):
        if number is not None:
            rows.add(series, association, number, NOW)
        sweep(rows.store, CONFIG, NOW + 3, memory)
    assert read == [3, 0, 1, 0, 1]
    assert weighed == [3, 4, 5]


def test_an_image_is_weighed_though_the_row_of_its_series_does_not_say_yet_that_it_came(rows):
    """R6, decision 35: while an Association goes on, ``last_received_at`` lags behind what it brought."""
    association = rows.association("open")
    series, memory = rows.series(association, range(1, 11)), EvidenceMemory()
    sweep(rows.store, CONFIG, NOW + 3, memory)
    rows.add(series, association, 11, NOW)
    assert rows.get(series).last_received_at == NOW
    assert sweep(rows.store, CONFIG, NOW + 61, memory) == 1
    assert rows.audit()[-1]["n_instances"] == 11


def test_an_aborted_association_is_left_to_silence(rows):
    series = rows.series(rows.association("aborted"), range(1, 11))
    assert sweep(rows.store, CONFIG, NOW + 59) == 0
    assert sweep(rows.store, CONFIG, NOW + 60) == 1
    assert rows.get(series).complete_by == "silence for 60 s"


def test_a_second_open_association_of_the_sender_holds_a_series_back(rows):
    rows.series(rows.association(), range(1, 11))
    rows.association("open", stored=0)
    assert sweep(rows.store, CONFIG, NOW + 5) == 0


def test_open_associations_of_others_or_with_other_studies_do_not_hold_it_back(rows):
    rows.series(rows.association(), range(1, 11))
    rows.association("open", calling="MR1", stored=0)
    rows.association("open", stored=5)
    assert sweep(rows.store, CONFIG, NOW + 5) == 1


def test_silence_counts_from_the_start_of_the_receiving_process(rows):
    rows.series(rows.association("aborted"), range(1, 11))
    with rows.store.write() as session:
        session.add(ProcessRow(owner="a", role="receive", pid=1, started_at=NOW + 100, heartbeat_at=NOW + 100))
    assert sweep(rows.store, CONFIG, NOW + 159) == 0
    assert sweep(rows.store, CONFIG, NOW + 160) == 1


def test_nothing_ends_by_silence_while_the_receiving_process_is_down(rows):
    rows.series(rows.association("aborted"), range(1, 11))
    with rows.store.write() as session:
        stopped = ProcessRow(owner="a", role="receive", pid=1, started_at=NOW, heartbeat_at=NOW, stopped_at=NOW + 1)
        session.add(stopped)
    assert sweep(rows.store, CONFIG, NOW + 5000) == 0


def test_a_series_of_conflicts_only_completes_with_no_instance_to_analyse(rows):
    rows.series(rows.association(), [1], conflict=True)
    assert sweep(rows.store, CONFIG, NOW + 60) == 1
    assert (rows.audit()[0]["n_instances"], rows.audit()[0]["n_conflict"]) == (0, 1)


def test_the_sender_is_asked_once_after_a_pause_and_only_if_it_is_a_peer(rows):
    gap = rows.series(rows.association(), [1, 2, 3, 5, 6])
    rows.series(rows.association(calling="STRANGER"), [1, 2, 3, 5, 6], "1.2.2", calling="STRANGER")
    sweep(rows.store, CONFIG, NOW + 1)
    assert rows.jobs("count") == []
    for later in (2, 3, 30):
        sweep(rows.store, CONFIG, NOW + later)
    [job] = rows.jobs("count")
    assert job.payload == {"series_id": gap, "generation": 1}


def test_a_sender_that_did_not_answer_is_left_alone(rows):
    first = rows.series(rows.association(), [1, 2, 3, 5, 6])
    with rows.store.write() as session:
        session.get_one(SeriesRow, first).asked_at = NOW + 3
    rows.series(rows.association(), [1, 2, 3, 5, 6], "1.2.2")
    sweep(rows.store, CONFIG, NOW + 20)
    assert rows.jobs("count") == []
    sweep(rows.store, CONFIG, NOW + 700)
    assert len(rows.jobs("count")) == 1


def test_the_sender_is_not_asked_when_c_find_is_off(rows):
    rows.series(rows.association(), [1, 2, 3, 5, 6])
    off = CONFIG.model_copy(update={"assemble": CONFIG.assemble.model_copy(update={"use_c_find": False})})
    sweep(rows.store, off, NOW + 30)
    assert rows.jobs("count") == []


def test_the_senders_count_completes_the_series_in_the_next_sweep(rows):
    series = rows.series(rows.association(), [1, 2, 3, 5, 6])
    with rows.store.write() as session:
        row = session.get_one(SeriesRow, series)
        row.n_expected, row.asked_at = 5, NOW + 1
    assert sweep(rows.store, CONFIG, NOW + 1.5) == 1
    assert rows.get(series).complete_by == "the sender counts 5 (C-FIND)"
