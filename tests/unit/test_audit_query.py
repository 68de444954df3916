"""Questions to the audit log: an index may make an answer fast, never incomplete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from dicomnode.audit import AuditFilter, append, find
from dicomnode.audit.account import patient_account, recall, timeline
from dicomnode.audit.actor import actor
from dicomnode.audit.events import Event
from dicomnode.audit.mapping import looked_kinds
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from tests.bench.scale import OUTCOMES, PER_STUDY, QUESTIONS, START_S, fill, image_uid, model_of, patient_id, study_uid
from tests.unit.test_query_plans import plans

STUDIES = 6
END_S = START_S + STUDIES * PER_STUDY


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


MORE: dict[str, AuditFilter] = {
    "everything": AuditFilter(),
    "several kinds": AuditFilter(event=("delivered", "inference", "audit_log_used")),
    "a peer by two names": AuditFilter(peer=("CT", "CT1")),
    "a peer by its AE title alone": AuditFilter(peer="SOLO"),
    "a peer that never was": AuditFilter(peer="NOBODY"),
    "a peer before a time": AuditFilter(peer="MR", until=at(START_S + 4.5 * PER_STUDY).isoformat()),
    "a peer from a time on": AuditFilter(peer="CT", since=at(START_S + 2.5 * PER_STUDY).isoformat()),
    "a peer's transfers": AuditFilter(peer="CT", event=("begin transferring", "instances transferred")),
    "a peer's images of a patient": AuditFilter(peer="CT", patient=patient_id(2), event="instance_stored"),
    "a digest's beginning": AuditFilter(model=model_of(1)[2][:12]),
    "a model by name and digest": AuditFilter(model=f"{model_of(1)[0]}@{model_of(1)[2]}"),
    "a model of another version": AuditFilter(model=f"{model_of(1)[0]}@9.9"),
    "an instance nobody knows": AuditFilter(instance="1.2.3"),
    "an instance in one event": AuditFilter(instance=image_uid(1, 3), event="instance stored"),
    "an accession number of the patient": AuditFilter(accession="A0000001", patient=patient_id(0)),
    "an accession number of somebody else": AuditFilter(accession="A0000005", patient=patient_id(0)),
    "a user and a kind": AuditFilter(user="ada", event="audit log used"),
    "a user and a study": AuditFilter(user="ada", study=study_uid(0)),
    "an outcome and a patient": AuditFilter(outcome=OUTCOMES[0], patient=patient_id(0)),
}
EMPTY = {
    "a peer that never was",
    "a model of another version",
    "an instance nobody knows",
    "an accession number of somebody else",
    "a user and a study",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Six studies, a peer without a name, an Association that is still open, and a clock that was set back."""
    made = Store(f"sqlite:///{tmp_path_factory.mktemp('query')}/x.sqlite3")
    fill(made, STUDIES * PER_STUDY, 1000)
    with made.write() as session:
        solo = {"association": 90, "peer": None, "CallingAETitle": "SOLO", "StudyInstanceUID": "1.9", "PatientID": "S"}
        for event in (Event.BEGIN_TRANSFERRING, Event.INSTANCE_STORED, Event.INSTANCES_TRANSFERRED):
            append(session, event, solo | {"n_new": 1}, at(END_S))
        append(session, Event.CLOCK_CHANGED, {"by_s": -float(STUDIES * PER_STUDY)}, at(END_S))
        late = at(START_S + 10.0)
        append(session, Event.SECURITY_ALERT, {"reason": "r", "peer": "CT"}, late)
        session.execute(
            text(
                'INSERT INTO association (id, "CallingAETitle", "CalledAETitle", address, peer, opened_at, ended, '
                "n_stored, n_refused, owner) VALUES (91, 'CT1', 'N', '10.0.0.1', 'CT', 1e9, 'open', 1, 0, '')"
            )
        )
        session.execute(text("UPDATE instance SET association_id = 91 WHERE id = 41"))
        open_one = {"association": 91, "peer": "CT", "CallingAETitle": "CT1", "StudyInstanceUID": study_uid(4)}
        append(session, Event.BEGIN_TRANSFERRING, open_one, at(END_S))
        append(session, Event.INSTANCE_STORED, open_one | {"SOPInstanceUID": image_uid(4, 0)}, at(END_S))
    yield made
    made.close()


