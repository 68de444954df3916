"""What a model is worth on labelled pictures that it was not trained on, with intervals and trivial rivals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dicomnode.detectors.contract import LoadedDetector, Mask
from dicomnode.detectors.discovery import discover
from dicomnode.detectors.regions import RegionRule, plane_regions
from dicomnode.detectors.residual import ResidualDetector, load_residual_detector
from dicomnode.errors import ConfigError
from dicomnode.models.card import NOTICE, read_card, write_card
from dicomnode.models.registry import Model, open_model
from dicomnode.train.datasets import Picture, read_pictures, read_plane, truth_of, unit_of
from dicomnode.train.headline import Sample, auroc_figures, counts, number, pair, sample_of
from dicomnode.train.judging import Judged, JudgedSeries, Watch, judge_series
from dicomnode.train.pixels import PixelTally, heat_steps, localisation
from dicomnode.train.probability import calibration_figures, realised_rates
from dicomnode.train.statistics import (
    Resampling,
    auroc,
    average_precision,
    percentile_interval,
    roc_curve,
    sensitivity_at,
)
from dicomnode.train.subgroups import class_figures, share, subgroup_figures

HOSTED_HEAT = 0.5
"""Heat from which a pixel counts as marked, for detectors that state no threshold of their own."""
_ONE_CLASS = "the split has pictures of one class only"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``figures``: the whole answer, plain values only. ``sample``: the pictures of the headline, for plots."""

    figures: dict[str, Any]
    sample: Sample


@dataclass(frozen=True, slots=True)
class _Thresholds:
    """``plane``: plane score from which a picture is flagged; ``heat``: from which a pixel is marked."""

    plane: float | None
    heat: float


def load_model(model: Model, accelerator: str) -> LoadedDetector:
    """The model with its own detector. Raises ConfigError when no detector can load it."""
    detector = discover().detectors.get(model.card.detector)
    if detector is None:
        return load_residual_detector(model.card.detector, model.folder, accelerator)
    return detector.load(model.folder, accelerator)


def evaluate_folder(
    folder: Path, data: Path, split: str = "val", *, accelerator: str = "cpu", watch: Watch | None = None
) -> Evaluation:
    """Evaluate the model in ``folder`` on the labelled pictures of ``split`` in ``data``.

    Raises ConfigError for an unusable model or data folder, or a split without labels.
    """
    model = open_model(folder)
    pictures = [picture for picture in read_pictures(data, {split}) if picture.label is not None]
    if not pictures:
        raise ConfigError(f"the split {split} has no labelled picture")
    detector = load_model(model, accelerator)
    unit = unit_of(model.card.preprocessing, model.card.detector)
    return evaluate_detector(detector, pictures, unit, split=split, watch=watch)


def evaluate_detector(
    detector: LoadedDetector, pictures: Sequence[Picture], unit: float, *, split: str, watch: Watch | None = None
) -> Evaluation:
    """The figures of labelled ``pictures``. Raises ConfigError for a picture that cannot be read."""
    tally, overlaps, series = PixelTally(), [], []
    thresholds = _thresholds(detector)
    unknown = 0
    for judged in judge_series(detector, pictures, unit, watch):
        if thresholds.plane is None:
            thresholds = replace(thresholds, plane=judged.threshold)
        for item in judged.pictures:
            truth = _truth(item)
            if truth is None:
                unknown += item.picture.label == 1
                continue
            heat = np.zeros(truth.shape, np.float32) if item.heat is None else item.heat
            tally.add(heat_steps(heat), truth)
            if truth.any():
                overlaps.append(_first_region_hits(item, truth, thresholds.heat))
        series.append(replace(judged, pictures=tuple(replace(item, heat=None) for item in judged.pictures)))
    judged_all = [item for one in series for item in one.pictures]
    sample = sample_of(judged_all)
    figures = _empty() | _picture_figures(sample, thresholds) | _patient_figures(series)
    figures |= _left_out(judged_all, sample)
    figures["classes"] = class_figures(judged_all, thresholds.plane)
    figures |= _pixel_figures(tally, overlaps, thresholds.heat, unknown, pictures)
    figures["model"] = {
        "name": detector.model.name,
        "version": detector.model.version,
        "sha256": detector.model.sha256,
    }
    figures |= {"split": split, "protocol": sample.protocol, "notice": NOTICE}
    return Evaluation(_with_reasons(figures, sample, tally), sample)


def _empty() -> dict[str, Any]:
    keys = (
        *("auroc", "auroc_ci", "auroc_delong_ci", "auprc", "auprc_ci", "prevalence", "pixel_ap", "dice"),
        *("dice_oracle", "aupro", "sensitivity_at_90_specificity", "sensitivity_at_95_specificity"),
        *("fpr_at_95_sensitivity", "best_trivial", "difference_to_trivial", "trivial", "calibration", "subgroups"),
        *("patient_auroc", "patient_auroc_ci", "localisation"),
    )
    return dict.fromkeys(keys)


