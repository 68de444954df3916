"""What a detector says of labelled pictures, series by series, as the node would ask it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dicomnode.detectors.contract import Array, LoadedDetector, Plane, Volume
from dicomnode.detectors.ensemble import batch_of, shares_of
from dicomnode.detectors.preprocess import Prepared, Rejected
from dicomnode.detectors.residual import ResidualDetector, score_planes
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.train.datasets import Picture, read_plane, stacks_of
from dicomnode.train.trivial import trivial_features

PICTURE_SLICE_SPACING = 5.0
"""mm between the pictures of one head: they carry no geometry, and only that they are neighbours matters."""
_BATCH = 32
_MODALITIES = {"ct": "CT", "mr": "MR"}


@dataclass(frozen=True, slots=True)
class Judged:
    """One picture and what the detector says of it.

    ``raw``: what orders the pictures, larger is further from healthy; -inf when it was left out. ``score``: the
    calibrated plane score, 0..1. ``heat``: on the picture's own grid, 0..1, None when not kept. ``left_out``: why the
    detector did not look at it, else empty. ``smallest``: pixels of the smallest region that counts.
    """

    picture: Picture
    raw: float
    score: float
    heat: Array | None
    features: dict[str, float]
    left_out: str = ""
    smallest: float = 4.0


@dataclass(frozen=True, slots=True)
class JudgedSeries:
    """The pictures that were looked at together. ``raw``, ``score``: of the series, -inf and 0 when none was used.

    ``threshold``: the score from which the node reports findings, None when no picture was used.
    """

    patient: str
    raw: float
    score: float
    pictures: tuple[Judged, ...] = field(default=())
    threshold: float | None = None


Watch = Callable[[float], None]
"""Told the share of pictures that are done, 0..1."""


def judge_series(
    detector: LoadedDetector, pictures: Sequence[Picture], unit: float, watch: Watch | None = None
) -> Iterator[JudgedSeries]:
    """Each series (a head's pictures in order of position; else a picture alone) as ``detector`` judges it.

    ``unit``: modality units per grey value. A detector of residual maps is asked for its raw scores; any other gets
    a Volume, and its plane scores order the pictures. Raises ConfigError for a picture that cannot be read.
    """
    done = 0
    for group in _groups(pictures):
        members = [[pictures[i] for i in stack] for stack in group]
        planes = [[read_plane(picture, unit) for picture in series] for series in members]
        if isinstance(detector, ResidualDetector):
            yield from _by_residual(detector, members, planes)
        else:
            yield from (_by_volume(detector, *pair) for pair in zip(members, planes, strict=True))
        done += sum(map(len, members))
        if watch is not None:
            watch(done / len(pictures))


def _groups(pictures: Sequence[Picture]) -> Iterator[list[tuple[int, ...]]]:
    """Whole series, so many at a time that about 32 pictures are judged at once."""
    batch: list[tuple[int, ...]] = []
    for stack in stacks_of(pictures):
        batch.append(stack)
        if sum(map(len, batch)) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _by_residual(
    detector: ResidualDetector, members: Sequence[Sequence[Picture]], planes: Sequence[Sequence[Plane]]
) -> Iterator[JudgedSeries]:
    prepared = [[detector.prepare(plane) for plane in series] for series in planes]
    usable = [[item for item in series if isinstance(item, Prepared)] for series in prepared]
    flat = [item for series in usable for item in series]
    starts = np.cumsum([0, *map(len, usable)])
    stacks = tuple(
        tuple(range(a, b)) for a, b, series in zip(starts[:-1], starts[1:], members, strict=True) if b > a and series
    )
    raws: Array = np.zeros((len(detector.ensemble.folds), 0), np.float32)
    maps: Array = np.zeros((0, detector.size, detector.size), np.float32)
    if flat:
        scored = score_planes(detector.ensemble, detector.calibration, batch_of(flat, stacks))
        raws, maps = scored.plane_raws, scored.combined
    for index, series in enumerate(members):
        part = slice(int(starts[index]), int(starts[index + 1]))
        yield _residual_series(detector, series, planes[index], prepared[index], (raws[:, part], maps[part]))


def _residual_series(
    detector: ResidualDetector,
    series: Sequence[Picture],
    planes: Sequence[Plane],
    prepared: Sequence[Prepared | Rejected],
    scored: tuple[Array, Array],
) -> JudgedSeries:
    raws, maps = scored
    rows = iter(range(len(maps)))
    judged = []
    for picture, plane, item in zip(series, planes, prepared, strict=True):
        features = trivial_features(picture, plane.pixels)
        if isinstance(item, Rejected):
            judged.append(_unseen(picture, features, item.reason))
            continue
        i = next(rows)
        own = [float(value) for value in raws[:, i]]
        heat = detector.calibration.heat_of(maps[i]) * item.mask
        pasted = np.clip(item.on_plane(heat, plane.shape), 0.0, 1.0)
        judged.append(
            Judged(
                picture,
                float(np.mean(own)),
                detector.calibration.plane_score_of(own),
                pasted,
                features,
                smallest=detector.min_pixels(item),
            )
        )
    if not len(maps):
        return JudgedSeries(series[0].patient, float("-inf"), 0.0, tuple(judged))
    shares = shares_of([item for item in prepared if isinstance(item, Prepared)])
    whole = [detector.calibration.series_raw(fold, shares) for fold in raws]
    score = detector.calibration.series_score(whole)
    return JudgedSeries(series[0].patient, float(np.mean(whole)), score, tuple(judged), detector.calibration.threshold)


def _by_volume(detector: LoadedDetector, series: Sequence[Picture], planes: Sequence[Plane]) -> JudgedSeries:
    result = detector.detect(volume_of(series, planes, detector.model.name))
    features = [trivial_features(picture, plane.pixels) for picture, plane in zip(series, planes, strict=True)]
    if not result.planes:
        unseen = (_unseen(picture, own, result.reason) for picture, own in zip(series, features, strict=True))
        return JudgedSeries(series[0].patient, float("-inf"), 0.0, tuple(unseen))
    judged = tuple(
        _unseen(picture, own, plane.left_out)
        if plane.left_out
        else Judged(picture, plane.score, plane.score, plane.heat, own)
        for picture, own, plane in zip(series, features, result.planes, strict=True)
    )
    score = result.score or 0.0
    raw = score if result.raw_score is None else result.raw_score
    threshold = None if result.calibration is None else result.calibration.threshold
    return JudgedSeries(series[0].patient, raw, score, judged, threshold)


def volume_of(series: Sequence[Picture], planes: Sequence[Plane], name: str) -> Volume:
    """Pictures as a Volume without positions. ``name``: tells the modality that the summary states (ct…, mr…)."""
    stacked = len(series) > 1
    modality = _MODALITIES.get(name[:2].lower(), "DX")
    summary = SeriesSummary(SeriesReference("2.25.1", "2.25.2"), len(planes), {"Modality": (modality,)})
    spacing = series[0].slice_mm
    notes = ("pictures without geometry: slice spacing assumed",) if stacked and spacing is None else ()
    placed = [replace(own, spacing=_square(pic.pixel_mm)) for pic, own in zip(series, planes, strict=True)]
    return Volume(summary, tuple(placed), (spacing or PICTURE_SLICE_SPACING) if stacked else None, notes)


def _square(pixel_mm: float | None) -> tuple[float, float] | None:
    return None if pixel_mm is None else (pixel_mm, pixel_mm)


def _unseen(picture: Picture, features: dict[str, float], reason: str) -> Judged:
    return Judged(picture, float("-inf"), 0.0, None, features, reason)