def asked(store: Store, wanted: AuditFilter) -> list[int]:
    with store.read() as session:
        return [row["seq"] for row in find(session, wanted)]


@pytest.mark.parametrize("number", [0, 1, 4, 5])
@pytest.mark.parametrize("name", QUESTIONS)
def test_the_benchmarked_questions_are_answered_as_by_a_look_at_every_row(store: Store, name: str, number: int) -> None:
    """A1: whatever index leads to the rows, they are those that a look at each row finds."""
    wanted = QUESTIONS[name](number)
    by_index, by_look = asked(store, wanted), asked(store, replace(wanted, scan=True))
    assert by_index == by_look
    everything = replace(wanted, limit=None)
    assert asked(store, everything) == asked(store, replace(everything, scan=True))


@pytest.mark.parametrize("limit", [None, 7, 700])
@pytest.mark.parametrize("name", MORE)
def test_any_other_question_is_answered_as_by_a_look_at_every_row(store: Store, name: str, limit: int | None) -> None:
    wanted = replace(MORE[name], limit=limit)
    by_look = asked(store, replace(wanted, scan=True))
    assert asked(store, wanted) == by_look
    assert bool(by_look) != (name in EMPTY)


@pytest.mark.parametrize("name", [*QUESTIONS, *MORE])
def test_no_question_with_a_limit_reads_the_whole_log(store: Store, name: str) -> None:
    """1,000,000 rows within 50 ms: SQLite plans no scan of the table for any question that has an index."""
    wanted = QUESTIONS[name](1) if name in QUESTIONS else replace(MORE[name], limit=200)
    lines = [line for _, found in plans(store, lambda: asked(store, wanted)) for line in found]
    scans = [line for line in lines if line.startswith("SCAN audit") and "USING COVERING INDEX" not in line]
    if name in {"everything", "an instance nobody knows"}:
        assert scans
    else:
        assert scans == []


def test_an_image_that_retention_removed_is_still_found(store: Store, tmp_path: Path) -> None:
    """What the tables no longer know is looked for in every row."""
    uid = image_uid(3, 2)
    before = asked(store, AuditFilter(instance=uid))
    with store.write() as session:
        session.execute(text('DELETE FROM instance WHERE "SOPInstanceUID" = :uid'), {"uid": uid})
    assert before
    assert asked(store, AuditFilter(instance=uid)) == before


ODD = ["ada", 'a"da', "a\\da", "Ünal", "", "x" * 300, '"', "ada,", "{}"]


def test_odd_names_are_found_and_only_they(tmp_path: Path) -> None:
    """A quote, a backslash, a long name: the cut of an index hides no row and adds none."""
    made = Store(f"sqlite:///{tmp_path}/odd.sqlite3")
    migrate(made)
    with made.write() as session:
        for name in ODD:
            body = {"user": name, "model": name, "outcome": name, "peer": name}
            append(session, Event.INFERENCE, body)
            append(session, Event.AUDIT_LOG_USED, {"filters": {"of_user": name, "of_peer": name}, "user": "somebody"})
    for number, name in enumerate(ODD):
        for keyword in ("user", "outcome", "peer") if name else ("user", "outcome"):
            assert asked(made, AuditFilter(**{keyword: name})) == [2 * number + 1], (keyword, name)
            assert asked(made, AuditFilter(**{keyword: name}, limit=3)) == [2 * number + 1]
    made.close()


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({"model": "head", "model_version": "1.2", "weights_sha256": "ab" * 32}, ["head", "head@1.2", "ab" * 32]),
        ({"model": "head", "model_version": "1.2", "weights_sha256": "ab" * 32}, ["head@" + "ab" * 8, "abababab"]),
    ],
)
def test_a_model_is_named_in_any_way(tmp_path: Path, row: dict[str, str], names: list[str]) -> None:
    made = Store(f"sqlite:///{tmp_path}/model.sqlite3")
    migrate(made)
    with made.write() as session:
        append(session, Event.INFERENCE, {"model": "other", "model_version": "1.2", "weights_sha256": "cd" * 32})
        append(session, Event.INFERENCE, row)
    for name in names:
        assert asked(made, AuditFilter(model=name)) == [2]
    assert asked(made, AuditFilter(model="head@1.3")) == []
    made.close()


