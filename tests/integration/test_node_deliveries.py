"""A delivery whose worker dies again and again ends visibly (trust.md R9, R11, R19), and can be sent again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.config import Config
from dicomnode.jobs import claim
from dicomnode.jobs.leases import MAX_CRASHES
from dicomnode.node.recovery import child_stopped
from dicomnode.node.requeue import requeue_dead_job
from tests.integration.deliver_fixtures import Outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path)
    yield made
    made.store.close()


def test_a_delivery_that_crashes_its_worker_three_times_has_failed_and_says_so(outbox: Outbox) -> None:
    """R9, R19: its objects do not wait for a job that never comes; another destination is not touched."""
    outbox.add_result(outbox.add_study(), "pacs", "viewer")
    job = next(job for job in outbox.jobs() if job.payload["destination"] == "pacs")
    for crash in range(MAX_CRASHES):
        assert outbox.states() == ["waiting"] * 3
        with outbox.store.write() as session:
            taken = claim(session, ("deliver",), f"deliver-{crash}", outbox.now, 60.0, type(job).id == job.id)
            assert taken is not None
        child_stopped(outbox.store, outbox.spool, Config(), f"deliver-{crash}", outbox.now, crashed=True)
    assert outbox.states() == ["failed"] * 3
    assert outbox.states("viewer") == ["waiting"] * 3
    (letter,) = outbox.audit("dead letter")
    assert (letter["job"], letter["kind"], letter["peer"]) == (job.id, "deliver", "pacs")
    assert letter["PatientID"]
    assert letter["StudyInstanceUID"]
    requeue_dead_job(outbox.store, job.id, outbox.now)
    assert outbox.states() == ["waiting"] * 3
