"""A detector that takes every Series and marks a square: so every image is decoded and every report is made.

The shipped detectors refuse most of a corpus by its headers; their refusal would say nothing of the pixels.
"""

from __future__ import annotations

import numpy as np

from dicomnode.detectors.contract import Acceptance, DetectionResult, PlaneResult, Region, SeriesSummary, Volume
from tests.plugin import Unweighted, one_finding

NAME = "anything"
ENTRY = "tests.robustness.anything:DETECTOR"


class Anything(Unweighted):
    """The plugin and, loaded, the detector: reads every sample, and marks the middle of the first plane."""

    name, default_model, description = NAME, NAME, "takes everything, for robustness runs"

    def accepts(self, summary: SeriesSummary) -> Acceptance:
        return Acceptance(True, f"anything, this has {summary.n_instances} instance(s)")

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
        return one_finding(planes, (region,), "none, a robustness run")


DETECTOR = Anything()
