"""Whether images were acquired like those of calibration: a score that is independent of the lesion score.

Design of two questions with two scores: Heer et al., The OOD Blind Spot of Unsupervised Anomaly Detection, MIDL 2021
(PMLR 143:286-300). Distance: Mahalanobis with shrinkage (Ledoit & Wolf, J Multivar Anal 2004) on robustly scaled
features; the series counts by its median plane; the score is conformal like the lesion score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dicomnode.detectors.acquisition_features import THUMBNAIL, measure, thumbnail, vector
from dicomnode.detectors.conformal import conformal_score, false_positive_rate, threshold_for
from dicomnode.detectors.contract import Acquisition, Array, Mask

METHOD = (
    "robust Mahalanobis distance of intensity, noise, sharpness, spectrum, air and a thumbnail's principal "
    "components from held-back healthy patients, median plane, cross-conformal"
)
UNIT = "1 - conformal p-value (share of healthy patients acquired less unusually)"
GREATEST_RATE = 0.05
"""With so few healthy patients that a threshold would flag more of them than this, there is no gate."""
NAMED = 3
CUT = 3.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Acquisition figures of n planes. ``features``: shape (n, features), nan where not known; ``thumbnails``:
    shape (n, 64)."""

    features: Array
    thumbnails: Array

    def chosen(self, indices: Sequence[int]) -> Measured:
        """The planes with these indices."""
        return Measured(self.features[list(indices)], self.thumbnails[list(indices)])


def measure_planes(
    images: Array, masks: Mask, names: tuple[str, ...], known: Sequence[dict[str, float]] | None = None
) -> Measured:
    """Figures of prepared planes, ``images`` and ``masks`` of shape (n, size, size); ``known``: geometry by plane."""
    known = known or [{}] * len(images)
    triples = zip(images, masks, known, strict=True)
    rows = [vector(measure(image, mask) | given, names) for image, mask, given in triples]
    return Measured(np.stack(rows), np.stack([thumbnail(image) for image in images]))


def standardised(thumbnails: Array, middle: Sequence[float], spread: Sequence[float]) -> Array:
    """Thumbnails, shape (n, 64), in robust standard deviations from the median one, between -``CUT`` and ``CUT``."""
    units: Array = np.clip((thumbnails - np.array(middle)) / np.array(spread), -CUT, CUT)
    return units


class AcquisitionFold(BaseModel):
    """What one fold's training planes look like, and how far its held-back healthy patients are from that.

    ``thumbnail`` and ``spread``: the median one and its robust standard deviation by pixel; ``components``: principal
    components of thumbnails in these units, cut at ``CUT`` so that a lesion in a few pixels weighs little. ``centre``,
    ``scale``: medians and robust spreads of features and components; ``precision``: inverse of their shrunk covariance
    in units of ``scale``. ``healthy``: distance of each held-back healthy patient.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    thumbnail: list[float] = Field(min_length=THUMBNAIL**2, max_length=THUMBNAIL**2)
    spread: list[float] = Field(min_length=THUMBNAIL**2, max_length=THUMBNAIL**2)
    components: list[list[float]]
    centre: list[float]
    scale: list[float]
    precision: list[list[float]]
    healthy: list[float] = Field(min_length=1)

    def z(self, measured: Measured) -> Array:
        """Deviations in robust units, shape (n, features + components); 0 for a feature that is not known."""
        embedded = standardised(measured.thumbnails, self.thumbnail, self.spread) @ np.array(self.components).T
        values = np.hstack([measured.features, embedded])
        deviations: Array = np.nan_to_num((values - np.array(self.centre)) / np.array(self.scale), nan=0.0)
        return deviations

    def distances(self, measured: Measured) -> Array:
        """Mahalanobis distance of each plane over the root of the number of features, about 1 when usual."""
        z = self.z(measured)
        squares = np.einsum("ni,ij,nj->n", z, np.array(self.precision), z) / z.shape[1]
        distances: Array = np.sqrt(np.clip(squares, 0.0, None))
        return distances


class AcquisitionModel(BaseModel):
    """The entry ``acquisition`` of calibration.json. ``features``: names in order; ``alpha``: intended rate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: list[str] = Field(min_length=1)
    folds: list[AcquisitionFold] = Field(min_length=1)
    alpha: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _usable(self) -> AcquisitionModel:
        for fold in self.folds:
            n = len(self.features) + len(fold.components)
            rows = [fold.centre, fold.scale, *fold.precision]
            if len(fold.precision) != n or any(len(row) != n for row in rows):
                raise ValueError("features, centre, scale and precision of the acquisition gate differ in number")
            if any(len(row) != THUMBNAIL**2 for row in fold.components) or min(*fold.scale, *fold.spread) <= 0:
                raise ValueError("the acquisition gate has a wrong component or a scale that is not positive")
        if self.rate > GREATEST_RATE:
            raise ValueError(f"{self.n_patients} healthy patients are too few for an acquisition gate")
        return self

    @property
    def n_patients(self) -> int:
        return sum(len(fold.healthy) for fold in self.folds)

    @property
    def rate(self) -> float:
        """Share of healthy patients expected at the threshold: at most ``alpha``, or one patient where n is small."""
        return false_positive_rate(self.n_patients, least_alpha(self.n_patients, self.alpha))

    @property
    def threshold(self) -> float:
        """The score from which an acquisition is unusual."""
        return threshold_for(self.n_patients, least_alpha(self.n_patients, self.alpha))

    def judge(self, measured: Measured, notes: tuple[str, ...] = (), *, notes_count: bool = False) -> Acquisition:
        """How unusual a series is, from its planes (one or more).

        ``notes``: what its headers say that training has not seen; ``notes_count``: they alone make it unusual.
        """
        raws = [float(np.median(fold.distances(measured))) for fold in self.folds]
        score = conformal_score([fold.healthy for fold in self.folds], raws)
        return Acquisition(
            score=score,
            threshold=self.threshold,
            alpha=self.rate,
            unit=UNIT,
            method=METHOD,
            n_patients=self.n_patients,
            distance=float(np.mean(raws)),
            features=self._most_unusual(measured),
            header_notes=notes,
            header_counts=notes_count,
        )

    def _most_unusual(self, measured: Measured) -> tuple[tuple[str, float], ...]:
        """The features that deviate most, by the median plane, in robust standard deviations with their sign."""
        z = np.median(np.mean([fold.z(measured) for fold in self.folds], axis=0), axis=0)[: len(self.features)]
        order = np.argsort(-np.abs(z), kind="stable")[:NAMED]
        return tuple((self.features[i], round(float(z[i]), 1)) for i in order)


def least_alpha(n: int, alpha: float) -> float:
    """``alpha``, or 1 / (n + 1) where ``n`` patients cannot tell so small a rate."""
    return max(alpha, 1.0 / (n + 1))
