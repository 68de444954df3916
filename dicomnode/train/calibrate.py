"""Calibration on healthy patients that a fold's networks have not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dicomnode.detectors.calibration import MapTerm, ResidualCalibration, Scoring, Statistic, top_mean
from dicomnode.detectors.contract import Array
from dicomnode.detectors.preprocess import Prepared

HEAT_QUANTILES = ((0.1, 0.50), (0.3, 0.80), (0.5, 0.95), (0.7, 0.99), (0.9, 0.995), (0.95, 0.999), (0.98, 0.9999))
"""(heat, share of healthy pixels below): heat 0.9 is reached by one healthy pixel in 200."""
_PLANE_QUANTILES = 200
_PIXELS_PER_PLANE = 2000


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """Which statistics make a score. ``plane``: (kind, share of the organ, weight). ``map``: (kind, weight)."""

    plane: tuple[tuple[str, float, float], ...]
    map: tuple[tuple[str, float], ...]
    top_planes: int
    raw_unit: str
    alpha: float = 0.05
    region_heat: float = 0.9
    region_share: float = 0.004


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The held-back healthy planes of one fold. ``maps`` by kind, shape (n, size, size); ``patients``: n names."""

    planes: Sequence[Prepared]
    patients: Sequence[str]
    maps: Mapping[str, Array]


def calibrate(folds: Sequence[HeldBack], rule: ScoreRule) -> ResidualCalibration:
    """The calibration of a model from what each fold says of its held-back healthy patients.

    Two passes: first the scales (healthy medians and quantiles, pooled over the folds), then with them the healthy
    scores per plane and per patient, which stay apart by fold.
    """
    scoring = Scoring(
        plane_score=[_statistic(folds, *term) for term in rule.plane],
        map=[_map_term(folds, *term) for term in rule.map],
        top_planes=rule.top_planes,
    )
    raws = [plane_raws(fold, scoring) for fold in folds]
    return ResidualCalibration(
        **scoring.model_dump(),
        healthy_series=[_by_patient(fold, raw, scoring) for fold, raw in zip(folds, raws, strict=True)],
        healthy_planes=[_quantiles(raw) for raw in raws],
        heat=_heat_knots(folds, scoring),
        alpha=rule.alpha,
        region_heat=rule.region_heat,
        region_share=rule.region_share,
        raw_unit=rule.raw_unit,
    )


def plane_raws(fold: HeldBack, scoring: Scoring) -> Array:
    """Raw plane scores of one fold, shape (n,)."""
    maps = fold.maps
    return np.array(
        [scoring.plane_raw({kind: maps[kind][i] for kind in maps}, plane.mask) for i, plane in enumerate(fold.planes)],
        dtype=np.float32,
    )


def _statistic(folds: Sequence[HeldBack], kind: str, share: float, weight: float) -> Statistic:
    values = [top_mean(fold.maps[kind][i][plane.mask], share) for fold in folds for i, plane in enumerate(fold.planes)]
    return Statistic(kind=kind, share=share, scale=float(np.median(values)), weight=weight)


def _map_term(folds: Sequence[HeldBack], kind: str, weight: float) -> MapTerm:
    pixels = np.concatenate([_sample(fold.maps[kind][i], plane) for fold in folds for i, plane in _numbered(fold)])
    return MapTerm(kind=kind, scale=float(np.quantile(pixels, 0.99)), weight=weight)


def _heat_knots(folds: Sequence[HeldBack], scoring: Scoring) -> list[tuple[float, float]]:
    pixels = np.concatenate(
        [
            _sample(scoring.combined({kind: fold.maps[kind][i] for kind in fold.maps}), plane)
            for fold in folds
            for i, plane in _numbered(fold)
        ]
    )
    return [(heat, float(np.quantile(pixels, share))) for heat, share in HEAT_QUANTILES]


def _numbered(fold: HeldBack) -> list[tuple[int, Prepared]]:
    return list(enumerate(fold.planes))


def _sample(values: Array, plane: Prepared) -> Array:
    """Up to 2000 pixels of the organ, evenly taken, so that every plane weighs about the same."""
    inside = values[plane.mask]
    step = max(1, inside.size // _PIXELS_PER_PLANE)
    return inside[::step]


def _by_patient(fold: HeldBack, raws: Array, scoring: Scoring) -> list[float]:
    names = np.asarray(fold.patients)
    return sorted(round(scoring.series_raw(raws[names == name]), 6) for name in np.unique(names))


def _quantiles(raws: Array) -> list[float]:
    return [round(float(value), 6) for value in np.quantile(raws, np.linspace(0, 1, min(_PLANE_QUANTILES, len(raws))))]
