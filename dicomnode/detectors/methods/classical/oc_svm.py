"""One-class SVM on handcrafted features."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.classical.feature_method import FeatureMethod, known
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime, Settings


class OcSvmSettings(Settings):
    """``nu``: largest share of healthy planes left outside. ``gamma``: width of the radial kernel in features;
    None takes 1 / (number of features x their variance)."""

    nu: float = Field(default=0.05, gt=0, le=1)
    gamma: float | None = Field(default=None, gt=0)


class OcSvm(FeatureMethod[OcSvmSettings]):
    """Score: distance outside the boundary, -f(x); with a radial kernel the smallest sphere gives the same order."""

    def __init__(self, settings: OcSvmSettings) -> None:
        super().__init__(settings)
        self._model: Any = None

    def learn(self, features: Array) -> None:
        from sklearn.svm import OneClassSVM

        gamma = self.settings.gamma or "scale"
        self._model = OneClassSVM(kernel="rbf", nu=self.settings.nu, gamma=gamma).fit(features)

    def distances(self, features: Array) -> Array:
        result: Array = -known(self._model).decision_function(features)
        return result


METHODS = (
    MethodEntry(
        "oc-svm",
        Family.CLASSICAL,
        Regime.SEMI_SUPERVISED,
        ("002-38", "000-3"),
        "Schölkopf et al., Neural Computation 2001; Tax & Duin 2004 (the same order with a radial kernel)",
        "distance outside the one-class boundary, no unit; map: windows against healthy windows at that place, in sd, "
        "not by the machine",
        OcSvmSettings,
        OcSvm,
        explains="deviation of local features (not the score)",
    ),
)
