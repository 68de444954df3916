"""A detector that costs nothing, so that many Series can flow; one value of the pixels makes it end its process."""

from __future__ import annotations

POISON = 4000
MODULE = f"""
import os

import numpy as np

from dicomnode.detectors.contract import (
    Acceptance, Calibration, DetectionResult, ModelIdentity, Outcome, PlaneResult
)


class Quick:
    name, version, default_model, description = "quick", "1.0", "ct-head-healthy", "finds nothing, fast"
    model = ModelIdentity("quick", "1.0", "0" * 64, "MIT")
    accelerator = "cpu"

    def accepts(self, summary):
        return Acceptance(True, "takes everything")

    def load(self, model_folder, accelerator):
        return self

    def detect(self, volume):
        if volume.planes[0].pixels[0, 0] == {POISON}:
            os._exit(77)
        planes = tuple(PlaneResult(0.1, np.zeros(plane.shape, np.float32)) for plane in volume.planes)
        calibration = Calibration("share", "none", 0, 0.5, 0.5)
        return DetectionResult(Outcome.NO_FINDINGS, 0.1, 0.1, "share", calibration, planes)


DETECTOR = Quick()
"""
ROUTE = """
[[route]]
name = "quick"
when = { Modality = "CT" }
detector = "quick"
send_to = ["pacs"]
"""
