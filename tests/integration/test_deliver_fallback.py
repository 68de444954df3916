"""A result reaches every peer that takes any of its objects, by the chain of stand-ins, or is a visible dead letter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import update

from dicomnode.config import Peer, ResultSettings
from dicomnode.config.results import NEEDS, PROFILES, SEND_ORDER, stand_ins, with_stand_ins
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.requeue import requeue_dead
from dicomnode.deliver.worker import Deliverer
from dicomnode.store.tables import DerivedRow
from tests.integration.deliver_fixtures import (
    CLASS_OF,
    SC,
    SR,
    FakePacs,
    JPEGBaseline8Bit,
    Outbox,
    aborting,
    config,
    make_file,
)
from tests.integration.stow_fixtures import StowServer

PATIENT = SendLimits(connect_s=60.0, acse_s=60.0, dimse_s=60.0, stall_s=60.0, slowest_bytes_s=1e9)
ALL_CLASSES = frozenset(CLASS_OF.values())
SEG, PDF = CLASS_OF["seg"], CLASS_OF["pdf"]


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path)


def add(outbox: Outbox, objects: tuple[str, ...]) -> None:
    """A result of ``objects`` for the peer, with all that may stand in for them, as ``detect`` stores it."""
    standby = [kind for kind in with_stand_ins(objects) if kind not in objects]
    outbox.add_result(outbox.add_study(), "pacs", kinds=objects, standby=standby)


def deliver(outbox: Outbox, peer) -> int:
    """Attempts until nothing is left to do, without letting time pass."""
    worker = Deliverer(config(peer), outbox.store, outbox.spool, "deliver-1", outbox.clock, limits=PATIENT)
    for attempts in range(20):
        if not worker.step():
            return attempts
    raise AssertionError("the job never ends")


@contextmanager
def pacs_refusing(refused: frozenset[str], channel: str) -> Iterator[FakePacs | StowServer]:
    classes = sorted(ALL_CLASSES - refused)
    with FakePacs(classes=classes) if channel == "dimse" else StowServer(classes=classes) as pacs:
        yield pacs


def objects_of(profile: str) -> tuple[str, ...]:
    return ResultSettings.model_validate({"profile": profile}).objects_for("pacs")


def refusals() -> Iterator[tuple[str, frozenset[str]]]:
    """Every profile with each of its SOP Classes refused, all of them, and everything there is."""
    for profile in PROFILES:
        own = sorted({CLASS_OF[kind] for kind in objects_of(profile)})
        chosen = [frozenset({one}) for one in own] + [frozenset(own), ALL_CLASSES]
        yield from ((profile, refused) for refused in dict.fromkeys(chosen))


def label(value: object) -> str:
    if not isinstance(value, frozenset):
        return str(value)
    return "everything" if value == ALL_CLASSES else "+".join(kind for kind in SEND_ORDER if CLASS_OF[kind] in value)


@pytest.mark.parametrize("channel", ["dimse", "stow"])
@pytest.mark.parametrize(("profile", "refused"), list(refusals()), ids=label)
def test_whatever_a_peer_refuses_the_result_arrives_or_is_a_visible_dead_letter(
    outbox: Outbox, profile: str, refused: frozenset[str], channel: str
) -> None:
    objects = objects_of(profile)
    add(outbox, objects)
    with pacs_refusing(refused, channel) as pacs:
        deliver(outbox, pacs.peer())
    arrived = {outbox.kind_of(uid) for uid in pacs.uids}
    taken = {kind for kind in objects if CLASS_OF[kind] not in refused}
    taken -= {kind for kind in taken if not taken.issuperset(NEEDS.get(kind, ()))}
    hopeless = [
        kind
        for kind in objects
        if kind not in taken and not any(CLASS_OF[other] not in refused for other in stand_ins(kind))
    ]
    assert taken <= arrived
    for kind in set(objects) - taken - set(hopeless):
        assert arrived & set(stand_ins(kind)), f"something carries what {kind} would have said"
    assert len(pacs.uids) == len(set(pacs.uids)), "nothing is sent twice"
    told = {event["refused"]: event for event in outbox.audit("fell back")}
    assert set(objects) - taken <= set(told)
    assert all(CLASS_OF[kind] == event["SOPClassUID"] and event["count"] == 1 for kind, event in told.items())
    assert all(event["peer"] == "pacs" and event["reason"] and event["StudyInstanceUID"] for event in told.values())
    (job,) = outbox.jobs()
    assert job.state == ("dead" if hopeless else "done")
    ends = [kind for kind, event in told.items() if event["sent_instead"] is None and kind not in NEEDS]
    assert bool(ends) == bool(hopeless)
    assert all(f"nothing can stand in for {kind}" in job.error for kind in ends)
    assert bool(outbox.audit("dead letter")) == bool(hopeless)
    for row in outbox.derived():
        assert sha256(outbox.spool.absolute(row.path).read_bytes()).hexdigest() == row.sha256, "nothing is lost"


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_peer_that_takes_everything_gets_its_profile_and_nothing_else(outbox: Outbox, profile: str) -> None:
    objects = objects_of(profile)
    add(outbox, objects)
    with pacs_refusing(frozenset(), "dimse") as pacs:
        deliver(outbox, pacs.peer())
    assert [outbox.kind_of(uid) for uid in pacs.uids] == sorted(
        objects, key=lambda kind: (kind in NEEDS, SEND_ORDER.index(kind))
    )
    assert outbox.audit("fell back") == []
    assert outbox.jobs()[0].state == "done"


@pytest.mark.parametrize("status", [0x0122, 0x0118])
def test_the_status_that_a_class_is_not_supported_is_a_refusal_of_the_kind(outbox: Outbox, status: int) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["seg", "seg", "sr"], standby=["sc", "pdf", "page"])
    segs = {row.SOPInstanceUID for row in outbox.derived() if row.kind == "seg"}
    with FakePacs(lambda _, uid, __: status if uid in segs else 0, classes=sorted(ALL_CLASSES)) as pacs:
        deliver(outbox, pacs.peer())
    assert outbox.states_by_kind() == {"seg": ["replaced"] * 2, "sr": ["delivered"], "sc": ["delivered"]}
    (told,) = outbox.audit("fell back")
    assert (told["refused"], told["count"], told["sent_instead"], told["already_sent"]) == ("seg", 2, "sc", False)
    assert told["reason"].startswith(f"0x{status:04X}")
    assert outbox.jobs()[0].state == "done"


def test_a_stand_in_that_the_peer_gets_anyway_is_sent_once(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc", "seg", "sr"], standby=["pdf", "page"])
    with pacs_refusing(frozenset({SEG}), "dimse") as pacs:
        assert deliver(outbox, pacs.peer()) == 1
    assert outbox.states_by_kind() == {"sc": ["delivered"], "seg": ["replaced"], "sr": ["delivered"]}
    (told,) = outbox.audit("fell back")
    assert (told["sent_instead"], told["already_sent"]) == ("sc", True)


def test_a_stand_in_goes_at_once_and_does_not_wait_for_the_back_off(outbox: Outbox) -> None:
    add(outbox, ("seg",))
    start = outbox.now
    with pacs_refusing(frozenset({SEG}), "dimse") as pacs:
        assert deliver(outbox, pacs.peer()) == 2
    assert outbox.now == start
    assert [outbox.kind_of(uid) for uid in pacs.uids] == ["sc"]


def test_a_stand_in_of_a_class_that_was_refused_is_not_even_tried(outbox: Outbox) -> None:
    """ "page" would stand in for "ko", but is a Secondary Capture like "sc"."""
    add(outbox, ("sc", "ko"))
    with pacs_refusing(frozenset({SC, CLASS_OF["ko"]}), "dimse") as pacs:
        deliver(outbox, pacs.peer())
    assert [outbox.kind_of(uid) for uid in pacs.uids] == ["pdf"]
    assert {event["sent_instead"] for event in outbox.audit("fell back")} == {"pdf"}


def test_a_stand_in_that_was_never_made_is_passed_over_and_without_any_the_job_is_dead(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["seg"], standby=["pdf"])
    outbox.add_result(outbox.add_study(), "pacs", kinds=["seg"])
    with pacs_refusing(frozenset({SEG}), "dimse") as pacs:
        deliver(outbox, pacs.peer())
    assert [outbox.kind_of(uid) for uid in pacs.uids] == ["pdf"]
    assert [job.state for job in outbox.jobs()] == ["done", "dead"]
    assert "does not accept Segmentation Storage" in outbox.jobs()[1].error
    assert outbox.jobs()[1].error.endswith("nothing can stand in for seg")
    assert outbox.states() == ["replaced", "failed", "delivered"]


def test_a_kind_that_is_partly_refused_is_not_replaced(outbox: Outbox) -> None:
    """One of two Secondary Captures is in a Transfer Syntax that the peer does not accept."""
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc", "sc"], standby=["pdf", "page"])
    odd = outbox.derived()[1]
    path = outbox.spool.absolute(odd.path)
    make_file(path, syntax=JPEGBaseline8Bit)
    with outbox.store.write() as session:
        changed = update(DerivedRow).where(DerivedRow.id == odd.id)
        session.execute(changed.values(sha256=sha256(path.read_bytes()).hexdigest()))
    with pacs_refusing(frozenset(), "dimse") as pacs:
        deliver(outbox, pacs.peer())
    assert outbox.states_by_kind() == {"sc": ["delivered", "failed"]}
    assert outbox.audit("fell back") == []
    assert outbox.jobs()[0].state == "dead"


def test_another_failure_than_a_refusal_replaces_nothing(outbox: Outbox) -> None:
    add(outbox, ("seg",))
    with FakePacs(lambda *_: 0xC000, classes=sorted(ALL_CLASSES)) as pacs:
        deliver(outbox, pacs.peer())
    assert outbox.states_by_kind() == {"seg": ["failed"]}
    assert outbox.audit("fell back") == []


def test_a_mended_pacs_gets_the_real_objects_after_a_requeue(outbox: Outbox) -> None:
    add(outbox, ("seg", "sr", "sr-volume"))
    with pacs_refusing(ALL_CLASSES, "dimse") as pacs:
        deliver(outbox, pacs.peer())
    (job,) = outbox.jobs()
    assert job.state == "dead"
    assert "delivered" not in outbox.states()
    n_waiting = requeue_dead(outbox.store, job.id, outbox.clock)
    assert n_waiting == len(outbox.states())
    with pacs_refusing(frozenset(), "dimse") as pacs:
        deliver(outbox, pacs.peer())
    assert outbox.jobs()[0].state == "done"
    assert {"seg", "sr", "sr-volume"} <= {outbox.kind_of(uid) for uid in pacs.uids}
    assert set(outbox.states()) == {"delivered"}


def test_the_page_about_an_earlier_failure_does_not_stand_in_for_the_result(outbox: Outbox) -> None:
    """After a requeue, pages of two outcomes belong to one Assignment; only the last one is true."""
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sr"], standby=["pdf", "pdf"])
    old, new = [row for row in outbox.derived() if row.kind == "pdf"]
    with outbox.store.write() as session:
        session.execute(update(DerivedRow).where(DerivedRow.id == old.id).values(created_at=outbox.now - 60.0))
    with pacs_refusing(frozenset({SR}), "dimse") as pacs:
        deliver(outbox, pacs.peer())
    assert pacs.uids == [new.SOPInstanceUID]
    assert outbox.jobs()[0].state == "done"


def test_a_requeue_at_a_pacs_that_still_refuses_ends_the_same_way(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["seg", "sr"], standby=["sc"])
    poison = next(row.SOPInstanceUID for row in outbox.derived() if row.kind == "sr")
    classes = sorted(ALL_CLASSES - {SEG})
    with FakePacs(lambda _, uid, __: 0xC000 if uid == poison else 0, classes=classes) as pacs:
        deliver(outbox, pacs.peer())
        assert outbox.jobs()[0].state == "dead"
        requeue_dead(outbox.store, outbox.jobs()[0].id, outbox.clock)
        deliver(outbox, pacs.peer())
    assert outbox.states_by_kind() == {"seg": ["replaced"], "sr": ["failed"], "sc": ["delivered"]}
    assert outbox.jobs()[0].state == "dead"


def test_the_volume_document_goes_after_what_it_refers_to(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sr-volume", "sr", "seg"])
    segs = {row.SOPInstanceUID for row in outbox.derived() if row.kind == "seg"}
    answers = iter([0xA700, 0])
    with FakePacs(lambda _, uid, __: next(answers) if uid in segs else 0, classes=sorted(ALL_CLASSES)) as pacs:
        deliver(outbox, pacs.peer())
        assert [outbox.kind_of(uid) for uid in pacs.uids] == ["seg", "sr"]
        assert outbox.states_by_kind()["sr-volume"] == ["waiting"]
        outbox.now += 400.0
        assert deliver(outbox, pacs.peer()) == 2
    assert [outbox.kind_of(uid) for uid in pacs.uids] == ["seg", "sr", "seg", "sr-volume"]
    assert outbox.jobs()[0].state == "done"


@pytest.mark.parametrize(("lost", "status"), [("seg", 0x0122), ("sr", 0x0122), ("seg", 0xC000), ("sr", 0xC000)])
def test_the_volume_document_is_not_sent_without_what_it_refers_to(outbox: Outbox, lost: str, status: int) -> None:
    add(outbox, ("seg", "sr", "sr-volume"))
    uids = {row.SOPInstanceUID for row in outbox.derived() if row.kind == lost}
    with FakePacs(lambda _, uid, __: status if uid in uids else 0, classes=sorted(ALL_CLASSES)) as pacs:
        deliver(outbox, pacs.peer())
    assert "sr-volume" not in {outbox.kind_of(uid) for uid in pacs.uids}
    assert outbox.states_by_kind()["sr-volume"] == ["replaced"]
    told = next(event for event in outbox.audit("fell back") if event["refused"] == "sr-volume")
    assert told["reason"] == f"it needs {lost}, which the peer has not got"
    assert outbox.jobs()[0].state == ("done" if status == 0x0122 else "dead")


def test_objects_leave_in_the_order_of_sending_whatever_the_order_of_their_rows(outbox: Outbox) -> None:
    kinds = ["page", "pdf", "sr", "ko", "gsps", "pm", "seg", "mf-sc", "sc"]
    outbox.add_result(outbox.add_study(), "pacs", kinds=kinds)
    with pacs_refusing(frozenset(), "dimse") as pacs:
        deliver(outbox, pacs.peer())
    assert [outbox.kind_of(uid) for uid in pacs.uids] == list(reversed(kinds))


def test_a_refusal_counts_even_when_the_association_is_lost_afterwards(outbox: Outbox) -> None:
    """What was accepted is sent again as a whole, what was refused is not proposed again."""
    outbox.add_result(outbox.add_study(), "pacs", kinds=["seg", "sr", "sr"], standby=["sc"])
    with FakePacs(aborting(2), classes=[SC, SR]) as pacs:
        deliver(outbox, pacs.peer())
        assert outbox.states_by_kind() == {"seg": ["replaced"], "sr": ["waiting"] * 2, "sc": ["waiting"]}
        outbox.now += 400.0
        deliver(outbox, pacs.peer())
    assert outbox.states_by_kind() == {"seg": ["replaced"], "sr": ["delivered"] * 2, "sc": ["delivered"]}
    assert len(outbox.audit("fell back")) == 1


def test_one_peer_that_refuses_changes_nothing_for_another(outbox: Outbox) -> None:
    outbox.add_result(outbox.add_study(), "pacs", "other", kinds=["seg"], standby=["sc"])
    with pacs_refusing(frozenset({SEG}), "dimse") as pacs, pacs_refusing(frozenset(), "dimse") as other:
        peers: tuple[Peer, ...] = (pacs.peer(), other.peer("other"))
        worker = Deliverer(config(*peers), outbox.store, outbox.spool, "deliver-1", outbox.clock, limits=PATIENT)
        while worker.step():
            pass
    assert outbox.states_by_kind("pacs") == {"seg": ["replaced"], "sc": ["delivered"]}
    assert outbox.states_by_kind("other") == {"seg": ["delivered"]}
    assert [outbox.kind_of(uid) for uid in other.uids] == ["seg"]
