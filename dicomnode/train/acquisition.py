"""Fit the acquisition gate of a model on its healthy training pictures, fold by fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dicomnode.detectors.acquisition import (
    GREATEST_RATE,
    AcquisitionFold,
    AcquisitionModel,
    Measured,
    least_alpha,
    measure_planes,
    standardised,
)
from dicomnode.detectors.acquisition_features import FEATURES, GEOMETRY
from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.contract import Planes

ALPHA = 0.02
"""Share of healthy patients whose acquisition may be called unusual: small, because it costs them a result."""
COMPONENTS = 4
_LEAST_SCALE = 0.01
_LEAST_SPREAD = 0.02
_CLIP = 4.0
_DIGITS = 5


def fit_acquisition(
    planes: Planes,
    patients: Sequence[str],
    folds: Sequence[int],
    countable: Sequence[bool],
    known: Sequence[dict[str, float]] | None = None,
    alpha: float = ALPHA,
) -> AcquisitionModel | None:
    """The gate of a model, or None when there are too few healthy patients for one.

    ``patients``, ``folds``, ``countable`` and ``known`` (geometry): one entry per plane; planes that do not count are
    left out. Each fold is described by the patients it is trained on and calibrated on those it holds back.
    """
    counted = [i for i, own in enumerate(countable) if own]
    n = len({patients[i] for i in counted})
    if least_alpha(n, alpha) > GREATEST_RATE:
        return None
    names = _names([known[i] for i in counted] if known else [])
    given = [known[i] for i in counted] if known else None
    measured = measure_planes(planes.images[counted], planes.masks[counted], names, given)
    own = np.array([folds[i] for i in counted])
    if len(np.unique(own)) <= max(folds):
        return None
    who = np.array([patients[i] for i in counted])
    fitted = [_fit_fold(measured, who, own == fold) for fold in range(max(folds) + 1)]
    return AcquisitionModel(features=list(names), folds=fitted, alpha=alpha)


def _names(known: Sequence[dict[str, float]]) -> tuple[str, ...]:
    """The features of every plane; spacings only where every plane has them."""
    return (*FEATURES, *(name for name in GEOMETRY if known and all(name in own for own in known)))


def _fit_fold(measured: Measured, patients: npt.NDArray[np.str_], held: npt.NDArray[np.bool_]) -> AcquisitionFold:
    seen = measured.chosen(np.flatnonzero(~held).tolist())
    middle = _short(np.median(seen.thumbnails, axis=0))
    spread = _short(np.maximum(_robust_deviation(seen.thumbnails), _LEAST_SPREAD))
    units = standardised(seen.thumbnails, middle, spread)
    components = _principal(units)
    values = np.hstack([seen.features, units @ components.T])
    centre = np.median(values, axis=0)
    scale = np.maximum(_robust_deviation(values), _LEAST_SCALE)
    described = AcquisitionFold(
        thumbnail=middle,
        spread=spread,
        components=[_short(row) for row in components],
        centre=_short(centre),
        scale=_short(scale),
        precision=[_short(row) for row in _precision(np.clip((values - centre) / scale, -_CLIP, _CLIP))],
        healthy=[0.0],
    )
    back = measured.chosen(np.flatnonzero(held).tolist())
    return described.model_copy(update={"healthy": _by_patient(described, back, patients[held])})


def _by_patient(described: AcquisitionFold, back: Measured, patients: npt.NDArray[np.str_]) -> list[float]:
    distances = described.distances(back)
    return sorted(round(float(np.median(distances[patients == name])), 6) for name in np.unique(patients))


def _principal(units: Array) -> Array:
    """The directions in which thumbnails differ most, shape (4, 64), with a sign that does not change by run."""
    _, _, directions = np.linalg.svd(units, full_matrices=False)
    components = directions[:COMPONENTS]
    leading = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    oriented: Array = components * np.sign(leading)
    return oriented


def _robust_deviation(values: Array) -> Array:
    """1.4826 times the median absolute deviation by column: the standard deviation of normal values."""
    deviation = 1.4826 * np.median(np.abs(values - np.median(values, axis=0)), axis=0)
    return np.asarray(deviation, dtype=np.float32)


def _precision(z: Array) -> Array:
    """Inverse of the covariance of ``z``, shape (n, features), shrunk towards a sphere (Ledoit & Wolf 2004)."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(z.astype(np.float64), assume_centered=True)
    inverse: Array = np.linalg.inv(covariance)
    return 0.5 * (inverse + inverse.T)


def _short(values: Array) -> list[float]:
    return [round(float(value), _DIGITS) for value in values]
