"""Local outlier factor on handcrafted features."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.classical.feature_method import FeatureMethod, known
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime, Settings


class LofSettings(Settings):
    """``neighbours``: healthy planes that make the neighbourhood."""

    neighbours: int = Field(default=20, ge=2)


class Lof(FeatureMethod[LofSettings]):
    """Score: how much thinner the neighbourhood of a plane is than those of its healthy neighbours."""

    def __init__(self, settings: LofSettings) -> None:
        super().__init__(settings)
        self._model: Any = None

    def learn(self, features: Array) -> None:
        from sklearn.neighbors import LocalOutlierFactor

        count = min(self.settings.neighbours, len(features) - 1)
        self._model = LocalOutlierFactor(n_neighbors=count, novelty=True).fit(features.astype("float64"))

    def distances(self, features: Array) -> Array:
        result: Array = -known(self._model).score_samples(features.astype("float64"))
        return result


METHODS = (
    MethodEntry(
        "lof",
        Family.CLASSICAL,
        Regime.SEMI_SUPERVISED,
        ("001-7", "000-3"),
        "Breunig et al., SIGMOD 2000; Goldstein & Uchida 2016 (local and global anomalies)",
        "local outlier factor of the features, 1 for a healthy neighbourhood, no unit; map: windows against healthy "
        "windows at that place, in sd, not by the factor",
        LofSettings,
        Lof,
        explains="deviation of local features (not the score)",
    ),
)
