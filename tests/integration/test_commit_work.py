"""Storage commitment from the asking side, against archives that answer at once, late, in part, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from dicomnode.audit import verify
from dicomnode.console.metrics import prometheus
from dicomnode.console.status import read_status
from dicomnode.deliver.back_off import DAY_S
from dicomnode.dicom.commitment import EventStatus
from dicomnode.errors import Permanent
from dicomnode.jobs import enqueue, expire, release_owner
from dicomnode.node.recovery import record_dead
from dicomnode.node.requeue import requeue_dead_job
from dicomnode.store.tables import JobRow
from tests.integration.commit_fixtures import LONG_S, AskingNode, CommitPacs, report_dataset

Start = Callable[..., tuple[CommitPacs, AskingNode]]
PATIENT_S = 60.0
"""For what comes, on a busy machine too."""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """An archive and a node that asks it; ``listen``: the node's Storage SCP runs too."""
    monkeypatch.setattr("dicomnode.deliver.commit_scu.REPLY_S", PATIENT_S)
    open_pacs: list[CommitPacs] = []
    nodes: list[AskingNode] = []

    def begin(
        *, listen: bool = False, options: dict[str, Any] | None = None, **how: Any
    ) -> tuple[CommitPacs, AskingNode]:
        pacs = CommitPacs(**how).__enter__()
        open_pacs.append(pacs)
        patience = {"linger_s": PATIENT_S} if pacs.how == "same" else {}  # a report that comes ends the wait
        node = AskingNode(tmp_path, pacs.peer(commit=True), **patience, **(options or {}))
        nodes.append(node)
        if listen:
            pacs.node_port = node.listen()
        return pacs, node

    yield begin
    for node in nodes:
        node.close()
    for pacs in open_pacs:
        pacs.__exit__()


def test_a_report_on_the_same_association_commits_everything(start: Start) -> None:
    pacs, node = start()
    node.result()
    node.work()
    assert node.committed() == [True] * 3
    assert pacs.heard() == [0x0000]
    ((transaction, asked),) = pacs.asked
    assert asked == node.uids()
    assert node.job().state == "done"
    (row,) = node.rows()
    assert (row.state, row.TransactionUID) == ("settled", transaction)
    (requested,), (committed,) = node.outbox.audit("commitment requested"), node.outbox.audit("committed")
    assert requested["TransactionUID"] == committed["TransactionUID"] == transaction
    assert (requested["peer"], requested["Status"], requested["PatientID"]) == ("pacs", 0, "P1")
    assert committed["counts"] == {"asked": 3, "committed": 3, "failed": 0}
    assert committed["instances"] == asked
    assert node.outbox.audit("commitment failed") == []
    with node.outbox.store.read() as session:
        assert verify(session).ok


def test_a_report_on_a_new_association_commits_everything_and_the_peer_need_not_be_a_sender(start: Start) -> None:
    """R13: the report may come on an association of its own."""
    pacs, node = start(how="none", listen=True)
    node.result()
    node.work()
    assert node.committed() == [False] * 3
    assert node.job().not_before == node.outbox.now + 600.0
    assert pacs.report(pacs.answer_to(0)) == 0x0000
    assert node.rows()[0].state == "answered"
    node.work()
    assert node.committed() == [True] * 3
    assert len(pacs.asked) == 1


def test_an_archive_that_negotiates_no_role_is_heard_too(start: Start) -> None:
    pacs, node = start(how="none", listen=True)
    node.result()
    node.work()
    assert pacs.report(pacs.answer_to(0), role=False) == 0x0000
    node.work()
    assert node.committed() == [True] * 3


def test_the_same_report_twice_changes_nothing(start: Start) -> None:
    pacs, node = start(how="none", listen=True)
    node.result()
    node.work()
    assert [pacs.report(pacs.answer_to(0)) for _ in range(2)] == [0x0000, 0x0000]
    node.work()
    pacs.reasons = dict.fromkeys(node.uids(), 0x0112)
    assert pacs.report(pacs.answer_to(0)) == 0x0000
    node.work()
    assert node.committed() == [True] * 3
    assert len(node.outbox.audit("committed")) == 1
    assert len(pacs.received) == 3


