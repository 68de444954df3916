"""Retention on a real database and a real spool: what goes, in which order, what is told, and what a crash leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from dicomnode.config import parse_config
from dicomnode.deliver.outbox import Parcel, outbound
from dicomnode.errors import ConfigError, Permanent
from dicomnode.node import retention
from dicomnode.node.retention import PERIOD_S, RETENTION_JOB, RetentionTimer, keep_space, remove_files, survey
from dicomnode.store.tables import (
    AuditRow,
    DeliveryRow,
    DerivedRow,
    InstanceRow,
    JobRow,
    RemovalRow,
    SeriesRow,
    StudyRow,
)
from tests.integration.retention_fixtures import COMMITS, Analysis, OneSeries, OneStudy, Sent, Ward, settings

OPEN = OneStudy(series=(OneSeries(analyses=(Analysis(objects=(Sent(committed=False),)),)),))
EVERYTHING = 10**18


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.store.close()


def audited(ward: Ward) -> list[dict]:
    return [json.loads(row.body) for row in ward.rows(AuditRow) if row.kind == "study deleted"]


def test_a_study_goes_whole_and_the_record_says_who_holds_its_results(ward: Ward) -> None:
    """Its rows, its files and one "study deleted" (PS3.15 A.5.3.8); what stays is what later results refer to."""
    study, other = ward.admit(OneStudy()), ward.admit(OneStudy(days=1))
    mine, theirs = ward.files(study), ward.files(other)
    assert ward.run() == 1
    assert ward.on_disk() == set(theirs)
    assert len(mine) == 4
    (told,) = audited(ward)
    row = next(row for row in ward.rows(StudyRow) if row.id == study)
    assert told["StudyInstanceUID"] == row.StudyInstanceUID
    assert (told["PatientID"], told["instances"], told["reason"]) == ("P1", 2, "old enough")
    assert told["results_at"] == {COMMITS: 2}
    assert row.deleted_at == ward.now
    assert [series.generation for series in ward.rows(SeriesRow)] == [1, 1]
    assert [item.path == "" for item in ward.rows(DerivedRow)] == [True, True, False, False]
    assert ward.rows(RemovalRow) == []


def test_sources_stay_until_the_archive_has_committed_every_result(ward: Ward) -> None:
    """R13: not before commitment, however old; and as soon as the last commitment is there."""
    study = ward.admit(OPEN)
    ward.now += 300 * 86_400
    assert ward.run() == 0
    with ward.store.write() as session:
        for row in session.scalars(select(DeliveryRow)):
            row.committed_at = ward.now
    assert ward.run() == 0, "it has only just been settled"
    ward.now += 31 * 86_400
    assert ward.run() == 1
    assert ward.files(study) == []


def test_a_crash_after_the_rows_leaves_files_that_the_next_run_removes(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R13: rows and their record go first; a file without a row hurts nobody, a row without its file would."""
    study = ward.admit(OneStudy())
    files = ward.files(study)
    job = ward.claimed()

    def killed(*_: object) -> int:
        if ward.rows(InstanceRow):
            return 0
        raise KeyboardInterrupt

    monkeypatch.setattr(retention, "remove_files", killed)
    with pytest.raises(KeyboardInterrupt):
        keep_space(ward.store, ward.spool, ward.config, job, ward.clock)
    monkeypatch.undo()
    assert all(path.exists() for path in files)
    assert len(ward.rows(RemovalRow)) == len(files)
    assert len(audited(ward)) == 1
    while remove_files(ward.store, ward.spool):
        pass
    assert not any(path.exists() for path in files)
    assert ward.rows(RemovalRow) == []


def test_a_file_that_cannot_be_removed_stays_listed_and_does_not_stop_the_others(ward: Ward) -> None:
    stuck = ward.spool.absolute("received/aa")
    (stuck / "full").mkdir(parents=True)
    study = ward.admit(OneStudy())
    with ward.store.write() as session:
        session.add(RemovalRow(path="received/aa", decided_at=1.0))
    assert ward.run() == 1
    assert ward.files(study) == []
    assert [row.path for row in ward.rows(RemovalRow)] == ["received/aa"]
    assert ward.on_disk() == set()


def test_a_study_that_changes_between_judgement_and_deletion_stays(ward: Ward) -> None:
    """The rules are asked again in the transaction that deletes."""
    study = ward.admit(OneStudy())
    with ward.store.read() as session:
        (verdict,) = survey(session, ward.config, EVERYTHING, ward.now)
    with ward.store.write() as session:
        session.scalars(select(SeriesRow)).one().state = "open"
    assert not retention.delete_study(ward.store, ward.config, verdict, ward.now)
    assert all(path.exists() for path in ward.files(study))
    assert audited(ward) == []


