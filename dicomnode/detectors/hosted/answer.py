"""From what a hosted model says to a DetectionResult: labels, thresholds, findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from dicomnode.config.hosted import Hosted, HostedLabel
from dicomnode.detectors.contract import (
    Array,
    Calibration,
    Concept,
    DetectionResult,
    Finding,
    LabelScore,
    Mask,
    Outcome,
    Plane,
    PlaneResult,
    Region,
    Volume,
)
from dicomnode.detectors.regions import MAX_FINDINGS, outline

_EVERY_NEIGHBOUR = np.ones((3, 3, 3))


@dataclass(frozen=True, slots=True)
class Told:
    """What a model says of one label over n planes.

    ``plane_scores``: shape (n,), 0..1. ``masks``: a bool map per plane where the label is, None: not there.
    ``heat``: a float32 map 0..1 per plane, None where the model gives none.
    """

    label: HostedLabel
    plane_scores: Sequence[float]
    masks: Sequence[Mask | None]
    heat: Sequence[Array | None]

    @property
    def score(self) -> float:
        return max(self.plane_scores)


@dataclass(frozen=True, slots=True)
class Scale:
    """What the scores are. ``unit``: text for reports; ``method``: why nobody here calibrated it."""

    unit: str
    method: str = "none by this node; the scale and the threshold are those of the model and of its configuration"


def threshold_of(label: HostedLabel, settings: Hosted) -> float:
    """The score from which ``label`` is present: its own, else that of the section."""
    return settings.threshold if label.threshold is None else label.threshold


def enough(label: HostedLabel, masks: Sequence[Mask | None], volume: Volume) -> bool:
    """Whether the masks of a label reach its ``min_mm3``; images without spacing are not measured and do."""
    if label.min_mm3 <= 0.0:
        return True
    size = 0.0
    for plane, mask in zip(volume.planes, masks, strict=True):
        if mask is not None:
            if plane.spacing is None or volume.slice_spacing is None:
                return True
            size += float(mask.sum()) * plane.spacing[0] * plane.spacing[1] * volume.slice_spacing
    return size >= label.min_mm3


def answer(
    name: str, settings: Hosted, volume: Volume, told: Sequence[Told], scale: Scale, facts: Mapping[str, str]
) -> DetectionResult:
    """The result: findings where a label reaches its threshold, their regions where the model tells a place.

    The score of the Series is that of the label that exceeds its threshold most, or comes nearest to it: score and
    threshold of the result belong together, and it is at or above the threshold exactly when a label is present.
    """
    labels = tuple(LabelScore(one.label.name, one.score, threshold_of(one.label, settings)) for one in told)
    leading = max(range(len(told)), key=lambda i: labels[i].score - labels[i].threshold)
    found = labels[leading].present
    present = [one for one, label in zip(told, labels, strict=True) if label.present]
    findings = [finding for one in present for finding in _findings(one, volume)]
    return DetectionResult(
        outcome=Outcome.FINDINGS if found else Outcome.NO_FINDINGS,
        score=labels[leading].score,
        raw_score=labels[leading].score,
        raw_unit=f"for {labels[leading].name}",
        calibration=Calibration(
            f"{scale.unit}, of the label {labels[leading].name}", scale.method, 0, labels[leading].threshold, 0.0
        ),
        planes=tuple(_plane_result(i, plane, told, leading) for i, plane in enumerate(volume.planes)),
        findings=tuple(
            replace(finding, tracking_id=f"{name}-{number}")
            for number, finding in enumerate(findings[:MAX_FINDINGS], start=1)
        ),
        parameters={**facts, **_left_out(findings)},
        notices=_notices(told),
        labels=labels,
    )


def _left_out(findings: Sequence[Finding]) -> dict[str, str]:
    more = len(findings) - MAX_FINDINGS
    return {"findings left out": f"{more} beyond the first {MAX_FINDINGS}"} if more > 0 else {}


def _notices(told: Sequence[Told]) -> tuple[str, ...]:
    if all(one.label.anatomy for one in told):
        return ("Outlines normal structures only; says nothing about disease",)
    return ()


def _plane_result(index: int, plane: Plane, told: Sequence[Told], leading: int) -> PlaneResult:
    heat = np.zeros(plane.shape, np.float32)
    for own in (one.heat[index] for one in told):
        if own is not None:
            heat = np.maximum(heat, own)
    return PlaneResult(float(told[leading].plane_scores[index]), np.clip(heat, 0.0, 1.0).astype(np.float32))


def _findings(told: Told, volume: Volume) -> list[Finding]:
    """One finding for the label, or one for each connected part of it; largest first."""
    whole = [_region(i, volume.planes[i], told, part) for i, mask in _given(told) for part in _parts(mask)]
    if not whole:
        return []
    if not told.label.separate or volume.slice_spacing is None:
        groups = [[region] for region in whole] if told.label.separate else [whole]
    else:
        groups = _connected(whole, told, volume)
    groups.sort(key=lambda group: -sum(int(region.mask.sum()) for region in group))
    return [_finding(told.label, group) for group in groups]


def _given(told: Told) -> list[tuple[int, Mask]]:
    return [(i, mask) for i, mask in enumerate(told.masks) if mask is not None and mask.any()]


def _parts(mask: Mask) -> list[Mask]:
    numbered, n = ndimage.label(mask, structure=np.ones((3, 3)))
    return [numbered == number for number in range(1, n + 1)]


def _connected(regions: Sequence[Region], told: Told, volume: Volume) -> list[list[Region]]:
    """The regions of a stack, grouped by the three-dimensional part that they belong to."""
    stack = np.stack(
        [
            np.zeros(plane.shape, bool) if mask is None else mask
            for plane, mask in zip(volume.planes, told.masks, strict=True)
        ]
    )
    numbered, _ = ndimage.label(stack, structure=_EVERY_NEIGHBOUR)
    groups: dict[int, list[Region]] = {}
    for region in regions:
        groups.setdefault(int(numbered[region.plane][region.mask][0]), []).append(region)
    return list(groups.values())


def _finding(label: HostedLabel, regions: Sequence[Region]) -> Finding:
    code = label.code
    return Finding(
        tracking_id="",
        regions=tuple(regions),
        score=max(region.score for region in regions),
        label=label.name,
        concept=Concept(code.value, code.scheme, code.meaning) if code else None,
        anatomy=label.anatomy,
        colour=_rgb(label.colour) if label.colour else None,
    )


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _region(index: int, plane: Plane, told: Told, part: Mask) -> Region:
    """A region with exactly the pixels of ``part``: holes in a segmentation mean something and stay."""
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    heat = told.heat[index]
    score = told.plane_scores[index] if heat is None else float(np.clip(heat[part].max(), 0.0, 1.0))
    area = None if plane.spacing is None else float(part.sum()) * plane.spacing[0] * plane.spacing[1]
    return Region(
        plane=index,
        mask=part,
        contour=outline(part),
        box=(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)),
        score=score,
        area_mm2=area,
    )


def from_label_values(values: Mapping[int, Mask], settings: Hosted, volume: Volume) -> list[Told]:
    """What a segmentation without probabilities says. ``values``: label index to mask, shape (n, rows, columns)."""
    told = []
    for label in settings.labels:
        mask = values.get(label.index)
        masks: list[Mask | None] = [None] * len(volume.planes)
        if mask is not None:
            masks = [own if own.any() else None for own in mask]
        if not enough(label, masks, volume):
            masks = [None] * len(volume.planes)
        scores = [0.0 if own is None else 1.0 for own in masks]
        heat = [None if own is None else own.astype(np.float32) for own in masks]
        told.append(Told(label, scores, masks, heat))
    return told
