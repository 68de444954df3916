"""Features that need no model: what a detector must beat before its figure says anything about disease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dicomnode.detectors.contract import Array
from dicomnode.errors import ConfigError
from dicomnode.train.datasets import Picture

_FOREGROUND = 0.1
_KNOWN = 0.5


def trivial_features(picture: Picture, pixels: Array) -> dict[str, float]:
    """Single features of one picture; nan where the data do not say (age, sex, place).

    ``pixels``: shape (rows, columns). Foreground: what is brighter than a tenth of the picture's range.
    """
    low, high = float(pixels.min()), float(pixels.max())
    scaled = (pixels - low) / max(high - low, 1e-9)
    inside = scaled > _FOREGROUND
    rows, columns = pixels.shape
    centre = pixels[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    return {
        "mean": float(pixels.mean()),
        "standard deviation": float(pixels.std()),
        "foreground mean": float(pixels[inside].mean()) if inside.any() else 0.0,
        "foreground share": float(inside.mean()),
        "brightest 2 %": float(np.quantile(pixels, 0.98)),
        "gradient": float(np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean()),
        "centre mean": float(centre.mean()),
        "file size": _bytes(picture),
        "distance from the middle": float("nan") if picture.position is None else abs(picture.position - 0.5),
        "age": _number(picture.about.get("age")),
        "male sex": _male(picture.about.get("sex")),
    }


def feature_table(features: Sequence[Mapping[str, float]]) -> dict[str, npt.NDArray[np.float64]]:
    """The features as columns, shape (n,); those known of less than half of the pictures are left out.

    A missing value reads as the median of the others, which favours neither class.
    """
    columns = {name: np.array([item[name] for item in features], dtype=np.float64) for name in features[0]}
    table = {}
    for name, column in columns.items():
        known = np.isfinite(column)
        if known.mean() >= _KNOWN and np.ptp(column[known]) > 0:
            table[name] = np.where(known, column, np.median(column[known]))
    return table


def _bytes(picture: Picture) -> float:
    try:
        return float(picture.path.stat().st_size)
    except OSError as error:
        raise ConfigError(f"{picture.path.name} cannot be read as a picture") from error


def _number(text: str | None) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError:
        return float("nan")


def _male(text: str | None) -> float:
    return {"M": 1.0, "F": 0.0}.get((text or "").strip().upper()[:1], float("nan"))
