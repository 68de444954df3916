"""What a model is worth on labelled pictures that it was not trained on, with intervals and trivial rivals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.ensemble import stack_images
from dicomnode.detectors.methods.contract import Planes
from dicomnode.detectors.preprocess import Prepared
from dicomnode.detectors.regions import RegionRule, plane_regions
from dicomnode.detectors.resample import paste
from dicomnode.detectors.residual import ResidualDetector, load_residual_detector, score_planes
from dicomnode.errors import ConfigError
from dicomnode.models.card import read_card, write_card
from dicomnode.train.datasets import Picture, read_mask, read_pictures, read_plane, stacks_of
from dicomnode.train.recipes import Recipe
from dicomnode.train.statistics import auroc, average_precision, deciles, stratified_auroc, with_interval

_CHUNK = 32
_PIXELS_STEP = 7


@dataclass(frozen=True, slots=True)
class Judged:
    """One labelled picture and what the model says of it. ``raws``: raw plane score of each fold.

    ``trivial``: single features that need no model. ``heat``: on the network grid, (size, size).
    """

    picture: Picture
    plane: Prepared
    raws: Array
    heat: Array
    trivial: dict[str, float]

    @property
    def raw(self) -> float:
        return float(self.raws.mean())


def evaluate_model(
    folder: Path, recipe: Recipe, data: Path, *, splits: Sequence[str] = ("val",), accelerator: str = "cpu"
) -> dict[str, Any]:
    """Figures per split: see ``judge_split``. Raises ConfigError for an unusable model or data folder."""
    detector = load_residual_detector(recipe.detector, folder, accelerator)
    return {split: judge_split(detector, recipe, read_pictures(data, {split})) for split in splits}


def record_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Put the figures into the card of a model folder."""
    write_card(folder, read_card(folder).model_copy(update={"metrics": metrics}))


def judge_split(detector: ResidualDetector, recipe: Recipe, pictures: Sequence[Picture]) -> dict[str, Any]:
    """The figures of one split, by what its labels allow.

    Slices of heads (with positions): AUROC of abnormal slices against slices of normal patients (where patients are
    labelled; else against normal slices), within deciles of position, and AUROC of patients when there are normal
    ones. Projections: AUROC of label 1 against all others. With masks also pixel figures. Intervals: 95 %, patients
    drawn with replacement.
    """
    judged, left_out = judge(detector, recipe, pictures)
    if not judged:
        raise ConfigError("no picture of this split could be analysed")
    figures: dict[str, Any] = {
        "pictures": len(pictures),
        "left_out": left_out,
        "left_out_abnormal": sum(p.label == 1 for p in pictures) - sum(j.picture.label == 1 for j in judged),
        "patients": len({picture.patient for picture in pictures}),
    }
    figures |= _picture_figures(judged)
    if any(item.picture.patient_label is not None for item in judged):
        figures |= _patient_figures(detector, judged)
    if any(item.picture.mask_file for item in judged):
        figures |= _pixel_figures(detector, judged)
    figures["share_of_planes_at_threshold"] = _plane_rates(detector, judged)
    return figures


def judge(detector: ResidualDetector, recipe: Recipe, pictures: Sequence[Picture]) -> tuple[list[Judged], int]:
    """Score labelled pictures one by one as the node would; answers them and how many could not be analysed."""
    judged: list[Judged] = []
    for start in range(0, len(pictures), _CHUNK):
        chunk = pictures[start : start + _CHUNK]
        prepared = [detector.prepare(read_plane(picture, recipe.unit)) for picture in chunk]
        pairs = [(pic, plane) for pic, plane in zip(chunk, prepared, strict=True) if isinstance(plane, Prepared)]
        if pairs:
            judged += _score(detector, pairs)
    return judged, len(pictures) - len(judged)


def _score(detector: ResidualDetector, pairs: Sequence[tuple[Picture, Prepared]]) -> list[Judged]:
    prepared = [plane for _, plane in pairs]
    planes = Planes(
        stack_images(prepared), np.stack([plane.mask for plane in prepared]), stacks_of([pic for pic, _ in pairs])
    )
    scored = score_planes(detector.ensemble, detector.calibration, planes)
    return [
        Judged(picture, plane, scored.plane_raws[:, i], detector.calibration.heat_of(scored.combined[i]) * plane.mask,
               _trivial(plane))
        for i, (picture, plane) in enumerate(pairs)
    ]  # fmt: skip


def _trivial(plane: Prepared) -> dict[str, float]:
    inside = plane.image[plane.mask] if plane.mask.any() else plane.image.ravel()
    rise = np.abs(np.diff(plane.image, axis=0))[plane.mask[1:]]
    return {
        "mean": float(inside.mean()),
        "standard deviation": float(inside.std()),
        "brightest 2 %": float(np.quantile(inside, 0.98)),
        "organ area": float(plane.mask.mean()),
        "gradient": float(rise.mean()) if rise.size else 0.0,
    }