def test_what_the_archive_lost_is_sent_again_and_then_committed(start: Start) -> None:
    """R13: the failed list is sent again, and asked about again."""
    pacs, node = start()
    node.result()
    lost = node.uids()[1]
    pacs.reasons = {lost: 0x0112}
    node.work()
    assert node.committed() == [True, False, True]
    assert node.outbox.states() == ["delivered", "waiting", "delivered"]
    (failed,) = node.outbox.audit("commitment failed")
    assert failed["counts"] == {"asked": 3, "committed": 2, "failed": 1}
    assert failed["instances"] == [
        {
            "SOPInstanceUID": lost,
            "FailureReason": 0x0112,
            "text": "0x0112 no such object instance",
            "action": "send again",
        }
    ]
    node.work()
    assert len(pacs.asked) == 1, "nothing is asked before it has been sent again"
    pacs.reasons = {}
    node.deliver()
    assert pacs.uids[3:] == [lost]
    node.work()
    assert node.committed() == [True] * 3
    assert pacs.asked[1][1] == [lost]
    assert pacs.asked[0][0] != pacs.asked[1][0]
    assert node.job().state == "done"


def test_a_failure_that_comes_back_three_times_is_a_dead_letter_that_can_be_requeued(start: Start) -> None:
    pacs, node = start()
    node.result()
    pacs.reasons = {node.uids()[0]: 0x0110}
    for _ in range(3):
        node.work()
        node.deliver()
    job = node.job()
    assert (job.state, job.error) == ("dead", "1 instances not committed: 0x0110 processing failure")
    assert len(pacs.asked) == 3
    assert pacs.uids.count(node.uids()[0]) == 3, "sent, and sent again twice: the third failure is the last"
    assert node.committed() == [False, True, True]
    (letter,) = node.outbox.audit("dead letter")
    assert (letter["kind"], letter["peer"], letter["PatientID"]) == ("commit", "pacs", "P1")
    state = read_status(node.config, node.outbox.store, node.outbox.spool, node.outbox.now)
    assert state["commitments"] == {"pacs": {"committed": 2, "failed": 1}}
    assert 'dicomnode_commitments{destination="pacs",state="failed"} 1' in prometheus(state)
    pacs.reasons = {}
    requeue_dead_job(node.outbox.store, job.id, node.outbox.now)
    node.work()
    assert node.committed() == [True] * 3
    assert node.outbox.audit("requeued by hand")[0]["peer"] == "pacs"


@pytest.mark.parametrize("reason", [0x0122, 0x0119])
def test_a_lasting_failure_is_a_dead_letter_at_once_and_the_others_are_committed(start: Start, reason: int) -> None:
    pacs, node = start()
    node.result()
    pacs.reasons = {node.uids()[0]: reason, node.uids()[2]: 0x0213}
    node.work()
    assert node.outbox.states() == ["delivered", "delivered", "waiting"]
    del pacs.reasons[node.uids()[2]]
    node.deliver()
    node.work()
    assert node.committed() == [False, True, True]
    assert node.job().state == "dead"
    assert [len(uids) for _, uids in pacs.asked] == [3, 1]


def test_a_transaction_that_the_archive_knows_already_is_asked_anew_and_nothing_is_sent_again(start: Start) -> None:
    pacs, node = start()
    node.result()
    pacs.reasons = dict.fromkeys(node.uids(), 0x0131)
    node.committer.step()
    pacs.reasons = {}
    node.work()
    assert node.committed() == [True] * 3
    assert pacs.asked[0][0] != pacs.asked[1][0]
    assert len(pacs.received) == 3


def test_without_a_report_the_question_is_put_again_in_a_new_transaction(start: Start) -> None:
    """R13: no answer in time."""
    pacs, node = start(how="none")
    node.result()
    node.work()
    node.outbox.now += LONG_S
    node.work()
    assert [row.state for row in node.rows()] == ["expired", "requested"]
    assert pacs.asked[0][0] != pacs.asked[1][0]
    assert node.job().not_before == node.outbox.now + 1200.0
    assert node.outbox.audit("commitment failed")[0]["reason"] == "no report within 600 s"


