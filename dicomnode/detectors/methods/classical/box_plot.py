"""Box plot: how far outside the whiskers of the healthy planes (Tukey 1977)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.classical.feature_method import FeatureMethod, known
from dicomnode.detectors.methods.classical.scaling import FARTHEST
from dicomnode.detectors.methods.classical.windows import smoothed
from dicomnode.detectors.methods.contract import Family, MethodEntry, Planes, Regime, Settings, Tensors
from dicomnode.errors import ConfigError

LEAST_BOX = 0.02
"""Smallest distance of the quartiles of a pixel that counts, in parts of the grey range."""
LEAST_FEATURE_BOX = 0.05
"""The same for a feature, in healthy standard deviations."""


class BoxPlotSettings(Settings):
    """``whisker``: length of the whiskers in distances of the quartiles. ``smooth``: as for the z-score, pixels."""

    whisker: float = Field(default=1.5, gt=0)
    smooth: int = Field(default=3, ge=1, le=31)


@dataclass(frozen=True, slots=True)
class Box:
    """Quartiles of healthy values, element by element."""

    low: Array
    high: Array

    def beyond(self, values: Array, whisker: float, least: float) -> Array:
        """How far ``values`` lie outside the whiskers, in distances of the quartiles; 0 between them."""
        length = np.maximum(self.high - self.low, least)
        outside = np.maximum(self.low - whisker * length - values, values - self.high - whisker * length)
        result: Array = (np.maximum(outside, 0.0) / length).astype(np.float32)
        return result


def healthy_box(values: Array) -> Box:
    """The box of healthy ``values``, over their first axis."""
    low, high = np.percentile(values, (25, 75), axis=0).astype(np.float32)
    return Box(low, high)


class BoxPlot(FeatureMethod[BoxPlotSettings]):
    """Score: mean distance outside the whiskers over all features. Map: the same for the smoothed pixel."""

    def __init__(self, settings: BoxPlotSettings) -> None:
        super().__init__(settings)
        self._box: Box | None = None
        self._pixels: Box | None = None

    def learn(self, features: Array) -> None:
        self._box = healthy_box(features)

    def distances(self, features: Array) -> Array:
        outside = known(self._box).beyond(features, self.settings.whisker, LEAST_FEATURE_BOX)
        result: Array = np.minimum(outside, FARTHEST).mean(axis=1)
        return result

    def learn_places(self, planes: Planes) -> None:
        self._pixels = healthy_box(smoothed(planes.images, self.settings.smooth))

    def place_maps(self, planes: Planes) -> Array:
        own = smoothed(planes.images, self.settings.smooth)
        result: Array = known(self._pixels).beyond(own, self.settings.whisker, LEAST_BOX) * planes.masks
        return result

    def place_tensors(self) -> Tensors:
        return {"quartiles": np.stack([known(self._pixels).low, known(self._pixels).high])}

    def restore_places(self, tensors: Tensors) -> None:
        kept = tensors.get("quartiles")
        if kept is None or kept.shape != (2, self.settings.size, self.settings.size):
            raise ConfigError("the arrays do not fit the settings of the method: quartiles")
        low, high = kept.astype(np.float32)
        self._pixels = Box(low, high)


METHODS = (
    MethodEntry(
        "box-plot",
        Family.CLASSICAL,
        Regime.SEMI_SUPERVISED,
        ("000-3", "002-32", "002-39"),
        "Tukey 1977; Tschuchnig & Gadermayr 2022, box plots",
        "mean distance of the handcrafted features outside the whiskers, in distances of the healthy quartiles; "
        "map: the same for the pixel at its place",
        BoxPlotSettings,
        BoxPlot,
        explains="deviation of each pixel from healthy",
    ),
)
