"""k-means on handcrafted features."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.classical.feature_method import FeatureMethod, known
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime, Settings


class KMeansSettings(Settings):
    """``clusters``: number of groups of healthy planes."""

    clusters: int = Field(default=8, ge=1, le=256)


class KMeansDistance(FeatureMethod[KMeansSettings]):
    """Score: distance to the nearest centre of the healthy groups."""

    def __init__(self, settings: KMeansSettings) -> None:
        super().__init__(settings)
        self._model: Any = None

    def learn(self, features: Array) -> None:
        from sklearn.cluster import KMeans

        count = min(self.settings.clusters, len(features))
        self._model = KMeans(count, n_init=5, random_state=0).fit(features.astype("float64"))

    def distances(self, features: Array) -> Array:
        away = known(self._model).transform(features.astype("float64")).min(axis=1)
        result: Array = away / np.sqrt(features.shape[1])
        return result


METHODS = (
    MethodEntry(
        "k-means",
        Family.CLASSICAL,
        Regime.SEMI_SUPERVISED,
        ("000-5", "000-3"),
        "Lloyd 1982; Siddiq, clustering",
        "root mean square distance of the features to the nearest healthy group, in sd; map: windows against healthy "
        "windows at that place, in sd, not by the groups",
        KMeansSettings,
        KMeansDistance,
        explains="deviation of local features (not the score)",
    ),
)