def test_a_late_report_of_an_expired_transaction_counts(start: Start) -> None:
    pacs, node = start(how="none", listen=True)
    node.result()
    node.work()
    node.outbox.now += LONG_S
    node.work()
    assert pacs.report(pacs.answer_to(0)) == 0x0000
    node.work()
    assert node.committed() == [True] * 3
    assert [row.state for row in node.rows()] == ["settled", "expired"]
    assert node.job().state == "done"
    assert pacs.report(pacs.answer_to(1)) == 0x0000
    node.work()
    assert node.committed() == [True] * 3


def test_an_archive_that_never_reports_ends_as_a_dead_letter_after_seven_days(start: Start) -> None:
    pacs, node = start(how="none", options={"linger_s": 0.0})
    node.result()
    for _ in range(12):
        node.work()
        node.outbox.now += DAY_S
    assert node.job().state == "dead"
    assert node.job().error.startswith("given up after 7 days")
    assert len(node.outbox.audit("dead letter")) == 1
    assert 5 <= len(pacs.asked) <= 9


def test_a_report_that_comes_after_the_dead_letter_counts_without_an_operator(start: Start) -> None:
    pacs, node = start(how="none", listen=True, options={"linger_s": 0.0})
    node.result()
    for _ in range(12):
        node.work()
        node.outbox.now += DAY_S
    assert node.job().state == "dead"
    assert pacs.report(pacs.answer_to(-1)) == 0x0000
    node.work()
    assert node.committed() == [True] * 3
    assert (node.job().state, node.job().error) == ("done", "")
    assert len(node.outbox.audit("committed")) == 1
    assert pacs.report(pacs.answer_to(-1)) == 0x0000, "the same again wakes nobody"
    assert node.job().state == "done"


def test_a_clock_that_is_set_back_does_not_silence_the_question(start: Start) -> None:
    pacs, node = start(how="none", options={"linger_s": 0.0})
    node.result()
    right = node.outbox.now
    node.outbox.now += 365 * DAY_S
    with node.outbox.store.write() as session:
        session.execute(update(JobRow).values(payload={**node.job().payload, "waiting_since": node.outbox.now}))
    node.work()
    node.outbox.now = right + LONG_S
    with node.outbox.store.write() as session:
        expire(session, node.outbox.now)
    node.work()
    assert len(pacs.asked) == 2
    assert [row.state for row in node.rows()] == ["expired", "requested"]
    assert node.job().not_before <= node.outbox.now + DAY_S


@pytest.mark.parametrize("status", [0x0110, 0x0122, 0x0124, 0x0211, 0xA700])
def test_an_archive_that_refuses_the_request_is_asked_again_and_told_of_once(start: Start, status: int) -> None:
    pacs, node = start(status=status)
    node.result()
    for _ in range(3):
        node.work()
        node.outbox.now += LONG_S
    assert len(pacs.asked) == 3
    assert len({transaction for transaction, _ in pacs.asked}) == 1, "the same question, since it was never taken"
    (refused,) = node.outbox.audit("commitment failed")
    assert refused["reason"].startswith(f"storage commitment request: 0x{status:04X}")
    pacs.status = 0
    node.work()
    assert node.committed() == [True] * 3


def test_an_archive_that_takes_no_storage_commitment_is_a_dead_letter_after_seven_days(start: Start) -> None:
    _, node = start(commits=False)
    node.result()
    for _ in range(9):
        node.work()
        node.outbox.now += DAY_S
    assert node.job().state == "dead"
    assert node.job().error == "given up after 7 days: the peer does not accept Storage Commitment Push Model"
    assert len(node.outbox.audit("commitment failed")) == 1
    with pytest.raises(Permanent):
        requeue_dead_job(node.outbox.store, 999, node.outbox.now)


