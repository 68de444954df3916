"""Z-score: how many healthy standard deviations away."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.classical.feature_method import FeatureMethod
from dicomnode.detectors.methods.classical.windows import smoothed
from dicomnode.detectors.methods.contract import Family, MethodEntry, Planes, Regime, Settings


class ZScoreSettings(Settings):
    """``largest``: share of the features that count, those farthest off. ``smooth``: side of the mean filter before
    the pixels are compared, pixels."""

    largest: float = Field(default=0.2, gt=0, le=1)
    smooth: int = Field(default=3, ge=1, le=31)


class ZScore(FeatureMethod[ZScoreSettings]):
    """Score: mean |z| of the features farthest off. Map: |z| of the smoothed pixel against that place, in sd."""

    channels = 1

    def learn(self, features: Array) -> None:
        """Nothing beyond the scale."""

    def distances(self, features: Array) -> Array:
        count = max(1, round(self.settings.largest * features.shape[1]))
        result: Array = np.sort(np.abs(features), axis=1)[:, -count:].mean(axis=1)
        return result

    def local_values(self, planes: Planes) -> Array:
        return smoothed(planes.images, self.settings.smooth)[None]


METHODS = (
    MethodEntry(
        "z-score",
        Family.CLASSICAL,
        Regime.SEMI_SUPERVISED,
        ("000-3", "002-37", "002-39"),
        "Tschuchnig & Gadermayr 2022, z-score; z = (x - mean) / sd of the healthy planes",
        "mean |z| of the handcrafted features farthest off, in healthy sd; map: |z| of the pixel at its place",
        ZScoreSettings,
        ZScore,
        explains="deviation of each pixel from healthy",
    ),
)