def _thresholds(detector: LoadedDetector) -> _Thresholds:
    if isinstance(detector, ResidualDetector):
        return _Thresholds(1.0 - detector.calibration.alpha, detector.calibration.region_heat)
    return _Thresholds(None, HOSTED_HEAT)


def _truth(item: Judged) -> Mask | None:
    if item.picture.label not in (0, 1):
        return None
    if item.heat is not None:
        return truth_of(item.picture, item.heat.shape)
    return truth_of(item.picture, read_plane(item.picture, 1.0).shape)


def _first_region_hits(item: Judged, truth: Mask, heat: float) -> bool:
    if item.heat is None:
        return False
    regions = plane_regions(0, read_plane(item.picture, 1.0), item.heat, RegionRule(heat, item.smallest))
    return bool(regions) and bool((regions[0].mask & truth).any())


def _picture_figures(sample: Sample, thresholds: _Thresholds) -> dict[str, Any]:
    figures: dict[str, Any] = {"n": len(sample.labels), "n_patients": len(set(sample.patients))}
    if not len(sample.labels):
        return figures | {"n_abnormal": 0, "n_normal": 0}
    numbers = counts(sample.labels)
    figures |= {"n_abnormal": numbers["abnormal"], "n_normal": numbers["normal"]}
    figures["prevalence"] = number(float(sample.labels.mean()))
    conformal = {
        "normal_pictures": realised_rates(sample.scores[~sample.labels]),
        "abnormal_pictures_reached": realised_rates(sample.scores[sample.labels]),
    }
    figures["calibration"] = {"brier": None, "ece": None, "reliability": [], "conformal": conformal}
    figures["threshold"] = {
        "plane_score": thresholds.plane,
        "false_positive_rate": _at(sample, thresholds, label=False),
        "sensitivity": _at(sample, thresholds, label=True),
    }
    if not sample.both_classes:
        return figures
    resampling = Resampling.of(sample.patients)
    figures |= auroc_figures(sample, resampling)
    figures["auprc"] = number(average_precision(sample.labels, sample.raws))
    figures["auprc_ci"] = pair(percentile_interval(resampling.average_precision(sample.labels, sample.raws)))
    figures["sensitivity_at_90_specificity"] = number(sensitivity_at(sample.labels, sample.raws, 0.90))
    figures["sensitivity_at_95_specificity"] = number(sensitivity_at(sample.labels, sample.raws, 0.95))
    false, true, _ = roc_curve(sample.labels, sample.raws)
    figures["fpr_at_95_sensitivity"] = number(float(false[true >= 0.95].min()))
    figures["calibration"] |= calibration_figures(sample.labels, sample.scores, sample.patients)
    figures["subgroups"] = subgroup_figures(sample, resampling, thresholds.plane)
    return figures


def _at(sample: Sample, thresholds: _Thresholds, *, label: bool) -> float | None:
    if thresholds.plane is None:
        return None
    return share(sample.scores[sample.labels == label] >= thresholds.plane - 1e-9)


def _left_out(judged: Sequence[Judged], sample: Sample) -> dict[str, Any]:
    unseen = [item for item in sample.judged if item.left_out]
    return {
        "left_out": len(unseen),
        "left_out_abnormal": sum(item.picture.label == 1 for item in unseen),
        "left_out_reasons": dict(Counter(item.left_out for item in judged if item.left_out).most_common()),
        "pictures": len(judged),
    }


def _patient_figures(series: Sequence[JudgedSeries]) -> dict[str, Any]:
    """AUROC of patients by the greatest raw score of their series; abnormal: patient label 1, else any label 1.

    A patient with a picture that is neither (label 2) and none of label 1 counts for neither side.
    """
    by_patient: dict[str, list[JudgedSeries]] = {}
    for one in series:
        by_patient.setdefault(one.patient, []).append(one)
    truths = {name: _patient_truth([item for one in own for item in one.pictures]) for name, own in by_patient.items()}
    names = [name for name, truth in truths.items() if truth is not None]
    labels = np.array([bool(truths[name]) for name in names], dtype=bool)
    raws = np.array([max(one.raw for one in by_patient[name]) for name in names])
    known = raws[np.isfinite(raws)]
    raws = np.where(np.isfinite(raws), raws, (float(known.min()) if known.size else 0.0) - 1.0)
    scores = np.array([max(one.score for one in by_patient[name]) for name in names])
    flags = np.array([any(_found(one) for one in by_patient[name]) for name in names], dtype=bool)
    numbers = counts(labels)
    figures: dict[str, Any] = {
        "patients": {
            **numbers,
            "abnormal_with_findings": int(flags[labels].sum()),
            "normal_with_findings": int(flags[~labels].sum()),
            "normal_realised": realised_rates(scores[~labels]),
        }
    }
    if numbers["abnormal"] and numbers["normal"]:
        drawn = Resampling.of(names).auroc(labels, raws, np.zeros(len(names), dtype=np.intp))
        figures["patient_auroc"] = number(auroc(labels, raws))
        figures["patient_auroc_ci"] = pair(percentile_interval(drawn))
    return figures