def test_a_node_that_dies_between_request_and_report_finds_the_answer_after_its_restart(start: Start) -> None:
    pacs, node = start(how="none", listen=True)
    node.result()
    worker = node.committer
    worker._end_attempt = lambda *_: None  # the process is gone after the N-ACTION, before it writes anything
    worker.step()
    assert node.job().state == "leased"
    assert pacs.report(pacs.answer_to(0)) == 0x0000
    with node.outbox.store.write() as session:
        assert release_owner(session, "deliver-1", node.outbox.now, crashed=True) == []
    node.work()
    assert node.committed() == [True] * 3
    assert len(pacs.asked) == 1


def test_a_node_that_dies_before_it_knows_whether_it_asked_puts_the_same_question_again(start: Start) -> None:
    pacs, node = start(how="none")
    node.result()
    worker = node.committer
    worker._end_attempt = lambda *_: None
    worker.step()
    with node.outbox.store.write() as session:
        release_owner(session, "deliver-1", node.outbox.now, crashed=True)
    pacs.how = "same"
    node.options["linger_s"] = PATIENT_S
    node.work()
    assert node.committed() == [True] * 3
    assert pacs.asked[0] == pacs.asked[1]


def test_a_commit_job_whose_worker_is_lost_too_often_is_a_dead_letter_with_its_subject(start: Start) -> None:
    _, node = start(how="none")
    node.result()
    for _ in range(3):
        worker = node.committer
        worker._end_attempt = lambda *_: None
        worker.step()
        with node.outbox.store.write() as session:
            dead = release_owner(session, "deliver-1", node.outbox.now, crashed=True)
            record_dead(session, node.outbox.spool, node.config, dead, node.outbox.now)
    (letter,) = node.outbox.audit("dead letter")
    assert (letter["kind"], letter["peer"], letter["PatientID"]) == ("commit", "pacs", "P1")


def test_an_instance_that_the_report_leaves_out_is_asked_about_again(start: Start) -> None:
    pacs, node = start(how="none", listen=True)
    node.result()
    node.work()
    first, *others = node.uids()
    assert pacs.report(report_dataset(pacs.asked[0][0], [*others, "1.2.3.4"])) == 0x0000
    node.work()
    assert node.committed() == [False, True, True]
    assert pacs.asked[1][1] == [first]
    assert node.outbox.audit("commitment failed")[0]["instances"][0]["text"] == "not mentioned in the report"
    assert len(pacs.received) == 3


def test_a_report_on_our_association_about_an_unknown_transaction_is_refused_and_audited(start: Start) -> None:
    pacs, node = start()
    node.result()
    pacs.answer_to = lambda _: report_dataset("1.2.3.4", node.uids())
    node.work()
    assert pacs.heard() == [EventStatus.INVALID_ARGUMENT_VALUE]
    assert node.committed() == [False] * 3
    (alert,) = node.outbox.audit("security alert")
    assert alert["reason"] == "storage commitment report of an unknown transaction"


def test_a_peer_that_is_not_to_be_asked_any_more_is_not_asked(start: Start) -> None:
    pacs, node = start()
    node.result()
    node.config = node.config.model_copy(update={"peer": (pacs.peer(commit=False),)})
    node.work()
    assert node.job().state == "done"
    assert pacs.asked == []
    state = read_status(node.config, node.outbox.store, node.outbox.spool, node.outbox.now)
    assert state["commitments"] == {"pacs": {"not asked": 3}}


def test_malformed_jobs_and_unknown_peers_are_dead_letters(start: Start) -> None:
    _, node = start()
    with node.outbox.store.write() as session:
        enqueue(session, "commit", "x", {}, node.outbox.now)
        enqueue(session, "commit", "1:gone", {"assignment_id": 1, "destination": "gone"}, node.outbox.now)
    node.work()
    assert {(job.state, job.error) for job in node.outbox.jobs()} == {
        ("dead", "the job names no assignment and destination"),
        ("dead", "no peer named 'gone' is configured"),
    }
    assert len(node.outbox.audit("dead letter")) == 2


def test_the_status_tells_what_is_not_committed_yet(start: Start) -> None:
    _, node = start(how="none")
    node.result()
    node.work()
    state = read_status(node.config, node.outbox.store, node.outbox.spool, node.outbox.now)
    assert state["commitments"] == {"pacs": {"pending": 3}}
