"""Pictures of held-back planes with their maps, to look at after a training. They show patients: never share them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dicomnode.detectors.calibration import ResidualCalibration
from dicomnode.detectors.methods.contract import Planes
from dicomnode.detectors.residual import Scored

PREVIEWS = "previews"
COUNT = 6


def spread(indices: Sequence[int], count: int = COUNT) -> list[int]:
    """``count`` of the indices, evenly taken."""
    if not indices:
        return []
    return [indices[int(i)] for i in np.unique(np.linspace(0, len(indices) - 1, count).round())]


def write_previews(folder: Path, fold: int, planes: Planes, scored: Scored, calibration: ResidualCalibration) -> None:
    """One PNG per plane in ``folder``/previews: the input at the left, its heat inside the organ at the right."""
    target = folder / PREVIEWS
    target.mkdir(parents=True, exist_ok=True)
    for number, (image, mask, combined) in enumerate(zip(planes.images, planes.masks, scored.combined, strict=True)):
        pair = np.concatenate([image, calibration.heat_of(combined) * mask], axis=1)
        Image.fromarray(_grey(pair)).save(target / f"fold{fold}-{number}.png")


def _grey(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    grey: npt.NDArray[np.uint8] = np.round(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8)
    return grey