def _picture_figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """AUROC of pictures, of the model and of the best trivial feature (either direction)."""
    by_patient = any(item.picture.patient_label is not None for item in judged)
    used = [
        item
        for item in judged
        if item.picture.label == 1
        or (item.picture.label is not None and (not by_patient or item.picture.patient_label == 0))
    ]
    labels = np.array([item.picture.label == 1 for item in used])
    patients = [item.picture.patient for item in used]
    placed = all(item.picture.position is not None for item in used)
    strata = deciles(np.array([item.picture.position for item in used])) if placed else np.zeros(len(used), dtype=int)
    scores = {"model": np.array([item.raw for item in used])}
    scores |= {name: np.array([item.trivial[name] for item in used]) for name in used[0].trivial}

    def figure(name: str) -> dict[str, float]:
        return with_interval(lambda i: stratified_auroc(labels[i], scores[name][i], strata[i]), patients, repeats=500)

    rivals = {name: figure(name) for name in scores if name != "model"}
    best = max(rivals, key=lambda name: abs(rivals[name]["value"] - 0.5))
    return {
        "auroc": figure("model") | {"abnormal": int(labels.sum()), "normal": int((~labels).sum())},
        "auroc_within": "deciles of position" if placed else "all pictures",
        "best_trivial_feature": {"name": best, **rivals[best]},
    }


def _patient_figures(detector: ResidualDetector, judged: Sequence[Judged]) -> dict[str, Any]:
    """AUROC of patients by their series score, and the shares at the threshold."""
    names = sorted({item.picture.patient for item in judged})
    labels, scores, raws = [], [], []
    for name in names:
        own = [item for item in judged if item.picture.patient == name]
        folds = np.array([item.raws for item in own]).T
        series = [detector.calibration.series_raw(fold) for fold in folds]
        scores.append(detector.calibration.series_score(series))
        raws.append(float(np.mean(series)))
        labels.append(own[0].picture.patient_label == 1)
    truth, raw = np.array(labels), np.array(raws)
    hit = np.array(scores) >= detector.calibration.threshold
    return {
        "patient_auroc": with_interval(lambda i: auroc(truth[i], raw[i]), names)
        | {"abnormal": int(truth.sum()), "normal": int((~truth).sum())},
        "patients_at_threshold": {
            "abnormal": f"{int(hit[truth].sum())} of {int(truth.sum())}",
            "normal": f"{int(hit[~truth].sum())} of {int((~truth).sum())}",
        },
    }


def _plane_rates(detector: ResidualDetector, judged: Sequence[Judged]) -> dict[str, float]:
    """Share of pictures whose own calibrated score reaches the threshold, by label."""
    hits: dict[str, list[bool]] = {}
    for item in judged:
        score = detector.calibration.plane_score_of([float(raw) for raw in item.raws])
        hits.setdefault(f"label {item.picture.label}", []).append(score >= 1.0 - detector.calibration.alpha)
    return {label: round(float(np.mean(found)), 3) for label, found in sorted(hits.items())}


def _pixel_figures(detector: ResidualDetector, judged: Sequence[Judged]) -> dict[str, Any]:
    """Pixel AP (normal slices included), Dice at the region threshold, and whether the first region hits."""
    values, truths, dice, hits = [], [], [], []
    for item in judged:
        plane = read_plane(item.picture, 1.0)
        truth = _truth(item.picture, plane.shape)
        heat = np.clip(paste(item.heat, item.plane.box, plane.shape), 0.0, 1.0)
        values.append(heat.ravel()[::_PIXELS_STEP])
        truths.append(truth.ravel()[::_PIXELS_STEP])
        if truth.any():
            found = heat >= detector.calibration.region_heat
            dice.append(2 * float((found & truth).sum()) / float(found.sum() + truth.sum()))
            rule = RegionRule(detector.calibration.region_heat, detector.min_pixels(item.plane))
            regions = plane_regions(0, plane, heat, rule)
            hits.append(bool(regions) and bool((regions[0].mask & truth).any()))
    return {
        "pixel_ap": round(average_precision(np.concatenate(truths), np.concatenate(values)), 3),
        "dice_at_region_threshold": round(float(np.mean(dice)), 3),
        "first_region_overlaps_mask": {"share": round(float(np.mean(hits)), 3), "slices": len(hits)},
    }


def _truth(picture: Picture, shape: tuple[int, int]) -> Mask:
    return read_mask(picture.mask_file) if picture.mask_file else np.zeros(shape, dtype=bool)
