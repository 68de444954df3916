"""A result is on its way before its stand-ins are made; they come whatever happens to the worker in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import select, update

from dicomnode.audit import verify
from dicomnode.config import parse_config
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.worker import Deliverer
from dicomnode.detectors.contract import ModelIdentity, Outcome
from dicomnode.jobs import claim, release_owner
from dicomnode.node.requeue import requeue_dead_job
from dicomnode.report.build import BUILDERS
from dicomnode.store.tables import AssignmentRow, DeliveryRow, DerivedRow, JobRow, SeriesRow
from tests.integration.deliver_fixtures import CLASS_OF, FakePacs
from tests.integration.detect_fixtures import MODEL, Bench, ScriptedDetector, complete_series, finding_result

WORKER = "dicomnode.detect.worker"
PATIENT = SendLimits(connect_s=60.0, acse_s=60.0, dimse_s=60.0, stall_s=60.0, slowest_bytes_s=1e9)


class Killed(BaseException):
    """The worker is gone, in the middle of whatever it did."""


@pytest.fixture
def bench(tmp_path: Path):
    made = Bench(tmp_path)
    yield made
    made.store.close()


def kinds(bench: Bench) -> list[str]:
    return [row.kind for row in bench.rows(DerivedRow)]


def detect_job(bench: Bench) -> JobRow:
    return next(row for row in bench.rows(JobRow) if row.kind == "detect")


def die_before_stand_ins(bench: Bench) -> None:
    """A worker that writes the result and is killed; the node frees its lease."""

    def killed(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{WORKER}.write_stand_ins", killed)
        with pytest.raises(Killed):
            bench.worker(finding_result).step()
    with bench.store.write() as session:
        release_owner(session, "worker-1", bench.now, crashed=True)


def test_the_result_waits_for_its_destination_before_the_stand_ins_are_made(bench: Bench) -> None:
    """Issue part 4: what nobody may ever need does not hold up what everybody waits for."""
    complete_series(bench.store, bench.spool)
    seen: list[list[str]] = []
    page = BUILDERS["page"]

    def looking(*arguments: object) -> Iterator[Dataset]:
        seen.append([row.state for row in bench.rows(DeliveryRow)])
        return page(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUILDERS, "page", looking)
        assert bench.worker(finding_result).step()
    assert seen == [["waiting"] * 5]
    assert kinds(bench)[5:] == ["pdf", "page"]
    assert detect_job(bench).state == "done"


def test_stand_ins_are_made_by_the_next_worker_when_the_first_is_killed(bench: Bench) -> None:
    """R10: resumed once by lease; the result is not made, told or sent a second time, and the bytes are the same."""
    complete_series(bench.store, bench.spool)
    die_before_stand_ins(bench)
    before = {row.SOPInstanceUID: row.id for row in bench.rows(DerivedRow)}
    finished_at = bench.rows(AssignmentRow)[0].finished_at
    assert (kinds(bench), detect_job(bench).state) == (["sc", "sc", "sc", "sr", "sr"], "ready")
    bench.now += 60.0
    assert bench.worker(finding_result).step()
    assert kinds(bench) == ["sc", "sc", "sc", "sr", "sr", "pdf", "page"]
    assert before.items() <= {row.SOPInstanceUID: row.id for row in bench.rows(DerivedRow)}.items()
    assert len(bench.rows(DeliveryRow)) == 5
    assert (len(bench.audited("inference")), len(bench.audited("stand-ins made"))) == (1, 1)
    assert (bench.rows(AssignmentRow)[0].finished_at, detect_job(bench).state) == (finished_at, "done")
    with bench.store.read() as session:
        assert verify(session).ok


def test_stand_ins_made_after_a_kill_are_those_that_would_have_been_made(tmp_path: Path) -> None:
    """Deterministic: same bytes whether or not the worker was killed."""
    made = []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name)
        complete_series(bench.store, bench.spool)
        if name == "killed":
            die_before_stand_ins(bench)
            bench.now += 60.0
        bench.worker(finding_result).step()
        made.append({row.SOPInstanceUID: row.sha256 for row in bench.rows(DerivedRow)})
        bench.store.close()
    assert made[0] == made[1]


@pytest.mark.parametrize("other", ["model", "answer"])
def test_no_stand_ins_of_another_answer(bench: Bench, other: str) -> None:
    """A2: nothing stands in for a result that says something else; the result itself stays as it was sent."""
    complete_series(bench.store, bench.spool)
    die_before_stand_ins(bench)
    bench.now += 60.0
    answer = finding_result
    if other == "answer":
        answer = lambda volume: replace(finding_result(volume), outcome=Outcome.NO_FINDINGS, findings=())  # noqa: E731
    worker = bench.worker(answer)
    if other == "model":
        newer = ModelIdentity(MODEL.name, "2.0.0", "cd" * 32, MODEL.licence)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ScriptedDetector, "model", newer)
            worker.step()
    else:
        worker.step()
    assert (detect_job(bench).state, bench.rows(AssignmentRow)[0].outcome) == ("dead", "findings")
    assert kinds(bench) == ["sc", "sc", "sc", "sr", "sr"]
    assert bench.audited("dead letter")[0]["reason"].startswith("no stand-ins")


def test_a_stand_in_that_breaks_the_standard_takes_nothing_from_the_result(bench: Bench) -> None:
    """It is a dead letter; an operator's requeue makes the stand-ins only, and the result is not touched."""
    complete_series(bench.store, bench.spool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUILDERS, "page", lambda *_: iter([Dataset()]))
        bench.worker(finding_result).step()
    assert (detect_job(bench).state, bench.rows(AssignmentRow)[0].outcome) != ("done", "findings")
    for _ in range(3):
        bench.now += 60.0
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(BUILDERS, "page", lambda *_: iter([Dataset()]))
            bench.worker(finding_result).step()
    assert (detect_job(bench).state, bench.rows(AssignmentRow)[0].outcome) == ("dead", "findings")
    assert [row.state for row in bench.rows(DeliveryRow)] == ["waiting"] * 5
    requeue_dead_job(bench.store, detect_job(bench).id, bench.now)
    assert bench.rows(AssignmentRow)[0].outcome == "findings"
    assert bench.worker(finding_result).step()
    assert kinds(bench) == ["sc", "sc", "sc", "sr", "sr", "pdf", "page"]
    assert detect_job(bench).state == "done"


