"""``calibration.json``: how residual maps become plane scores, a series score and heat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dicomnode.detectors.conformal import conformal_score, false_positive_rate, quantile_heat, threshold_for
from dicomnode.detectors.contract import Array, Calibration, Mask
from dicomnode.detectors.methods.contract import Judgement
from dicomnode.errors import ConfigError

METHOD = (
    "cross-conformal: p = (1 + number of held-back healthy patients with a raw score at least as high) / (n + 1), "
    "score = 1 - p, with the place between two healthy patients as a fraction of one step"
)


class Statistic(BaseModel):
    """One term of the plane score: weight / scale * mean of the greatest ``share`` of the map inside the organ.

    Without ``share`` the method's own score stands in its place. ``scale``: the median size of this statistic over
    held-back healthy planes.
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


class Scoring(BaseModel):
    """How residual maps become raw scores. ``top_planes``: a series' raw score is the mean of so many greatest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plane_score: list[Statistic] = Field(min_length=1)
    map: list[MapTerm] = Field(min_length=1)
    top_planes: int = Field(ge=1)

    def plane_raws(self, judged: Mapping[str, Judgement], masks: Mask) -> Array:
        """The raw scores of n planes, shape (n,), from what the methods say of them; ``masks``: their organs."""
        terms = [
            term.weight / term.scale * statistic(judged[term.kind], masks, term.share) for term in self.plane_score
        ]
        return np.asarray(np.sum(terms, axis=0), dtype=np.float32)

    def series_raw(self, plane_raws: Array) -> float:
        """The raw score of a series from those of its planes, shape (n,)."""
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
    ``region_share``: smallest region, as share of the organ's area on its plane.
    """

    healthy_series: list[list[float]] = Field(min_length=1)
    healthy_planes: list[list[float]] = Field(min_length=1)
    heat: list[tuple[float, float]] = Field(min_length=2)
    alpha: float = Field(gt=0, lt=1)
    region_heat: float = Field(gt=0, lt=1)
    region_share: float = Field(ge=0, lt=1)
    raw_unit: str

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
