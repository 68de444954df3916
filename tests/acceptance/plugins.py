"""A detector as a newcomer would publish it, one file found by entry point, that does what a test orders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.plugin import install_plugin

SOURCE = """
import os
import signal
import time
from pathlib import Path

import numpy as np

from dicomnode.detectors.contract import (
    Acceptance, Calibration, DetectionResult, ModelIdentity, Outcome, PlaneResult,
)

FOLDER = Path(os.environ["ORDERED_DETECTOR"])


class Ordered:
    name, version, default_model, description = "ordered", "1.0", "cxr-lungs", "does as it is ordered"
    model, accelerator = ModelIdentity("ordered-model", "1.0", "ab" * 32, "MIT"), "cpu"

    def accepts(self, summary):
        return Acceptance(True, "takes everything")

    def load(self, model_folder, accelerator):
        return self

    def detect(self, volume):
        with (FOLDER / "begun").open("a") as log:
            log.write("x")
        order = FOLDER / "order"
        if order.exists():
            told = order.read_text()
            if told == "kill once":
                order.unlink()
            if told == "sleep":
                time.sleep(600)
            os.kill(os.getpid(), signal.SIGKILL)
        planes = tuple(PlaneResult(0.2, np.full(plane.shape, 0.1, np.float32)) for plane in volume.planes)
        calibration = Calibration("percentile of healthy patients, 0..1", "test", 40, 0.95, 0.05)
        return DetectionResult(
            Outcome.NO_FINDINGS, score=0.2, raw_score=0.5, raw_unit="mean residual", calibration=calibration,
            planes=planes,
        )


DETECTOR = Ordered()
"""
ROUTES = """
[[route]]
name = "everything"
when = { Modality = { exists = true } }
detector = "ordered"
send_to = ["pacs"]
"""


class OrderedDetector:
    """The installed plugin, for nodes that are started from now on with ``ROUTES``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        install_plugin(folder, "ordered", "ordered_detector:DETECTOR", SOURCE)
        before = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", f"{folder}:{before}" if before else str(folder))
        monkeypatch.setenv("ORDERED_DETECTOR", str(folder))
        self._folder = folder

    def order(self, what: str) -> None:
        """``sleep``: for minutes; ``kill once``: end the process by SIGKILL, the first time; ``""``: answer."""
        (self._folder / "order").unlink(missing_ok=True)
        if what:
            (self._folder / "order").write_text(what)

    @property
    def begun(self) -> int:
        """How often an analysis was begun."""
        log = self._folder / "begun"
        return len(log.read_text()) if log.exists() else 0
