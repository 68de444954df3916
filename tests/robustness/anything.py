"""A detector that takes every Series and marks a square: so every image is decoded and every report is made.

The shipped detectors refuse most of a corpus by its headers; their refusal would say nothing of the pixels.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from dicomnode.detectors.contract import (
    Acceptance,
    Calibration,
    DetectionResult,
    Finding,
    LoadedDetector,
    ModelIdentity,
    Outcome,
    PlaneResult,
    Region,
    SeriesSummary,
    Volume,
)

NAME = "anything"
_METADATA = "Metadata-Version: 2.1\nName: dicomnode-robustness-anything\nVersion: 1.0\n"


def install_plugin(folder: Path) -> Path:
    """Lay out a package with the entry point of this detector; put the returned folder on PYTHONPATH."""
    about = folder / "dicomnode_robustness_anything-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(_METADATA)
    (about / "entry_points.txt").write_text(f"[dicomnode.detectors]\n{NAME} = tests.robustness.anything:DETECTOR\n")
    return folder


class Anything:
    """The plugin and, loaded, the detector: reads every sample, and marks the middle of the first plane."""

    name, version, default_model, description = NAME, "1.0.0", NAME, "takes everything, for robustness runs"
    accelerator = "cpu"

    @property
    def location(self) -> Path:
        """There are no weights; this file stands for them."""
        return Path(__file__)

    @property
    def own_model(self) -> ModelIdentity:
        return ModelIdentity(NAME, self.version, hashlib.sha256(Path(__file__).read_bytes()).hexdigest(), "MIT")

    model = own_model

    def accepts(self, summary: SeriesSummary) -> Acceptance:
        return Acceptance(True, f"anything, this has {summary.n_instances} instance(s)")

    def load(self, model_folder: Path, accelerator: str) -> LoadedDetector:
        return self

    def detect(self, volume: Volume) -> DetectionResult:
        """One finding; the score of a plane is the share of its samples that are not zero."""
        shape = volume.planes[0].pixels.shape
        rows, columns = shape[0], shape[1]
        top, left, low, right = rows // 4, columns // 4, max(rows // 2, 1), max(columns // 2, 1)
        mask = np.zeros((rows, columns), dtype=bool)
        mask[top:low, left:right] = True
        corners = np.array([[left, top], [right, top], [right, low], [left, low], [left, top]], np.float32)
        box = (float(left), float(top), float(right), float(low))
        region = Region(0, mask, corners, box, 0.9, float(mask.sum()))
        planes = tuple(
            PlaneResult(float(np.count_nonzero(plane.pixels) / max(plane.pixels.size, 1)), mask.astype(np.float32))
            for plane in volume.planes
        )
        calibration = Calibration("percentile of healthy patients, 0..1", "none, a robustness run", 40, 0.95, 0.05)
        return DetectionResult(
            Outcome.FINDINGS,
            score=0.97,
            raw_score=1.0,
            raw_unit="none",
            calibration=calibration,
            planes=planes,
            findings=(Finding("square-1", (region,), 0.97),),
        )


DETECTOR = Anything()
