"""``calibration.json``: how residual maps become plane scores, a series score and heat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dicomnode.detectors.acquisition import AcquisitionModel
from dicomnode.detectors.conformal import (
    conformal_p,
    conformal_score,
    false_positive_rate,
    quantile_heat,
    threshold_for,
)
from dicomnode.detectors.contract import Array, Calibration, Mask
from dicomnode.detectors.methods.contract import Judgement
from dicomnode.errors import ConfigError

METHOD = (
    "cross-conformal: p = (1 + number of held-back healthy patients with a raw score at least as high) / (n + 1), "
    "score = 1 - p, with the place between two healthy patients as a fraction of one step"
)

NO_SHARES = "this calibration needs the organ's share on every plane"


class Statistic(BaseModel):
    """One term of the plane score: weight / scale * mean of the greatest ``share`` of the map inside the organ.

    Without ``share`` the method's own score stands in its place. ``scale``: over held-back healthy planes the median
    size of the statistic, of an own score its spread (interquartile range / 1.349).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    share: float | None = Field(default=None, gt=0, le=1)
    scale: float = Field(gt=0)
    weight: float = Field(gt=0)


class MapTerm(BaseModel):
    """One term of the combined map: residual / ``scale`` * ``weight``; ``scale``: its healthy 99th percentile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    scale: float = Field(gt=0)
    weight: float = Field(gt=0)


class Usual(BaseModel):
    """The plane score of healthy planes with an organ of this ``share``: median, and 84th percentile less median."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(ge=0, le=1)
    median: float
    spread: float = Field(gt=0)


