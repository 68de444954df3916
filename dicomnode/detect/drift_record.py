"""What an analysis leaves for the watch on drift: scores, a small histogram, and hashes of where it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from sqlalchemy import delete
from sqlalchemy.orm import Session

from dicomnode.detect.case import Case
from dicomnode.detectors.contract import Array, DetectionResult, ModelIdentity, Volume
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.store.tables import ObservationRow

BINS = 16
HU_RANGE = (-160.0, 240.0)
"""Hounsfield units that the histogram of a CT covers; values beyond count in the outer bins."""
_PERCENTILES = (1.0, 99.0)
_MOST_PIXELS = 65536
_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Observed:
    """``score`` and ``acquisition``: calibrated, 0..1; ``histogram``: ``BINS`` shares that add up to 1."""

    score: float
    acquisition: float | None
    histogram: tuple[float, ...]


def observe(volume: Volume, result: DetectionResult) -> Observed | None:
    """What ``result`` says before any gate withholds it; None without a score."""
    if result.score is None:
        return None
    acquisition = result.acquisition.score if result.acquisition else None
    return Observed(result.score, acquisition, intensity_histogram(volume))


def intensity_histogram(volume: Volume) -> tuple[float, ...]:
    """Shares of pixels in 16 equal bins: of ``HU_RANGE`` for CT, else between the Series' own 1st and 99th
    percentiles, as other modalities have no unit. Pixels are taken evenly, 65536 at most."""
    pixels = _sample(volume)
    low, high = HU_RANGE if volume.summary.Modality == "CT" else np.percentile(pixels, _PERCENTILES)
    if high <= low:
        high = low + 1.0
    places = np.clip((pixels - low) / (high - low) * BINS, 0, BINS - 1).astype(int)
    shares = np.bincount(places, minlength=BINS) / max(pixels.size, 1)
    return tuple(round(float(share), 5) for share in shares)


def _sample(volume: Volume) -> Array:
    total = sum(plane.pixels.size for plane in volume.planes)
    step = max(1, -(-total // _MOST_PIXELS))
    sampled: Array = np.concatenate([plane.pixels.ravel()[::step] for plane in volume.planes])
    finite = sampled[np.isfinite(sampled)]
    return finite if finite.size else np.zeros(1, np.float32)


def record(session: Session, case: Case, model: ModelIdentity, observed: Observed | None, now: float) -> None:
    """Add the row of an analysis; call it in the transaction that ends its job. A second analysis replaces it."""
    session.execute(delete(ObservationRow).where(ObservationRow.assignment_id == case.assignment.id))
    if observed is None:
        return
    sender, detector = case.series.CallingAETitle, case.assignment.detector or ""
    scanner, protocol = scanner_hash(case.summary), protocol_hash(case.summary)
    session.add(
        ObservationRow(
            assignment_id=case.assignment.id,
            stratum=_hash(sender, scanner, protocol, detector, model.sha256),
            CallingAETitle=sender,
            scanner=scanner,
            protocol=protocol,
            detector=detector,
            weights_sha256=model.sha256,
            score=observed.score,
            acquisition=observed.acquisition,
            histogram=list(observed.histogram),
            observed_at=now,
        )
    )


def scanner_hash(summary: SeriesSummary) -> str:
    """Manufacturer and model as a hash."""
    return _hash(summary.first("Manufacturer"), summary.first("ManufacturerModelName"))


def protocol_hash(summary: SeriesSummary) -> str:
    """Modality, body part and protocol name (without one: the description) as a hash."""
    named = summary.first("ProtocolName") or summary.first("SeriesDescription")
    return _hash(summary.Modality, summary.first("BodyPartExamined"), named)


def _hash(*parts: str) -> str:
    text = "\0".join(part.strip().casefold() for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]