def _found(series: JudgedSeries) -> bool:
    return series.threshold is not None and series.score >= series.threshold


def _patient_truth(pictures: Sequence[Judged]) -> bool | None:
    given = [item.picture.patient_label for item in pictures if item.picture.patient_label is not None]
    if given:
        return any(label == 1 for label in given)
    labels = {item.picture.label for item in pictures}
    if 1 in labels:
        return True
    return False if labels == {0} else None


def _pixel_figures(
    tally: PixelTally, overlaps: Sequence[bool], heat: float, unknown: int, pictures: Sequence[Picture]
) -> dict[str, Any]:
    if not tally.planes:
        return {}
    own = localisation(tally, heat)
    masks = any(picture.mask_file for picture in pictures)
    return {
        "pixel_ap": own["pixel_ap"],
        "aupro": own["aupro"],
        "dice": own["dice_mean"],
        "dice_oracle": own["dice_oracle"],
        "localisation": {
            "truth": "outlines" if masks else "boxes (coarser than the abnormality)",
            "planes_with_outline": tally.planes,
            "abnormal_planes_without_outline": unknown,
            "regions": tally.regions,
            "dice": "mean over abnormal pictures at heat_threshold, which was fixed before",
            "heat_threshold": heat,
            "dice_overall": own["dice_overall"],
            "dice_oracle": "ORACLE: best of 200 thresholds by these very outlines, an upper bound, not a result",
            "dice_oracle_threshold": own["dice_oracle_threshold"],
            "dice_oracle_overall": own["dice_oracle_overall"],
            "aupro": "regions reached, integrated over the pixel false positive rate to 0.3",
            "first_region_overlaps": {"share": round(float(np.mean(overlaps)), 4), "pictures": len(overlaps)},
        },
    }


def _with_reasons(figures: dict[str, Any], sample: Sample, tally: PixelTally) -> dict[str, Any]:
    """``reasons``: why a figure is null."""
    reasons = {}
    if figures["auroc"] is None:
        reasons["auroc"] = (
            "no pair of both classes within one decile of position" if sample.both_classes else _ONE_CLASS
        )
    if figures["patient_auroc"] is None:
        reasons["patient_auroc"] = "all patients of the split are of one class"
    if not tally.planes:
        reasons["pixel_ap"] = "no abnormal picture of the split has an outline or a box"
    return figures | {"reasons": reasons}


def card_figures(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures of one split as a model card keeps them."""
    kept: dict[str, Any] = {
        "pictures": figures["pictures"],
        "left_out": figures["left_out"],
        "left_out_abnormal": figures["left_out_abnormal"],
        "patients": figures["n_patients"],
        "protocol": figures["protocol"],
    }
    if figures["auroc_ci"] is not None:
        numbers = {"abnormal": figures["n_abnormal"], "normal": figures["n_normal"]}
        kept["auroc"] = _between(figures["auroc"], figures["auroc_ci"]) | numbers
    if figures["difference_to_trivial"] is not None:
        best, difference = figures["best_trivial"], figures["difference_to_trivial"]
        kept["best_trivial_feature"] = {"name": best["name"], **_between(best["auroc"], best["ci"])}
        kept["difference_to_trivial"] = _between(difference["value"], difference["ci"])
    for key in ("auprc", "prevalence", "sensitivity_at_90_specificity", "pixel_ap", "dice", "dice_oracle", "aupro"):
        if figures[key] is not None:
            kept[key] = figures[key]
    if figures["patient_auroc_ci"] is not None:
        kept["patient_auroc"] = _between(figures["patient_auroc"], figures["patient_auroc_ci"])
        kept["patients_at_threshold"] = {
            kind: f"{figures['patients'][f'{kind}_with_findings']} of {figures['patients'][kind]}"
            for kind in ("abnormal", "normal")
        }
    if figures["localisation"] is not None:
        kept["first_region_overlaps_mask"] = figures["localisation"]["first_region_overlaps"]
    return kept


def _between(value: float, interval: Sequence[float]) -> dict[str, float]:
    return {"value": round(value, 3), "low": round(interval[0], 3), "high": round(interval[1], 3)}


def record_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Put figures per split into the card of a model folder, beside those of other splits."""
    card = read_card(folder)
    write_card(folder, card.model_copy(update={"metrics": {**card.metrics, **metrics}}))
