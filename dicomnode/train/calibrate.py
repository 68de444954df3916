"""Calibration on healthy patients that a fold's networks have not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dicomnode.detectors.calibration import MapTerm, ResidualCalibration, Scoring, Statistic, Usual, statistic
from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.methods.contract import Judgement
from dicomnode.errors import ConfigError

HEAT_QUANTILES = ((0.1, 0.50), (0.3, 0.80), (0.5, 0.95), (0.7, 0.99), (0.9, 0.995), (0.95, 0.999), (0.98, 0.9999))
"""(heat, share of healthy pixels below): heat 0.9 is reached by one healthy pixel in 200."""
IQR_OF_NORMAL = 1.349
_PLANE_QUANTILES = 200
_PIXELS_PER_PLANE = 2000
_KNOTS, _NEAR = 20, 0.125


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """Which statistics make a score. ``plane``: (kind, share of the organ or None for the
    method's own score, weight). ``map``: (kind, weight). ``thresholds_on``: labelled split whose outlines choose
    ``region_heat`` after training (``thresholds.choose_region_threshold``). ``by_share``: planes are
    compared with healthy ones that show as much of the organ; ``series_share``: see Scoring."""

    plane: tuple[tuple[str, float | None, float], ...]
    map: tuple[tuple[str, float], ...]
    top_planes: int
    raw_unit: str
    alpha: float = 0.05
    region_heat: float = 0.9
    region_share: float = 0.004
    thresholds_on: str | None = None
    by_share: bool = False
    series_share: float = 0.0


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The held-back healthy planes of one fold. ``judged``: by kind; ``patients``: n names; ``shares``: organs'."""

    masks: Mask
    patients: Sequence[str]
    judged: Mapping[str, Judgement]
    shares: Array | None = None


def calibrate(folds: Sequence[HeldBack], rule: ScoreRule) -> ResidualCalibration:
    """The calibration of a model from what each fold says of its held-back healthy patients.

    Two passes: first the scales (healthy medians and quantiles, pooled over the folds), then with them the healthy
    scores per plane and per patient, which stay apart by fold.
    """
    scoring = Scoring(
        plane_score=[_statistic(folds, *term) for term in rule.plane],
        map=[_map_term(folds, *term) for term in rule.map],
        top_planes=rule.top_planes,
        series_share=rule.series_share,
    )
    if rule.by_share:
        scoring = scoring.model_copy(update={"usual": _usual(folds, scoring)})
    raws = [scoring.plane_raws(fold.judged, fold.masks, fold.shares) for fold in folds]
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


def _usual(folds: Sequence[HeldBack], scoring: Scoring) -> list[Usual]:
    """The healthy plane scores around each decile of the organ's share: of the eighth of planes nearest to it."""
    if any(fold.shares is None for fold in folds):
        raise ConfigError("the held-back planes carry no organ shares")
    shares = np.concatenate([fold.shares for fold in folds if fold.shares is not None])
    raws = np.concatenate([scoring.plane_raws(fold.judged, fold.masks) for fold in folds])
    near = max(20, round(_NEAR * len(raws)))
    entries = []
    for share in np.unique(np.quantile(shares, np.linspace(0.025, 0.975, _KNOTS)).round(4)):
        own = raws[np.argsort(np.abs(shares - share), kind="stable")[:near]]
        median, high = np.quantile(own, [0.5, 0.84])
        spread = max(float(high - median), 1e-3)
        entries.append(Usual(share=float(share), median=round(float(median), 4), spread=round(spread, 4)))
    return entries


def _statistic(folds: Sequence[HeldBack], kind: str, share: float | None, weight: float) -> Statistic:
    """A map's statistic in healthy medians; a method's own score, which may lie around 0, in healthy spreads."""
    values = np.concatenate([statistic(fold.judged[kind], fold.masks, share) for fold in folds])
    scale = float(np.median(np.abs(values))) if share is not None else spread_of(values)
    return Statistic(kind=kind, share=share, scale=max(scale, 1e-9), weight=weight)


def spread_of(values: Array) -> float:
    """The standard deviation that a normal distribution with the same quartiles has."""
    low, high = np.quantile(values, (0.25, 0.75))
    return float(high - low) / IQR_OF_NORMAL


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
    return sorted(round(_series_raw(fold, raws, names == name, scoring), 6) for name in np.unique(names))


def _series_raw(fold: HeldBack, raws: Array, own: Mask, scoring: Scoring) -> float:
    return scoring.series_raw(raws[own], None if fold.shares is None else fold.shares[own])


def _quantiles(raws: Array) -> list[float]:
    return [round(float(value), 6) for value in np.quantile(raws, np.linspace(0, 1, min(_PLANE_QUANTILES, len(raws))))]