def test_below_the_reserve_those_go_that_have_rested_longest_and_no_more_than_needed(tmp_path: Path) -> None:
    """Age is no reason here; what changed within the hour stays even with a full disk."""
    ward = Ward(tmp_path, settings(None, reserve_bytes=3 * 2**30))
    young, old, older = (ward.admit(OneStudy(days=days)) for days in (0.01, 2, 3))
    with ward.store.read() as session:
        size = next(survey(session, ward.config, 0, ward.now)).study.size
        free = 3 * 2**30 - size // 2
        verdicts = list(survey(session, ward.config, free, ward.now, everything=True))
    assert [(verdict.study.id, verdict.goes) for verdict in verdicts] == [(older, True), (old, False), (young, False)]
    assert verdicts[0].why == "the disk is below its reserve"
    with ward.store.read() as session:
        verdicts = list(survey(session, ward.config, 0, ward.now, everything=True))
    assert [verdict.goes for verdict in verdicts] == [True, True, False]
    ward.store.close()


def test_every_reason_to_stay_is_named(ward: Ward) -> None:
    """An operator who wonders why the disk is full reads it in the dry run."""
    ward.admit(OneStudy(series=(OneSeries(state="open", connected=True, generation=2, job="ready"),)))
    waits = Sent(state="waiting")
    ward.admit(OneStudy(series=(OneSeries(analyses=(Analysis(outcome=None, objects=(waits,), job="leased"),)),)))
    ward.admit(OneStudy(series=(OneSeries(analyses=(Analysis(outcome="failed", objects=(), job="dead"),)),)))
    ward.admit(OneStudy(series=(OneSeries(analyses=(Analysis(send_to=("viewer",)),)),)))
    ward.admit(OPEN)
    with ward.store.read() as session:
        verdicts = list(survey(session, ward.config, EVERYTHING, ward.now))
    assert [verdict.why for verdict in verdicts] == [
        "1 series still open; 1 series whose sender is still connected; 1 series without an outcome; 1 jobs pending",
        "1 analyses pending; 1 objects not delivered; 1 jobs pending",
        "1 analyses failed; 1 dead letters",
        "no result at viewer",
        "1 objects not committed",
    ]
    assert not any(verdict.goes for verdict in verdicts)


def test_a_long_run_gives_its_job_back_and_goes_on_later(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """Routing does not wait behind a thousand deletions."""
    for _ in range(3):
        ward.admit(OneStudy())
    monkeypatch.setattr(retention, "BATCH_S", -1.0)
    assert [ward.run() for _ in range(3)] == [1, 1, 1]
    assert [(row.kind, row.state) for row in ward.rows(JobRow) if row.kind == RETENTION_JOB] == [("retention", "done")]


def test_a_timer_that_ticks_twice_or_is_lost_makes_one_job(ward: Ward) -> None:
    """R15: the timer asks, the database remembers, the worker does."""
    for _ in range(3):
        RetentionTimer(ward.config, ward.store, ward.spool, lambda: 0.0).tick(ward.now)
    assert [row.kind for row in ward.rows(JobRow)] == [RETENTION_JOB]
    assert ward.run() == 0
    seconds = iter([0.0, PERIOD_S - 1, PERIOD_S, PERIOD_S])
    timer = RetentionTimer(ward.config, ward.store, ward.spool, lambda: next(seconds))
    states = []
    for _ in range(3):
        timer.tick(ward.now)
        states.append(ward.rows(JobRow)[0].state)
        if states[-1] == "ready":
            ward.run()
    assert states == ["ready", "done", "ready"]


def test_retention_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    ward = Ward(tmp_path, parse_config("")[0])
    study = ward.admit(OneStudy(days=4000))
    RetentionTimer(ward.config, ward.store, ward.spool, lambda: 0.0).tick(ward.now)
    assert [row for row in ward.rows(JobRow) if row.kind == RETENTION_JOB] == []
    assert ward.run() == 0
    assert len(ward.files(study)) == 4
    ward.store.close()


def test_a_reserve_below_the_limit_of_reception_is_refused() -> None:
    with pytest.raises(ConfigError, match="intake would stop first"):
        parse_config("[retention]\nreserve_bytes = 1000\n")


def test_a_result_whose_file_retention_removed_is_never_sent(ward: Ward) -> None:
    parcel = Parcel(1, "sc", "1.2.3", "1.2", "ab", "")
    with pytest.raises(Permanent, match="removed by retention"):
        outbound(ward.spool, parcel)
