"""Calibration on healthy patients that a fold's networks have not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dicomnode.detectors.calibration import MapTerm, ResidualCalibration, Scoring, Statistic, statistic
from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.methods.contract import Judgement

HEAT_QUANTILES = ((0.1, 0.50), (0.3, 0.80), (0.5, 0.95), (0.7, 0.99), (0.9, 0.995), (0.95, 0.999), (0.98, 0.9999))
"""(heat, share of healthy pixels below): heat 0.9 is reached by one healthy pixel in 200."""
_PLANE_QUANTILES = 200
_PIXELS_PER_PLANE = 2000


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """Which statistics make a score. ``plane``: (kind, share of the organ or None for the
    method's own score, weight). ``map``: (kind, weight)."""

    plane: tuple[tuple[str, float | None, float], ...]
    map: tuple[tuple[str, float], ...]
    top_planes: int
    raw_unit: str
    alpha: float = 0.05
    region_heat: float = 0.9
    region_share: float = 0.004


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The held-back healthy planes of one fold. ``judged``: by kind; ``patients``: n names."""

    masks: Mask
    patients: Sequence[str]
    judged: Mapping[str, Judgement]


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
    raws = [scoring.plane_raws(fold.judged, fold.masks) for fold in folds]
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


def _statistic(folds: Sequence[HeldBack], kind: str, share: float | None, weight: float) -> Statistic:
    values = np.concatenate([statistic(fold.judged[kind], fold.masks, share) for fold in folds])
    return Statistic(kind=kind, share=share, scale=max(float(np.median(np.abs(values))), 1e-9), weight=weight)


def _map_term(folds: Sequence[HeldBack], kind: str, weight: float) -> MapTerm:
    pixels = np.concatenate([_sample(fold.judged[kind].maps, fold.masks) for fold in folds])
    return MapTerm(kind=kind, scale=max(float(np.quantile(pixels, 0.99)), 1e-9), weight=weight)


def _heat_knots(folds: Sequence[HeldBack], scoring: Scoring) -> list[tuple[float, float]]:
    pixels = np.concatenate([_sample(scoring.combined(fold.judged), fold.masks) for fold in folds])
    return [(heat, float(np.quantile(pixels, share))) for heat, share in HEAT_QUANTILES]


def _sample(maps: Array, masks: Mask) -> Array:
    """Up to 2000 pixels of each plane's organ, evenly taken, so that every plane weighs about the same."""
    return np.concatenate([_thinned(plane[mask]) for plane, mask in zip(maps, masks, strict=True)])


def _thinned(inside: Array) -> Array:
    return inside[:: max(1, inside.size // _PIXELS_PER_PLANE)]


def _by_patient(fold: HeldBack, raws: Array, scoring: Scoring) -> list[float]:
    names = np.asarray(fold.patients)
    return sorted(round(scoring.series_raw(raws[names == name]), 6) for name in np.unique(names))


def _quantiles(raws: Array) -> list[float]:
    return [round(float(value), 6) for value in np.quantile(raws, np.linspace(0, 1, min(_PLANE_QUANTILES, len(raws))))]
