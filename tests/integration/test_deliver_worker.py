"""The life of a delivery in the database, against archives that take, refuse, abort or are down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from dicomnode.audit import verify
from dicomnode.config import Peer
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.back_off import DAY_S, BackOff
from dicomnode.deliver.requeue import requeue_dead
from dicomnode.deliver.worker import Deliverer
from dicomnode.errors import Permanent
from dicomnode.jobs import Heartbeat, enqueue
from dicomnode.store.tables import JobRow
from tests.integration.deliver_fixtures import (
    FakePacs,
    JPEGBaseline8Bit,
    Outbox,
    aborting,
    body_of,
    config,
    hanging,
    make_file,
)
from tests.ports import free_port

PATIENT = SendLimits(connect_s=60.0, acse_s=60.0, dimse_s=60.0, stall_s=60.0, slowest_bytes_s=1e9)
LONG_S = 400.0


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path)


def deliverer(outbox: Outbox, *peers: Peer, **options) -> Deliverer:
    options.setdefault("limits", PATIENT)
    return Deliverer(config(*peers), outbox.store, outbox.spool, "deliver-1", outbox.clock, **options)


def absent(name: str = "pacs") -> Peer:
    """A peer whose port nobody listens on."""
    with FakePacs(port=free_port()) as gone:
        return gone.peer(name)


def wait_for(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def run_until(worker: Deliverer, done, seconds: float = 120.0, stop: threading.Event | None = None) -> None:
    stop = stop or threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        wait_for(done, seconds)
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def test_a_result_is_stored_once_and_the_audit_log_tells_what_went_where(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    with FakePacs() as pacs:
        worker = deliverer(outbox, pacs.peer())
        assert worker.step()
        assert not worker.step()
    derived = outbox.derived()
    assert pacs.associations == 1
    assert pacs.uids == [row.SOPInstanceUID for row in derived]
    assert [content for _, _, content in pacs.received] == [body_of(outbox.spool.absolute(row.path)) for row in derived]
    assert outbox.states() == ["delivered"] * 3
    assert all(row.status == 0 and row.attempts == 1 and row.delivered_at == outbox.now for row in outbox.deliveries())
    assert [job.state for job in outbox.jobs()] == ["done"]
    (told,) = outbox.audit("delivered")
    assert told["peer"] == "pacs"
    assert told["counts"] == {"sc": 2, "sr": 1}
    assert (told["PatientID"], told["AccessionNumber"]) == ("P1", "A1")
    assert told["StudyInstanceUID"]
    lines = [(line["SOPInstanceUID"], line["sha256"], line["Status"]) for line in told["instances"]]
    assert lines == [(row.SOPInstanceUID, row.sha256, 0) for row in derived]
    assert outbox.audit("delivery failed") == []
    with outbox.store.read() as session:
        assert verify(session).ok


def test_a_warning_counts_as_stored_and_is_shown(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    with FakePacs(lambda number, *_: 0xB000 if number == 2 else 0) as pacs:
        deliverer(outbox, pacs.peer()).step()
    assert outbox.states() == ["delivered", "warning", "delivered"]
    assert outbox.jobs()[0].state == "done"
    assert outbox.audit("delivered")[0]["instances"][1]["text"] == "0xB000 coercion of data elements"


def test_out_of_resources_is_tried_again_for_the_rest_only(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    with FakePacs(lambda number, *_: 0xA700 if number == 2 else 0) as pacs:
        worker = deliverer(outbox, pacs.peer())
        assert worker.step()
        assert outbox.states() == ["delivered", "waiting", "delivered"]
        (job,) = outbox.jobs()
        assert job.state == "ready"
        assert outbox.now <= job.not_before <= outbox.now + 2.0
        assert job.error == "0xA700 out of resources"
        outbox.now += 3.0
        assert worker.step()
    assert len(pacs.received) == 4
    assert pacs.uids[3] == pacs.uids[1]
    assert outbox.states() == ["delivered"] * 3
    assert [row.attempts for row in outbox.deliveries()] == [1, 2, 1]
    assert outbox.jobs()[0].state == "done"
    (failed,) = outbox.audit("delivery failed")
    assert failed["retry_at"] == job.not_before
    assert [line["state"] for line in failed["instances"]] == ["waiting"]


@pytest.mark.parametrize("status", [0xC000, 0xA900, 0x0122])
def test_a_refused_instance_is_a_dead_letter_at_once_and_the_others_go_on(outbox: Outbox, status: int) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    with FakePacs(lambda number, *_: status if number == 1 else 0) as pacs:
        worker = deliverer(outbox, pacs.peer())
        assert worker.step()
        outbox.now += LONG_S
        assert not worker.step()
    assert outbox.states() == ["failed", "delivered", "delivered"]
    (job,) = outbox.jobs()
    assert job.state == "dead"
    assert job.error.startswith(f"1 of 3 instances not delivered: 0x{status:04X}")
    (letter,) = outbox.audit("dead letter")
    assert letter["reason"] == job.error
    assert letter["peer"] == "pacs"
    assert letter["StudyInstanceUID"]
    assert outbox.audit("delivered")[0]["counts"] == {"sc": 1, "sr": 1}
    assert outbox.audit("delivery failed")[0]["retry_at"] is None


def test_refused_and_transient_in_one_batch_end_as_dead_letter_only_when_nothing_waits(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    answers = {1: 0xC000, 2: 0xA700}
    with FakePacs(lambda number, *_: answers.get(number, 0)) as pacs:
        worker = deliverer(outbox, pacs.peer())
        worker.step()
        assert outbox.states() == ["failed", "waiting", "delivered"]
        assert outbox.jobs()[0].state == "ready"
        outbox.now += LONG_S
        worker.step()
    assert outbox.states() == ["failed", "delivered", "delivered"]
    assert outbox.jobs()[0].state == "dead"
    assert "0xC000" in outbox.jobs()[0].error


def test_an_archive_that_is_down_loses_nothing_and_gets_all_when_it_is_back(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down for an hour of the node's clock, with the longest back-off in between."""
    monkeypatch.setattr("random.random", lambda: 1.0)
    for _ in range(3):
        outbox.add_result(outbox.add_study(), "pacs", kinds=("sc", "sr"))
    peer = absent()
    worker = deliverer(outbox, peer)
    tries = 0
    while outbox.now < 1_003_600.0:
        tries += worker.step()
        outbox.now += 15.0
    assert outbox.states() == ["waiting"] * 6
    assert {job.state for job in outbox.jobs()} == {"ready"}
    assert 12 < tries < 25, "back-off holds the lane, however much waits in it"
    assert {job.error for job in outbox.jobs()} == {"connection refused"}
    with FakePacs(port=peer.port) as pacs:
        for _ in range(200):
            worker.step()
            outbox.now += 15.0
            if outbox.states() == ["delivered"] * 6:
                break
    assert outbox.states() == ["delivered"] * 6
    assert len(pacs.received) == 6
    assert outbox.audit("dead letter") == []