def test_everything_about_a_patient_has_every_row_of_every_study_and_who_looked(store: Store) -> None:
    """The timeline of a patient: rows that name the patient or only a Study, and the questions for either."""
    with store.write() as session:
        unnamed = append(session, Event.SECURITY_ALERT, {"StudyInstanceUID": study_uid(1), "reason": "r"})
        question = append(session, Event.AUDIT_LOG_USED, {"filters": {"patient": patient_id(0)}, "user": "eve"})
        other = append(session, Event.AUDIT_LOG_USED, {"filters": {"patient": patient_id(4)}, "user": "eve"})
    with store.read() as session:
        account = patient_account(session, patient_id(0))
    seqs = [row["seq"] for row in account.rows]
    assert set(account.studies) == {study_uid(0), study_uid(1)}
    assert seqs == sorted({*asked(store, AuditFilter(patient=patient_id(0), scan=True)), unnamed})
    looked = [row["seq"] for row in account.looked]
    assert question in looked
    assert other not in looked
    assert len(looked) == 3, "both studies were asked for when the log was filled"
    lines = list(timeline(account.rows))
    assert sum(line.count for line in lines) == len(seqs)
    assert len(lines) < 40, "the images of a Series are one line"


def test_a_recall_lists_every_analysis_of_a_version_with_its_results_and_destinations(store: Store) -> None:
    """Everything this model version touched, against the rows themselves."""
    name, version, digest = model_of(0)
    with store.read() as session:
        listed = list(recall(session, f"{name}@{version}"))
        same = list(recall(session, digest))
    expected = [n for n in range(STUDIES) if model_of(n) == (name, version, digest)]
    assert [row["StudyInstanceUID"] for row in listed] == [study_uid(n) for n in expected for _ in range(6)]
    assert listed == same
    assert {row["weights_sha256"] for row in listed} == {digest}
    assert all(len(row["results"]) == 3 for row in listed)


def test_a_recall_says_what_lies_where(tmp_path: Path) -> None:
    """Destinations and their states come from the deliveries of the Assignment, stand-ins too."""
    made = Store(f"sqlite:///{tmp_path}/recall.sqlite3")
    fill(made, PER_STUDY, 1000)
    with made.write() as session:
        body = {"model": "m", "model_version": "1", "weights_sha256": "ab" * 32, "assignment": 1, "outputs": []}
        append(session, Event.INFERENCE, body | {"PatientID": "P"})
    with made.read() as session:
        (row,) = recall(session, "m@1")
    assert len(row["results"]) == 3
    assert row["destinations"]["pacs"]["states"] == {"delivered": 3}
    made.close()


def test_who_looked_is_read_from_every_event_of_access(store: Store) -> None:
    assert str(Event.AUDIT_LOG_USED) in looked_kinds()
    assert str(Event.INSTANCE_STORED) not in looked_kinds()


@pytest.mark.parametrize(
    ("is_root", "environment", "expected"),
    [
        (False, {"SUDO_USER": "mallory"}, {"user"}),
        (True, {"SUDO_USER": "ada"}, {"user", "run_as"}),
        (True, {}, {"user"}),
    ],
)
def test_who_asks_is_the_account_and_behind_sudo_the_caller(
    monkeypatch: pytest.MonkeyPatch, is_root: bool, environment: dict[str, str], expected: set[str]
) -> None:
    """SUDO_USER counts in a process of root only: nobody else can be believed about it."""
    monkeypatch.setattr("os.geteuid", lambda: 0 if is_root else 65534)
    found = actor(environment)
    assert set(found) == expected
    assert found["user"] == ("ada" if "run_as" in found else found["user"])
    assert "mallory" not in found.values()
