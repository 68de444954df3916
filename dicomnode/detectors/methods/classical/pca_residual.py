"""PCA: what the main modes of the healthy planes cannot show, and how unusual the modes are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.classical.feature_method import known
from dicomnode.detectors.methods.classical.windows import enlarged, shrunk, smoothed
from dicomnode.detectors.methods.contract import (
    Family,
    Judgement,
    Material,
    MethodEntry,
    Planes,
    Regime,
    Run,
    Settings,
    Tensors,
)
from dicomnode.errors import ConfigError

FOLDS = 4
"""Parts of the healthy planes; each is judged by the modes of the others to learn what is usual."""

EXACT_UP_TO = 500
"""Planes up to which all modes are worked out; of more planes only those asked for are (Halko et al. 2011)."""


class PcaSettings(Settings):
    """``components``: modes that are kept. ``smooth``: side of the mean filter of the map, pixels."""

    components: int = Field(default=16, ge=1, le=512)
    smooth: int = Field(default=3, ge=1, le=31)


@dataclass(frozen=True, slots=True)
class Modes:
    """``mean``: shape (p,). ``components``: (k, p), orthonormal. ``variances``: (k,)."""

    mean: Array
    components: Array
    variances: Array

    def residuals(self, rows: Array) -> Array:
        """What the modes cannot show of ``rows``, same shape (n, p)."""
        centred = rows - self.mean
        shown = (centred @ self.components.T) @ self.components
        return (centred - shown).astype(np.float32)

    def leverages(self, rows: Array) -> Array:
        """Hotelling's T² per mode, shape (n,): mean squared deviation along the modes in healthy variances."""
        along = (rows - self.mean) @ self.components.T
        result: Array = (along**2 / self.variances).mean(axis=1)
        return result


def healthy_modes(rows: Array, count: int) -> Modes:
    """The ``count`` strongest modes of ``rows``, shape (n, p); fewer when there are fewer rows."""
    from sklearn.decomposition import PCA

    kept = max(1, min(count, len(rows) - 2, rows.shape[1]))
    solver = "randomized" if min(rows.shape) > EXACT_UP_TO and 4 * kept < min(rows.shape) else "full"
    fitted = PCA(kept, svd_solver=solver, random_state=0).fit(rows)
    variances = np.maximum(fitted.explained_variance_, 1e-8)
    return Modes(fitted.mean_.astype("f4"), fitted.components_.astype("f4"), variances.astype("f4"))


class PcaResidual:
    """Score: Euclidean sum of two robust deviations, that of log residual energy and that of log leverage (Mejia et
    al. 2017), each only upwards. Map: |residual|, smoothed, in parts of the grey range; 0 outside the organ."""

    def __init__(self, settings: PcaSettings) -> None:
        self.settings = settings
        self._modes: Modes | None = None
        self._usual: npt.NDArray[np.float32] | None = None

    def fit(self, material: Material, run: Run) -> None:
        if len(material.healthy) < 2 * FOLDS:
            raise ConfigError(f"at least {2 * FOLDS} healthy planes are needed")
        healthy = shrunk(material.healthy, self.settings.size)
        rows = healthy.images.reshape(len(healthy), -1)
        masks = healthy.masks.reshape(len(healthy), -1)
        unseen = []
        for fold in range(FOLDS):
            own = np.arange(len(rows)) * FOLDS // len(rows) == fold
            modes = healthy_modes(rows[~own], self.settings.components)
            unseen.append(_logs(modes, rows[own], masks[own]))
            if run.progress is not None:
                run.progress("fit", (fold + 1) / (FOLDS + 1))
        logs = np.concatenate(unseen)
        low, median, high = np.percentile(logs, (25, 50, 75), axis=0)
        self._usual = np.stack([median, np.maximum((high - low) / 1.349, 0.05)]).astype(np.float32)
        self._modes = healthy_modes(rows, self.settings.components)

    def judge(self, planes: Planes) -> Judgement:
        own = shrunk(planes, self.settings.size)
        rows, masks = own.images.reshape(len(own), -1), own.masks.reshape(len(own), -1)
        median, spread = known(self._usual)
        deviations = np.maximum((_logs(known(self._modes), rows, masks) - median) / spread, 0.0)
        residuals = known(self._modes).residuals(rows).reshape(own.images.shape)
        maps = smoothed(np.abs(residuals).astype(np.float32), self.settings.smooth) * own.masks
        return Judgement(np.hypot(*deviations.T).astype(np.float32), enlarged(maps, planes.size))

    def score(self, planes: Planes) -> Array:
        return self.judge(planes).scores

    def map(self, planes: Planes) -> Array:
        return self.judge(planes).maps

    def tensors(self) -> Tensors:
        modes = known(self._modes)
        return {
            "mean": modes.mean,
            "components": modes.components,
            "variances": modes.variances,
            "usual": known(self._usual),
        }

    def restore(self, tensors: Tensors) -> None:
        try:
            mean, components, variances, usual = (
                tensors[name].astype(np.float32) for name in ("mean", "components", "variances", "usual")
            )
        except KeyError as error:
            raise ConfigError("the arrays do not fit the settings of the method") from error
        pixels = self.settings.size**2
        if mean.shape != (pixels,) or components.shape != (len(variances), pixels) or usual.shape != (2, 2):
            raise ConfigError("the arrays do not fit the settings of the method")
        self._modes, self._usual = Modes(mean, components, variances), usual

    def to(self, accelerator: str) -> None:
        """Nothing: this method only knows the CPU."""


def _logs(modes: Modes, rows: Array, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Logarithms of the mean squared residual inside the organ and of the leverage, shape (n, 2)."""
    squares = (modes.residuals(rows) ** 2 * masks).sum(axis=1) / np.maximum(masks.sum(axis=1), 1)
    return np.log(np.stack([squares, modes.leverages(rows)], axis=1).astype(np.float64) + 1e-9)


METHODS = (
    MethodEntry(
        "pca-residual",
        Family.CLASSICAL,
        Regime.SEMI_SUPERVISED,
        ("002-16", "000-5", "002-39"),
        "Mejia et al., Biostatistics 2017 (leverage); Jackson & Mudholkar 1979 (residual)",
        "residual energy and leverage together, in robust healthy sd; map: |residual| in parts of the grey range",
        PcaSettings,
        PcaResidual,
        explains="residual map",
    ),
)