def test_a_rejected_association_is_tried_again_because_the_other_side_may_mend_it(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    with FakePacs(title="OTHER") as wrong:
        worker = deliverer(outbox, wrong.peer(ae_title="PACS"))
        worker.step()
        assert outbox.states() == ["waiting"] * 3
        assert "Called AE title not recognised" in outbox.jobs()[0].error
        assert [row.attempts for row in outbox.deliveries()] == [0] * 3
    with FakePacs(title="PACS", port=wrong.port):
        outbox.now += LONG_S
        worker.step()
    assert outbox.states() == ["delivered"] * 3


def test_a_lost_association_sends_the_whole_batch_again_least_tried_first(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    with FakePacs(aborting(2)) as pacs:
        worker = deliverer(outbox, pacs.peer())
        worker.step()
        assert outbox.states() == ["waiting"] * 3
        outbox.now += LONG_S
        worker.step()
    first, second, third = (row.SOPInstanceUID for row in outbox.derived())
    assert pacs.uids == [first, second, third, first, second]
    assert outbox.states() == ["delivered"] * 3
    assert outbox.jobs()[0].state == "done"


def test_a_batch_that_never_passes_in_one_piece_gets_through_all_the_same(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"] * 6)

    def answer(number: int, _: str, association) -> int:
        if number % 3 == 0:
            association.abort()
        return 0

    with FakePacs(answer) as pacs:
        worker = deliverer(outbox, pacs.peer())
        for _ in range(12):
            worker.step()
            outbox.now += LONG_S
    assert outbox.states() == ["delivered"] * 6
    assert outbox.jobs()[0].state == "done"


def test_no_answer_to_a_store_is_tried_again(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sr"])
    release = threading.Event()
    with FakePacs(hanging(1, release)) as pacs:
        hasty = replace(PATIENT, dimse_s=1.0)
        deliverer(outbox, pacs.peer(), limits=hasty).step()
        release.set()
        assert outbox.jobs()[0].error == "no response to C-STORE within 1 s"
        outbox.now += LONG_S
        deliverer(outbox, pacs.peer()).step()
    assert outbox.states() == ["delivered"]


def test_after_seven_days_what_still_waits_is_a_dead_letter(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    worker = deliverer(outbox, absent())
    outbox.now += 7 * DAY_S - 1
    worker.step()
    assert outbox.jobs()[0].state == "ready"
    outbox.now += LONG_S
    worker.step()
    (job,) = outbox.jobs()
    assert job.state == "dead"
    assert job.error == "given up after 7 days: 3 of 3 instances not delivered: connection refused"
    assert outbox.states() == ["failed"] * 3


def test_a_requeued_dead_letter_is_sent_with_a_full_new_life(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    with FakePacs(lambda number, *_: 0xC000 if number == 1 else 0) as pacs:
        deliverer(outbox, pacs.peer()).step()
    (job,) = outbox.jobs()
    outbox.now += 8 * DAY_S
    assert requeue_dead(outbox.store, job.id, outbox.clock) == 1
    assert outbox.states() == ["waiting", "delivered", "delivered"]
    assert outbox.audit("requeued by hand")[0]["StudyInstanceUID"]
    worker = deliverer(outbox, absent())
    worker.step()
    assert outbox.jobs()[0].state == "ready", "its seven days count from the requeue"
    with FakePacs() as pacs:
        outbox.now += LONG_S
        deliverer(outbox, pacs.peer()).step()
    assert len(pacs.received) == 1
    assert outbox.states() == ["delivered"] * 3
    assert outbox.jobs()[0].state == "done"


def test_only_a_dead_delivery_can_be_requeued(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    with pytest.raises(Permanent):
        requeue_dead(outbox.store, outbox.jobs()[0].id, outbox.clock)
    assert outbox.states() == ["waiting"] * 3


def test_whoever_lost_its_lease_writes_nothing(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs")

    def answer(number: int, *_) -> int:
        if number == 2:
            with outbox.store.write() as session:
                session.execute(update(JobRow).values(lease_token="another", lease_owner="deliver-2"))
        return 0

    with FakePacs(answer) as pacs:
        assert deliverer(outbox, pacs.peer()).step()
    assert outbox.states() == ["waiting"] * 3
    assert outbox.audit("delivered") == []
    assert outbox.jobs()[0].lease_token == "another"


def test_a_long_batch_keeps_its_lease(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"])
    kept: list[bool] = []

    def answer(*_) -> int:
        outbox.now += 0.9
        wait_for(lambda: outbox.jobs()[0].lease_until == pytest.approx(start + 0.9 + 1.0))
        kept.append(True)
        return 0

    start = outbox.now
    with FakePacs(answer) as pacs:
        deliverer(outbox, pacs.peer(), lease_s=1.0).step()
    assert kept == [True]
    assert outbox.states() == ["delivered"]


def test_a_lease_lost_in_a_long_batch_stops_the_sending(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"] * 3)
    hearts: list[Heartbeat] = []

    class Watched(Heartbeat):
        def __enter__(self) -> Heartbeat:
            hearts.append(self)
            return super().__enter__()

    monkeypatch.setattr("dicomnode.deliver.worker.Heartbeat", Watched)

    def answer(*_) -> int:
        with outbox.store.write() as session:
            session.execute(update(JobRow).values(lease_token="another"))
        assert hearts[0].lost.wait(60)
        return 0

    with FakePacs(answer) as pacs:
        deliverer(outbox, pacs.peer(), lease_s=0.3).step()
    assert len(pacs.received) == 1
    assert outbox.states() == ["waiting"] * 3


def test_a_destination_that_is_no_longer_configured_is_a_dead_letter(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "old pacs")
    deliverer(outbox).step()
    (job,) = outbox.jobs()
    assert job.state == "dead"
    assert job.error == "3 of 3 instances not delivered: no peer named 'old pacs' is configured"
    assert outbox.states("old pacs") == ["failed"] * 3


@pytest.mark.parametrize(("damage", "reason"), [("remove", "missing from the spool"), ("change", "wrong SHA-256")])
def test_a_spool_file_that_is_not_what_was_made_is_never_sent(outbox: Outbox, damage: str, reason: str) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    first = outbox.derived()[0]
    path = outbox.spool.absolute(first.path)
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with FakePacs() as pacs:
        deliverer(outbox, pacs.peer()).step()
    assert first.SOPInstanceUID not in pacs.uids
    assert outbox.states() == ["failed", "delivered", "delivered"]
    assert reason in outbox.jobs()[0].error


def test_a_spool_disk_fault_is_tried_again(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"])

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with FakePacs() as pacs:
        worker = deliverer(outbox, pacs.peer())
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", broken)
            worker.step()
        assert outbox.jobs()[0].error == "spool: disk error 5"
        outbox.now += LONG_S
        worker.step()
    assert outbox.states() == ["delivered"]


def test_a_job_without_a_destination_or_anything_to_send_is_shown_not_dropped(outbox: Outbox) -> None:
    with outbox.store.write() as session:
        enqueue(session, "deliver", "a", {}, outbox.now)
        enqueue(session, "deliver", "b", {"assignment_id": 99, "destination": "pacs"}, outbox.now)
    with FakePacs() as pacs:
        worker = deliverer(outbox, pacs.peer())
        while worker.step():
            pass
    assert [job.state for job in outbox.jobs()] == ["dead", "dead"]
    assert outbox.jobs()[0].error == "the job names no assignment and destination"
    assert outbox.jobs()[1].error == "there is nothing to deliver"
    assert len(outbox.audit("dead letter")) == 2


def test_a_fault_of_our_own_is_recorded_without_its_text_and_tried_again(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"])

    def broken(*_):
        raise ZeroDivisionError("Sentinel^Secret")

    with FakePacs() as pacs:
        worker = deliverer(outbox, pacs.peer())
        with monkeypatch.context() as patch:
            patch.setattr("dicomnode.deliver.worker.send_to", broken)
            worker.step()
        assert outbox.jobs()[0].error.startswith("internal error: ZeroDivisionError at ")
        outbox.now += LONG_S
        worker.step()
    assert outbox.states() == ["delivered"]
    assert "Secret" not in caplog.text


def test_a_destination_that_hangs_does_not_delay_another(outbox: Outbox) -> None:
    series = outbox.add_study()
    release = threading.Event()
    for generation in range(1, 7):
        outbox.add_result(series, "slow", "fast", kinds=["sc"], generation=generation)
    with FakePacs(hanging(1, release)) as slow, FakePacs() as fast:
        worker = deliverer(outbox, slow.peer("slow"), fast.peer("fast"), parallel=2)
        meanwhile: list[tuple[int, list[str]]] = []

        def done() -> bool:
            if outbox.states("fast") != ["delivered"] * 6 or not slow.received:
                return False
            meanwhile.append((len(slow.received), outbox.states("slow")))
            release.set()
            return True

        run_until(worker, done)
    assert meanwhile == [(1, ["waiting"] * 6)]


def test_one_destination_gets_one_association_at_a_time(outbox: Outbox) -> None:
    for _ in range(5):
        outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"])
    at_once: list[int] = []
    lock = threading.Lock()

    def answer(*_) -> int:
        assert lock.acquire(blocking=False)
        at_once.append(1)
        time.sleep(0.05)
        lock.release()
        return 0

    with FakePacs(answer) as pacs:
        run_until(deliverer(outbox, pacs.peer()), lambda: outbox.states() == ["delivered"] * 5)
    assert len(at_once) == 5


def test_stopping_ends_the_running_store_and_leaves_the_rest_waiting(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"] * 20)
    started, stop = threading.Event(), threading.Event()

    def answer(*_) -> int:
        started.set()
        assert stop.wait(60)
        return 0

    with FakePacs(answer) as pacs:
        run_until(deliverer(outbox, pacs.peer()), started.is_set, stop=stop)
        n_sent = len(pacs.received)
        assert 1 <= n_sent < 10
        assert outbox.states() == ["delivered"] * n_sent + ["waiting"] * (20 - n_sent)
        (job,) = outbox.jobs()
        assert (job.state, job.error, job.not_before) == ("ready", "the node stopped", outbox.now)
        assert outbox.audit("delivery failed") == []
        deliverer(outbox, pacs.peer()).step()
    assert outbox.states() == ["delivered"] * 20
    assert len(set(pacs.uids)) == len(pacs.uids) == 20


def test_results_of_one_study_arrive_in_the_order_they_were_made(outbox: Outbox) -> None:
    """The newer generation waits behind the older one that has to be tried again; another study does not."""
    first, other = outbox.add_study(), outbox.add_study()
    outbox.add_result(first, "pacs", kinds=["sc"])
    outbox.add_result(first, "pacs", kinds=["sc"], generation=2)
    outbox.add_result(other, "pacs", kinds=["sc"])
    older, newer, elsewhere = (row.SOPInstanceUID for row in outbox.derived())
    with FakePacs(lambda number, *_: 0xA700 if number == 1 else 0) as pacs:
        worker = deliverer(outbox, pacs.peer(), back_off=BackOff(base_s=50.0))
        for _ in range(2000):
            worker.step()
            outbox.now += 1.0
            if outbox.states() == ["delivered"] * 3:
                break
    assert pacs.uids[0] == older
    rest = pacs.uids[1:]
    assert sorted(rest) == sorted([older, newer, elsewhere])
    assert rest.index(older) < rest.index(newer)


def test_one_bad_job_does_not_hold_up_its_destination(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when the draw lets it come back at once."""
    monkeypatch.setattr("random.random", lambda: 0.0)
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"])
    poison = outbox.derived()[0].SOPInstanceUID
    for _ in range(3):
        outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"])

    def answer(_: int, uid: str, association) -> int:
        if uid == poison:
            association.abort()
        return 0

    with FakePacs(answer) as pacs:
        worker = deliverer(outbox, pacs.peer())
        for _ in range(6):
            worker.step()
    assert outbox.states() == ["waiting", "delivered", "delivered", "delivered"]


def test_what_the_archive_cannot_take_in_our_syntax_is_a_dead_letter_with_the_reason(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"])
    (derived,) = outbox.derived()
    path = outbox.spool.absolute(derived.path)
    make_file(path, syntax=JPEGBaseline8Bit)
    from hashlib import sha256

    from dicomnode.store.tables import DerivedRow

    with outbox.store.write() as session:
        session.execute(update(DerivedRow).values(sha256=sha256(path.read_bytes()).hexdigest()))
    with FakePacs() as pacs:
        deliverer(outbox, pacs.peer()).step()
    assert outbox.states() == ["failed"]
    assert "the peer does not accept Secondary Capture" in outbox.jobs()[0].error


def test_no_record_and_no_log_line_holds_a_patient_name(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for answer in (aborting(2), lambda *_: 0xC000, lambda *_: 0):
        outbox.add_result(outbox.add_study(), "pacs")
        with FakePacs(answer) as pacs:
            deliverer(outbox, pacs.peer()).step()
            outbox.now += LONG_S
    records = [str(outbox.audit(kind)) for kind in ("delivered", "delivery failed", "dead letter")]
    records += [job.error for job in outbox.jobs()]
    assert "Sentinel" not in " ".join(records) + caplog.text


@pytest.mark.parametrize(
    ("commit", "status", "asked"), [(True, 0, 1), (False, 0, 0), (True, 0xC000, 0), (True, 0xA700, 0)]
)
def test_storage_commitment_is_asked_for_when_all_is_there_and_the_peer_is_to_commit(
    outbox: Outbox, commit: bool, status: int, asked: int
) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"])
    with FakePacs(lambda *_: status) as pacs:
        deliverer(outbox, pacs.peer(commit=commit)).step()
    assert [job.kind for job in outbox.jobs()].count("commit") == asked


def test_storage_commitment_is_asked_for_what_arrived_beside_a_dead_letter_too(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs")
    with FakePacs(lambda number, *_: 0xC000 if number == 1 else 0) as pacs:
        deliverer(outbox, pacs.peer(commit=True)).step()
    assert {job.kind: job.state for job in outbox.jobs()} == {"deliver": "dead", "commit": "ready"}
