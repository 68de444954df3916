"""De-identification with the node as a process: images leave for research, a detector outside answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite

from dicomnode.config import Peer
from dicomnode.deid.keys import ProjectKey
from dicomnode.deliver.send import send_paths
from tests.acceptance.node_process import PATIENCE_S, NodeProcess
from tests.integration.deliver_fixtures import FakePacs
from tests.integration.outside_fixtures import CLASSES, SENTINELS, decoded, image, report_about

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


def _wait(holds: Callable[[], object], limit_s: float = 240.0) -> None:
    until = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < until, "not reached in time"
        time.sleep(0.3)


def _send(node: NodeProcess, folder: Path, calling: str) -> None:
    target = Peer(name="node", ae_title="NODE", host="127.0.0.1", port=node.port)
    assert {answer.status for answer in send_paths([folder], target, calling)} == {0}


def test_away_and_back(tmp_path: Path) -> None:
    """D14, D23, D24: without its key the node does not start; with it, images leave under pseudonyms, and a result of
    the detector outside reaches the PACS under the patient's name."""
    research = tmp_path / "research"
    research.mkdir()
    for name in ("in", "results"):
        (tmp_path / name).mkdir()
    for number in (1, 2):
        dcmwrite(tmp_path / "in" / f"{number}.dcm", image(number), enforce_file_format=True)
    with FakePacs(classes=CLASSES, title="ORTHANC") as pacs, FakePacs(classes=CLASSES, title="CLOUD") as cloud:
        key, vault = tmp_path / "project.key", tmp_path / "vault.key"
        tables = f"""
[[peer]]
name = "cloud"
ae_title = "CLOUD"
host = "127.0.0.1"
port = {cloud.port}
may_send = true
deid = "research"
[[peer]]
name = "research"
folder = "{research}"
deid = "basic"
[deid]
key_file = "{key}"
[deid.vault]
key_file = "{vault}"
[[deid.export]]
name = "study"
when = {{ Modality = "CT" }}
send_to = ["research"]
[[deid.remote]]
name = "second opinion"
when = {{ Modality = "CT" }}
peer = "cloud"
send_to = ["pacs"]
"""
        node = NodeProcess(tmp_path / "node", pacs.port, assemble="settle_s = 0.2\n", routes=tables)
        try:
            ProjectKey.create(vault)
            node.start(wait=False)
            assert node.process is not None
            assert node.process.wait(PATIENCE_S) == 2
            node.close()
            ProjectKey.create(key)
            node.start()
            _send(node, tmp_path / "in", "SCANNER")
            _wait(lambda: len(cloud.received) == 2 and len(list(research.rglob("*.dcm"))) == 2)
            away = [decoded(one) for one in cloud.received]
            dcmwrite(tmp_path / "results" / "r.dcm", report_about(away), enforce_file_format=True)
            _send(node, tmp_path / "results", "CLOUD")
            _wait(lambda: pacs.received)
            (back,) = [decoded(one) for one in pacs.received]
            assert (back.PatientID, back.PatientName) == ("SENTINEL-4711", "Sentinel^Änne")
            assert back.StudyInstanceUID == image(1).StudyInstanceUID
            exported = [dcmread(path) for path in research.rglob("*.dcm")]
            assert not [word for word in SENTINELS for one in (*away, *exported) if word in str(one)]
            assert node.run("audit", "verify").returncode == 0
            assert node.stop() == 0
            assert not [word for word in SENTINELS if word in node.log.read_text()]
        finally:
            node.close()