def test_a_newer_generation_does_not_undo_a_result_whose_stand_ins_were_to_be_made(bench: Bench) -> None:
    """R6: a late slice while the worker is down: the result that was sent stays a result."""
    complete_series(bench.store, bench.spool)
    die_before_stand_ins(bench)
    with bench.store.write() as session:
        session.execute(update(SeriesRow).values(generation=2))
    bench.now += 60.0
    assert bench.worker(finding_result).step()
    assert (detect_job(bench).state, bench.rows(AssignmentRow)[0].outcome) == ("done", "findings")


def test_a_refusal_waits_for_the_stand_in_that_is_being_made(bench: Bench) -> None:
    """Issue 3: a refused object is replaced; that its stand-in is not there yet is no dead letter."""
    complete_series(bench.store, bench.spool)
    die_before_stand_ins(bench)
    with bench.store.write() as session:
        held = claim(session, ("detect",), "worker-1", bench.now + 60.0, 600.0)
    assert held is not None
    classes = sorted(set(CLASS_OF.values()) - {CLASS_OF["sr"]})
    with FakePacs(classes=classes) as pacs:
        peer = f'[[peer]]\nname = "pacs"\nae_title = "{pacs.peer().ae_title}"\nhost = "127.0.0.1"\n'
        config, _ = parse_config(f"{peer}port = {pacs.peer().port}\n")
        deliverer = Deliverer(config, bench.store, bench.spool, "d", lambda: bench.now, limits=PATIENT)
        assert deliverer.step()
        states = {row.kind: [] for row in bench.rows(DerivedRow)}
        by_id = {row.id: row.kind for row in bench.rows(DerivedRow)}
        for row in bench.rows(DeliveryRow):
            states[by_id[row.derived_id]].append(row.state)
        assert states == {"sc": ["delivered"] * 3, "sr": ["waiting"] * 2}
        assert not deliverer.step(), "not again before a moment has passed"
        with bench.store.write() as session:
            release_owner(session, "worker-1", bench.now, crashed=False)
        bench.now += 60.0
        assert bench.worker(finding_result).step()
        for _ in range(5):
            bench.now += 60.0
            if not deliverer.step():
                break
        kind_of = {row.SOPInstanceUID: row.kind for row in bench.rows(DerivedRow)}
        assert [kind_of[uid] for uid in pacs.uids] == ["sc", "sc", "sc", "pdf"]
    with bench.store.read() as session:
        assert session.scalars(select(JobRow.state)).all() == ["done", "done"]
    assert not bench.audited("dead letter")