class Scoring(BaseModel):
    """How residual maps become raw scores. ``top_planes``: a series' raw score is the mean of so many greatest.

    ``usual``: with it, a plane's raw score is its distance from healthy planes with as much organ, in their spreads
    (linear between two entries); the skull base is not held against a head. ``series_share``: a series' raw score is
    that of its planes with at least such a share of the organ, when it has any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    plane_score: list[Statistic] = Field(min_length=1)
    map: list[MapTerm] = Field(min_length=1)
    top_planes: int = Field(ge=1)
    usual: list[Usual] = Field(default_factory=list)
    series_share: float = Field(default=0.0, ge=0, le=1)

    def plane_raws(self, judged: Mapping[str, Judgement], masks: Mask, shares: Array | None = None) -> Array:
        """The raw scores of n planes, shape (n,), from what the methods say of them.

        ``masks``: their organs; ``shares``: of the organ, shape (n,). Raises ConfigError when ``usual`` needs shares
        and there are none.
        """
        terms = [
            term.weight / term.scale * statistic(judged[term.kind], masks, term.share) for term in self.plane_score
        ]
        return self._by_share(np.asarray(np.sum(terms, axis=0), dtype=np.float32), shares)

    def _by_share(self, raws: Array, shares: Array | None) -> Array:
        if not self.usual:
            return raws
        if shares is None:
            raise ConfigError(NO_SHARES)
        knots = [entry.share for entry in self.usual]
        median = np.interp(shares, knots, [entry.median for entry in self.usual])
        spread = np.interp(shares, knots, [entry.spread for entry in self.usual])
        return np.asarray((raws - median) / spread, dtype=np.float32)

    def series_raw(self, plane_raws: Array, shares: Array | None = None) -> float:
        """The raw score of a series from those of its planes, shape (n,), and their organ ``shares``, shape (n,).

        Raises ConfigError when ``series_share`` needs shares and there are none.
        """
        if self.series_share:
            if shares is None:
                raise ConfigError(NO_SHARES)
            enough = shares >= self.series_share
            plane_raws = plane_raws[enough] if enough.any() else plane_raws
        return float(np.sort(plane_raws)[-self.top_planes :].mean())

    def combined(self, judged: Mapping[str, Judgement]) -> Array:
        """The combined residual maps in units of their healthy 99th percentile, shape (n, size, size)."""
        first, *others = (term.weight / term.scale * judged[term.kind].maps for term in self.map)
        return np.asarray(sum(others, first), dtype=np.float32)


class ResidualCalibration(Scoring):
    """Everything that turns residual maps into calibrated answers.

    ``healthy_series``: per fold, the raw scores of its held-back healthy patients. ``healthy_planes``: per fold, up
    to 200 quantiles of the plane scores of the same patients. ``heat``: (heat, combined residual) knots. ``alpha``:
    wanted share of healthy patients at the threshold. ``region_heat``: heat from which a pixel belongs to a region.
    ``region_share``: smallest region, as share of the organ's area on its plane. ``acquisition``: the second question,
    whether the images were acquired like those of the healthy patients; None when that was not calibrated.
    """

    healthy_series: list[list[float]] = Field(min_length=1)
    healthy_planes: list[list[float]] = Field(min_length=1)
    heat: list[tuple[float, float]] = Field(min_length=2)
    alpha: float = Field(gt=0, lt=1)
    region_heat: float = Field(gt=0, lt=1)
    region_share: float = Field(ge=0, lt=1)
    raw_unit: str
    acquisition: AcquisitionModel | None = None

    @model_validator(mode="after")
    def _usable(self) -> ResidualCalibration:
        if len(self.healthy_series) != len(self.healthy_planes):
            raise ValueError("healthy_series and healthy_planes have different numbers of folds")
        if false_positive_rate(self.n_patients, self.alpha) == 0:
            raise ValueError(f"{self.n_patients} healthy patients are too few for a threshold at alpha {self.alpha}")
        return self

    @property
    def n_patients(self) -> int:
        return sum(len(fold) for fold in self.healthy_series)

    @property
    def threshold(self) -> float:
        """The score from which a series has findings: p <= alpha."""
        return threshold_for(self.n_patients, self.alpha)

    def series_score(self, raws: list[float]) -> float:
        """The calibrated score of a series, 0..1, from its raw score by each fold."""
        return conformal_score(self.healthy_series, raws)

    def p_value(self, raws: list[float]) -> float:
        """The conformal p-value of a series: the share of healthy patients that look at least as abnormal."""
        return conformal_p(self.healthy_series, raws)

    def plane_score_of(self, raws: list[float]) -> float:
        """The calibrated score of a plane, 0..1: its place among the planes of held-back healthy patients."""
        return conformal_score(self.healthy_planes, raws)

    def heat_of(self, combined: Array) -> Array:
        """Heat 0..1 of a combined map: its place among the pixels of held-back healthy patients."""
        return quantile_heat(combined, self.heat)

    def statement(self) -> Calibration:
        """What reports say of the score."""
        return Calibration(
            unit="1 - conformal p-value (share of healthy patients with a lower score)",
            method=METHOD,
            n_patients=self.n_patients,
            threshold=self.threshold,
            expected_false_positive_rate=false_positive_rate(self.n_patients, self.alpha),
        )


def statistic(judged: Judgement, masks: Mask, share: float | None) -> Array:
    """One figure per plane, shape (n,): the method's own score, or the mean of the greatest ``share`` of its map."""
    if share is None:
        return judged.scores
    pairs = zip(judged.maps, masks, strict=True)
    return np.array([top_mean(plane[mask], share) for plane, mask in pairs], dtype=np.float32)


def top_mean(values: Array, share: float) -> float:
    """The mean of the greatest ``share`` of ``values``, shape (n,); 0 when there are none."""
    if values.size == 0:
        return 0.0
    count = max(1, round(share * values.size))
    if count >= values.size:
        return float(values.mean())
    return float(np.partition(values, values.size - count)[-count:].mean())


def read_calibration(content: bytes) -> ResidualCalibration:
    """The calibration in a file's bytes. Raises ConfigError when it is not valid."""
    try:
        parsed: Any = json.loads(content)
        return ResidualCalibration.model_validate(parsed)
    except (ValueError, ValidationError) as error:
        raise ConfigError(f"calibration.json is not valid: {error}") from error
