"""A detector that kills its worker hurts neither reception nor other jobs; its series is dead after three crashes.

The detector is a plugin of its own, one file found by entry point, as a newcomer would publish it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.config.peers import Peer
from dicomnode.deliver.send import send_paths
from dicomnode.demo.phantoms import make_dx_chest, make_mr_flair
from tests.acceptance.node_process import NodeProcess
from tests.plugin import install_plugin

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

PLUGIN = """
import os

from dicomnode.detectors.contract import Acceptance


class Poison:
    name, version, default_model, description = "poison", "1.0", "cxr-lungs", "ends its process"
    model, accelerator = None, "cpu"

    def accepts(self, summary):
        return Acceptance(True, "takes everything")

    def load(self, model_folder, accelerator):
        return self

    def detect(self, volume):
        os._exit(77)


DETECTOR = Poison()
"""
ROUTES = """
[[route]]
name = "poisoned"
when = { Modality = "MR" }
detector = "poison"
send_to = ["pacs"]

[[route]]
name = "chest x-ray"
when = { Modality = ["CR", "DX"] }
detector = "cxr"
send_to = ["pacs"]
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A folder with an installed plugin distribution."""
    return install_plugin(tmp_path / "plugin", "poison", "poison_detector:DETECTOR", PLUGIN)


def send(node: NodeProcess, folder: Path) -> None:
    target = Peer(name="node", ae_title="NODE", host="127.0.0.1", port=node.port)
    answers = list(send_paths([folder], target, "SCANNER"))
    assert answers
    assert all(answer.ok for answer in answers)


def test_a_crashing_detector_is_contained(tmp_path: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R19: after three crashes the series has failed, visibly; others flow, and an operator can have it tried again."""
    monkeypatch.setenv("PYTHONPATH", str(plugin))
    make_mr_flair(seed=3).write(tmp_path / "mr")
    make_dx_chest(seed=3).write(tmp_path / "dx")
    node = NodeProcess(tmp_path / "node", 104, routes=ROUTES)
    try:
        node.start()
        send(node, tmp_path / "mr")
        send(node, tmp_path / "dx")
        state = node.wait_outcomes(2, 600)
    finally:
        node.close()
    outcomes = {series["Modality"]: series["results"][0] for series in state["recent"]}
    assert outcomes["MR"]["outcome"] == "failed"
    assert "lost 3 times" in outcomes["MR"]["reason"]
    assert outcomes["DX"]["outcome"] in ("findings", "no findings")
    assert [letter["kind"] for letter in state["dead_letters"]] == ["detect"]
    answer = node.run("jobs", "requeue", str(state["dead_letters"][0]["job"]))
    assert answer.returncode == 0, answer.stderr
    assert node.status()["dead_letters"] == []
