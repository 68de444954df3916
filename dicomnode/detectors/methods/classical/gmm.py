"""Gaussian mixture on handcrafted features."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.classical.feature_method import FeatureMethod, known
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime, Settings


class GmmSettings(Settings):
    """``components``: number of Gaussians, each with its own diagonal covariance. ``ridge``: added to the variances,
    in squared healthy standard deviations."""

    components: int = Field(default=3, ge=1, le=64)
    ridge: float = Field(default=0.05, gt=0)


class Gmm(FeatureMethod[GmmSettings]):
    """Score: negative log likelihood of the features under the mixture of the healthy planes."""

    def __init__(self, settings: GmmSettings) -> None:
        super().__init__(settings)
        self._model: Any = None

    def learn(self, features: Array) -> None:
        from sklearn.mixture import GaussianMixture

        count = min(self.settings.components, max(1, len(features) // 8))
        mixture = GaussianMixture(
            count, covariance_type="diag", reg_covar=self.settings.ridge, max_iter=1000, random_state=0
        )
        self._model = mixture.fit(features.astype("float64"))

    def distances(self, features: Array) -> Array:
        result: Array = -known(self._model).score_samples(features.astype("float64"))
        return result


METHODS = (
    MethodEntry(
        "gmm",
        Family.CLASSICAL,
        Regime.SEMI_SUPERVISED,
        ("002-22", "000-3"),
        "Gaussian mixture by expectation maximisation (Dempster et al. 1977); the mixture part of 002-22 only",
        "negative log likelihood of the features, nats; map: windows against healthy windows at that place, in sd, "
        "not by the mixture",
        GmmSettings,
        Gmm,
        explains="deviation of local features (not the score)",
    ),
)
