"""Results for a peer outside: de-identified when they are sent, or held back; never as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicomnode.config import Config
from dicomnode.config.deid import DeidSettings
from dicomnode.deid.engine import Deidentifier
from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.leaving import Gate
from dicomnode.deid.profile import load_profile
from dicomnode.deid.pseudonyms import Pseudonyms
from dicomnode.deliver.requeue import requeue_dead
from dicomnode.deliver.worker import Deliverer
from tests.integration.deliver_fixtures import SR, FakePacs, Outbox
from tests.integration.detect_fixtures import ct_slice


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    """Results of a patient called Sentinel."""
    return Outbox(tmp_path)


def _config(pacs: FakePacs, folder: Path) -> Config:
    key = folder / "project.key"
    if not key.exists():
        ProjectKey.create(key)
    return Config(peer=(pacs.peer("outside", deid="basic"),), deid=DeidSettings(key_file=key))


def test_each_peer_gets_what_is_for_it(tmp_path: Path, outbox: Outbox) -> None:
    """D23: outside a result arrives under pseudonyms, and the row of the delivery says how; inside the hospital the
    patient keeps the name."""
    with FakePacs() as pacs, FakePacs() as within:
        outside = _config(pacs, tmp_path)
        config = Config(peer=(*outside.peer, within.peer("inside")), deid=outside.deid)
        outbox.add_result(outbox.add_study(), "outside", "inside", kinds=("sr",))
        gate = Gate(config)
        deliverer = Deliverer(config, outbox.store, outbox.spool, "d", outbox.clock, gate=gate)
        assert deliverer.step()
        assert deliverer.step()
    derived = outbox.derived()[0]
    ((uid, _, content),) = pacs.received
    assert uid.startswith("2.25.")
    assert uid != derived.SOPInstanceUID
    assert b"Sentinel" not in content
    assert b"113100" in content
    row = next(row for row in outbox.audit("delivered") if row["peer"] == "outside")
    assert (row["profile"], row["project_key"]) == ("basic", gate.key.id)
    assert row["actions"]["U"] >= 2
    assert row["sha256_after"][derived.SOPInstanceUID] != row["instances"][0]["sha256"]
    assert [uid for uid, _, _ in within.received] == [derived.SOPInstanceUID]
    assert b"Sentinel" in within.received[0][2]
    kept = dcmread(outbox.spool.absolute(derived.path))
    assert (kept.SOPClassUID, kept.PatientName) == (SR, "Sentinel^Secret")


def test_picture_is_held_back(tmp_path: Path, outbox: Outbox) -> None:
    """D21, D23: a Secondary Capture may show a name: it stays, its delivery says quarantine, the others go."""
    with FakePacs() as pacs:
        config = _config(pacs, tmp_path)
        outbox.add_result(outbox.add_study(), "outside", kinds=("sc", "sr"))
        deliverer = Deliverer(config, outbox.store, outbox.spool, "d", outbox.clock, gate=Gate(config))
        deliverer.step()
        assert outbox.states_by_kind("outside") == {"sc": ["quarantine"], "sr": ["delivered"]}
        assert len(pacs.received) == 1
        job = outbox.jobs()[0]
        assert (job.state, "held back: burned-in-text" in job.error) == ("dead", True)
        (row,) = outbox.audit("quarantine")
        assert row["instances"][0]["SOPInstanceUID"] == outbox.derived()[0].SOPInstanceUID
        assert requeue_dead(outbox.store, job.id, outbox.clock) == 1
        deliverer.step()
    assert outbox.states_by_kind("outside") == {"sc": ["quarantine"], "sr": ["delivered"]}


def test_without_a_gate_nothing_leaves(tmp_path: Path, outbox: Outbox) -> None:
    """D14, D23: a process that has no key sends nothing to a peer outside."""
    with FakePacs() as pacs:
        config = _config(pacs, tmp_path)
        outbox.add_result(outbox.add_study(), "outside", kinds=("sr",))
        Deliverer(config, outbox.store, outbox.spool, "d", outbox.clock).step()
    assert pacs.received == []
    assert outbox.states("outside") == ["quarantine"]


def test_key_rotated_under_a_running_node(tmp_path: Path, outbox: Outbox) -> None:
    """D14: nothing leaves under a key that this process does not have: it says that it has to be restarted."""
    with FakePacs() as pacs:
        config = _config(pacs, tmp_path)
        outbox.add_result(outbox.add_study(), "outside", kinds=("sr",))
        gate = Gate(config)
        ProjectKey.rotate(tmp_path / "project.key")
        Deliverer(config, outbox.store, outbox.spool, "d", outbox.clock, gate=gate).step()
        assert pacs.received == []
        assert outbox.states("outside") == ["waiting"]
        assert "restart the node" in outbox.jobs()[0].error
        outbox.now += 1000.0
        Deliverer(config, outbox.store, outbox.spool, "d", outbox.clock, gate=Gate(config)).step()
    assert outbox.states("outside") == ["delivered"]


def test_what_a_result_loses() -> None:
    """D25: de-identified again, a result of ours no longer says which device contributed what and when."""
    result = ct_slice(1)
    made_by = Dataset()
    made_by.ContributionDescription, made_by.ContributionDateTime = "Anomaly detection", "20260101120000"
    result.ContributingEquipmentSequence = [made_by]
    pseudonyms = Pseudonyms(ProjectKey(bytes(range(32))))
    (left,) = Deidentifier(load_profile("basic"), pseudonyms).apply(result).dataset.ContributingEquipmentSequence
    assert not left.get("ContributionDescription")
    assert not left.get("ContributionDateTime")
