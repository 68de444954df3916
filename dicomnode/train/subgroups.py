"""Figures of parts of a set: by sex, age band, view and site, and by class of label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dicomnode.train.datasets import Picture
from dicomnode.train.headline import Sample, counts, number, pair
from dicomnode.train.judging import Judged
from dicomnode.train.statistics import (
    Bools,
    Resampling,
    percentile_interval,
    stratified_auroc,
)

_BANDS = ((0, 18), (18, 40), (40, 60), (60, 80), (80, 200))


def age_band(text: str | None) -> str:
    """ "18-39" and so on; empty when the age is not a number."""
    try:
        age = float(text or "")
    except ValueError:
        return ""
    return next((f"{low}-{high - 1}" if high < 200 else f"{low}+" for low, high in _BANDS if low <= age < high), "")


_GROUPINGS: dict[str, Callable[[Picture], str]] = {
    "sex": lambda picture: picture.about.get("sex", ""),
    "age": lambda picture: age_band(picture.about.get("age")),
    "view": lambda picture: picture.about.get("view", ""),
    "site": lambda picture: picture.about.get("site", ""),
}


def subgroup_figures(sample: Sample, resampling: Resampling, threshold: float | None) -> dict[str, Any]:
    """By grouping and group: n, AUROC with interval, false positive rate and sensitivity at ``threshold``.

    A grouping that the data do not tell is None; unknown values of single pictures are the group "not known".
    """
    flagged = None if threshold is None else sample.scores >= threshold - 1e-9
    found: dict[str, Any] = {}
    for name, group_of in _GROUPINGS.items():
        groups = np.array([group_of(item.picture) or "not known" for item in sample.judged], dtype=str)
        known = sorted(set(groups.tolist()))
        if known in ([], ["not known"]):
            found[name] = None
            continue
        found[name] = {group: _group(sample, resampling, flagged, np.flatnonzero(groups == group)) for group in known}
    return found


def _group(sample: Sample, resampling: Resampling, flagged: Bools | None, own: Any) -> dict[str, Any]:
    labels, raws, strata = sample.labels[own], sample.raws[own], sample.strata[own]
    drawn = resampling.chosen(own).auroc(labels, raws, strata)
    return {
        "n": len(own),
        "patients": len({sample.patients[i] for i in own}),
        **counts(labels),
        "auroc": number(stratified_auroc(labels, raws, strata)),
        "auroc_ci": pair(percentile_interval(drawn)),
        "false_positive_rate": None if flagged is None else share(flagged[own][~labels]),
        "sensitivity": None if flagged is None else share(flagged[own][labels]),
    }


def share(flags: Bools) -> float | None:
    """The share that is True, None of nothing."""
    return round(float(flags.mean()), 4) if len(flags) else None


def class_figures(judged: Sequence[Judged], threshold: float | None) -> dict[str, Any]:
    """By label: n, patients, left out, median raw score, share at ``threshold``, AUROC of label 1 against it."""
    known = [item for item in judged if item.picture.label is not None]
    lowest = min((item.raw for item in known if not item.left_out), default=0.0) - 1.0
    raws = np.array([lowest if item.left_out else item.raw for item in known])
    labels = np.array([item.picture.label for item in known])
    patients = [item.picture.patient for item in known]
    found: dict[str, Any] = {}
    for label in sorted(set(labels.tolist())):
        own = labels == label
        scores = np.array([item.score for item in known])[own]
        found[str(label)] = {
            "n": int(own.sum()),
            "patients": len({patients[i] for i in np.flatnonzero(own)}),
            "left_out": sum(bool(known[i].left_out) for i in np.flatnonzero(own)),
            "median_raw": number(float(np.median(raws[own]))),
            "at_threshold": None if threshold is None else share(scores >= threshold - 1e-9),
            "auroc_of_label_1_against_it": _against(labels == 1, own, raws, patients) if label != 1 else None,
        }
    if len(found) > 2:
        found["auroc_of_label_1_against_all_others"] = _against(labels == 1, labels != 1, raws, patients)
    return found


def _against(ones: Bools, others: Bools, raws: Any, patients: Sequence[str]) -> dict[str, Any] | None:
    used = np.flatnonzero(ones | others)
    if not ones.any():
        return None
    flat = np.zeros(len(used), dtype=np.intp)
    resampling = Resampling.of([patients[int(i)] for i in used])
    drawn = resampling.auroc(ones[used], raws[used], flat)
    value = stratified_auroc(ones[used], raws[used], flat)
    return {"value": number(value), "ci": pair(percentile_interval(drawn))}
