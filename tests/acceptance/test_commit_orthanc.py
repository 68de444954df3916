"""Storage commitment with a real Orthanc, whose report comes on an association of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomnode.config import Peer
from dicomnode.demo.phantoms import make_dx_chest
from tests.acceptance.node_process import NodeProcess
from tests.acceptance.orthanc import Orthanc
from tests.faults.receiver import audit_bodies
from tests.integration.commit_fixtures import AskingNode

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed"),
]
LOST = 0x0112


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    with Orthanc(tmp_path / "orthanc") as running:
        yield running


@pytest.fixture
def node(tmp_path: Path, orthanc: Orthanc) -> Iterator[AskingNode]:
    """Deliverer, commit worker and Storage SCP in this process; Orthanc knows the way back."""
    peer = Peer(name="pacs", ae_title=orthanc.ae_title, host="127.0.0.1", port=orthanc.dicom_port, commit=True)
    asking = AskingNode(tmp_path, peer)
    orthanc.allow_storage_commitment("NODE", asking.listen())
    try:
        yield asking
    finally:
        asking.close()


def wait_for(what: Callable[[], Any], seconds: float = 240.0) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError("it did not happen in time")


def work_until_settled(node: AskingNode) -> None:
    """Ask, and wait for Orthanc's report each time."""
    node.work()
    wait_for(lambda: all(row.state != "requested" for row in node.rows()))
    node.work()


def test_orthanc_commits_what_it_holds(node: AskingNode) -> None:
    node.result()
    work_until_settled(node)
    assert node.committed() == [True] * 3
    assert node.job().state == "done"
    assert node.outbox.audit("commitment failed") == []
    assert node.outbox.audit("security alert") == []


def test_an_instance_that_orthanc_lost_after_the_delivery_is_sent_again_and_committed(
    node: AskingNode, orthanc: Orthanc
) -> None:
    node.result()
    lost = node.uids()[1]
    orthanc.delete_instance(lost)
    work_until_settled(node)
    assert node.committed() == [True, False, True]
    (failed,) = node.outbox.audit("commitment failed")
    assert [(line["SOPInstanceUID"], line["FailureReason"]) for line in failed["instances"]] == [(lost, LOST)]
    assert node.outbox.states() == ["delivered", "waiting", "delivered"]
    node.deliver()
    assert sorted(orthanc.instances()) == sorted(node.uids())
    work_until_settled(node)
    assert node.committed() == [True] * 3
    assert node.job().state == "done"


@pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK is not installed")
def test_the_whole_node_gets_its_results_committed_with_one_lost_in_between(tmp_path: Path, orthanc: Orthanc) -> None:
    """Orthanc does not know the node at first and refuses to be asked; meanwhile it loses an object."""
    phantom = make_dx_chest(seed=7)
    phantom.write(tmp_path / "study")
    node = NodeProcess(tmp_path / "node", orthanc.dicom_port, pacs="commit = true")
    try:
        node.start()
        send = ["storescu", "-aet", "SCANNER", "-aec", "NODE", "+sd", "+r", "127.0.0.1", str(node.port)]
        subprocess.run([*send, str(tmp_path / "study")], check=True, timeout=240, capture_output=True)
        node.wait_settled(1, 300)
        there = orthanc.instances()
        assert there
        assert set(wait_for(lambda: node.look()["commitments"].get("pacs"))) == {"pending"}
        wait_for(lambda: audit_bodies(node.database, "commitment failed"))
        orthanc.delete_instance(there[0])
        orthanc.allow_storage_commitment("NODE", node.port)
        everything = {"committed": len(there)}
        wait_for(lambda: node.look()["commitments"].get("pacs") == everything)
        assert node.status()["commitments"]["pacs"] == everything
        assert sorted(orthanc.instances()) == sorted(there)
        refused, lost = events(node, "commitment failed")
        assert refused["retry_at"]
        assert [(line["SOPInstanceUID"], line["FailureReason"]) for line in lost["instances"]] == [(there[0], LOST)]
        assert sum(body["counts"]["committed"] for body in events(node, "committed")) == len(there)
        assert node.run("audit", "verify").returncode == 0
        assert node.stop() == 0
    finally:
        node.close()


def events(node: NodeProcess, kind: str) -> list[dict[str, Any]]:
    """The bodies of the audit rows of one kind, oldest first."""
    answer = node.run("audit", "list", "--event", kind, "--json")
    return [row["body"] for row in json.loads(answer.stdout)]
