"""Does a map explain its model? Three checks that a map must pass before anybody reads it.

Randomised weights (Adebayo et al., NeurIPS 2018): with the learned arrays shuffled the map must become another one;
an edge detector fails. Deletion (Petsiuk et al., BMVC 2018): covering the hottest part must lower the score more than
covering other parts of the same size. Pointing game (Zhang et al., IJCV 2018): the hottest place lies in the outline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import ndimage
from scipy.stats import binom, spearmanr

from dicomnode.detectors.calibration import ResidualCalibration
from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.ensemble import FoldEnsemble, kind_of, method_of
from dicomnode.detectors.methods.contract import Judgement, Method, Planes, Tensors
from dicomnode.detectors.residual import ResidualDetector, score_planes
from dicomnode.errors import ConfigError
from dicomnode.train.headline import number
from dicomnode.train.probing import Probe

ALIKE = 0.6
"""Rank correlation and structural similarity from which two maps count as the same."""
SHARES = (0.02, 0.05, 0.1, 0.2)
"""Shares of the organ that are covered, one after another."""
DRAWS = 3
LEAST_WINS = 0.6
"""Share of planes on which covering the hottest part must win."""
_RANDOM_PLANES = 24
FINGERPRINT = "fingerprint"
"""The array by which a file says which frozen backbone it belongs to: nothing learned, not to be shuffled."""


class Explained(Protocol):
    """What gives scores and maps, and can do so with shuffled weights."""

    def judge(self, planes: Planes) -> Judgement: ...

    def randomised(self, seed: int) -> Explained | None:
        """The same with its learned arrays shuffled; None when no array could be."""
        ...


@dataclass(frozen=True, slots=True)
class OfMethod:
    """One fitted method. ``build``: makes an unfitted one of the same settings."""

    method: Method
    build: Callable[[], Method]

    def judge(self, planes: Planes) -> Judgement:
        return self.method.judge(planes)

    def randomised(self, seed: int) -> Explained | None:
        other = shuffled_method(self.method, self.build, seed)
        return None if other is None else OfMethod(other, self.build)


@dataclass(frozen=True, slots=True)
class OfModel:
    """A whole model: mean of the raw plane scores and of the combined maps over its folds.

    ``architecture``: the card's entry, from which methods are made anew.
    """

    ensemble: FoldEnsemble
    calibration: ResidualCalibration
    architecture: Mapping[str, Any]

    @classmethod
    def of(cls, detector: ResidualDetector, architecture: Mapping[str, Any]) -> OfModel:
        return cls(detector.ensemble, detector.calibration, architecture)

    def judge(self, planes: Planes) -> Judgement:
        scored = score_planes(self.ensemble, self.calibration, planes)
        return Judgement(scored.plane_raws.mean(axis=0), scored.combined)

    def randomised(self, seed: int) -> Explained | None:
        entries = {kind_of(entry): entry for entry in self.architecture["networks"]}
        shown = {term.kind for term in self.calibration.map}
        folds = []
        for index, fold in enumerate(self.ensemble.folds):
            made = {
                kind: shuffled_method(method, lambda kind=kind: method_of(entries[kind]), seed + index)  # type: ignore[misc]
                for kind, method in fold.items()
            }
            if any(made[kind] is None for kind in shown):
                return None
            folds.append({kind: made[kind] or method for kind, method in fold.items()})
        return OfModel(FoldEnsemble(folds, self.ensemble.accelerator), self.calibration, self.architecture)


def shuffled_method(method: Method, build: Callable[[], Method], seed: int) -> Method | None:
    """A method of the same settings whose learned numbers are the same, array by array, in another order.

    None where nothing is learned as numbers, or where the method refuses such arrays.
    """
    tensors = method.tensors()
    arrays = shuffled(tensors, seed)
    if arrays is None:
        return None
    other = build()
    try:
        other.restore(arrays)
    except (ConfigError, ValueError, ArithmeticError):
        return None
    return other


def shuffled(tensors: Tensors, seed: int) -> Tensors | None:
    """Every array of decimals in a random order; None when there is none of more than one number."""
    draw = np.random.default_rng(seed)
    decimals = (name for name, own in tensors.items() if own.size > 1 and np.issubdtype(own.dtype, np.floating))
    names = [name for name in decimals if name != FINGERPRINT]
    if not names:
        return None
    return dict(tensors) | {
        name: draw.permutation(tensors[name].ravel()).reshape(tensors[name].shape) for name in names
    }


def saliency_study(explained: Explained, probe: Probe, *, seed: int = 0) -> dict[str, Any]:
    """The three checks as JSON values; each with ``passed``, None where it could not be made."""
    judged = explained.judge(probe.planes)
    checks = {
        "randomised_weights": _randomised(explained, probe, seed),
        "deletion": _deletion(explained, probe, judged, seed),
        "pointing_game": _pointing(probe, judged),
    }
    made = [check["passed"] for check in checks.values() if check["passed"] is not None]
    return {**checks, "passed": bool(made) and all(made)}


def _randomised(explained: Explained, probe: Probe, seed: int) -> dict[str, Any]:
    other = explained.randomised(seed)
    if other is None:
        return {"passed": None, "reason": "the method has no learned numbers that can be shuffled"}
    rows = list(range(min(len(probe.planes), _RANDOM_PLANES)))
    planes = probe.part(rows)
    pairs = list(zip(explained.judge(planes).maps, np.nan_to_num(other.judge(planes).maps), planes.masks, strict=True))
    correlation = float(np.mean([rank_correlation(first, second, mask) for first, second, mask in pairs]))
    similarity = float(np.mean([structural_similarity(first, second, mask) for first, second, mask in pairs]))
    return {
        "planes": len(pairs),
        "rank_correlation": number(correlation),
        "structural_similarity": number(similarity),
        "bound": ALIKE,
        "passed": correlation < ALIKE and similarity < ALIKE,
    }


def rank_correlation(first: Array, second: Array, mask: Mask) -> float:
    """|Spearman's rho| of two maps inside the organ; 0 where one of them is flat."""
    inside = first[mask], second[mask]
    if any(len(own) < 2 or float(np.ptp(own)) <= 0.0 for own in inside):
        return 0.0
    return abs(float(spearmanr(*inside).statistic))


def structural_similarity(first: Array, second: Array, mask: Mask) -> float:
    """SSIM (Wang et al. 2004) of two maps inside the organ, each scaled to 0..1 by its 99th percentile there."""
    from skimage.metrics import structural_similarity as ssim

    if not mask.any():
        return 0.0
    scaled = [
        np.clip(own * mask / max(float(np.percentile(own[mask], 99)), 1e-12), 0.0, 1.0) for own in (first, second)
    ]
    _, local = ssim(*scaled, data_range=1.0, full=True)  # type: ignore[no-untyped-call]
    return float(local[mask].mean())


def _deletion(explained: Explained, probe: Probe, judged: Judgement, seed: int) -> dict[str, Any]:
    """Mean lead of covering the hottest part over covering other parts, over ``SHARES``, on abnormal planes."""
    rows = [int(i) for i in np.flatnonzero(probe.abnormal)]
    if not rows:
        return {"passed": None, "reason": "no abnormal plane"}
    planes, maps = probe.part(rows), judged.maps[rows]
    clean = explained.judge(planes).scores
    draw = np.random.default_rng(seed)
    hottest, others = [], []
    for share in SHARES:
        hottest.append(clean - _covered_scores(explained, planes, maps, share))
        fields = [ndimage.gaussian_filter(draw.random(maps.shape), (0, *(planes.size / 32,) * 2)) for _ in range(DRAWS)]
        others.append(clean - np.mean([_covered_scores(explained, planes, own, share) for own in fields], axis=0))
    lead = np.mean(np.array(hottest) - np.array(others), axis=0)
    spread = max(float(judged.scores.std()), 1e-12)
    return {
        "planes": len(rows),
        "shares": list(SHARES),
        "drop_hottest_sd": [number(float(own.mean()) / spread) for own in hottest],
        "drop_others_sd": [number(float(own.mean()) / spread) for own in others],
        "planes_won": number(float((lead > 0).mean())),
        "passed": bool(lead.mean() > 0 and (lead > 0).mean() >= LEAST_WINS),
    }


def _covered_scores(explained: Explained, planes: Planes, order: Array, share: float) -> Array:
    """The scores with the greatest ``share`` of ``order`` inside each organ filled from its surroundings."""
    images = np.stack(
        [
            filled(image, top_part(values, mask, share))
            for image, values, mask in zip(planes.images, order, planes.masks, strict=True)
        ]
    )
    return explained.judge(Planes(images, planes.masks, planes.stacks, planes.labels, shares=planes.shares)).scores


def top_part(values: Array, mask: Mask, share: float) -> Mask:
    """The greatest ``share`` of ``values`` inside ``mask``; of equals, the first."""
    inside = np.flatnonzero(mask)
    count = min(len(inside), max(1, round(share * len(inside))))
    chosen = inside[np.argsort(-values.ravel()[inside], kind="stable")[:count]]
    part = np.zeros(mask.size, dtype=bool)
    part[chosen] = len(inside) > 0
    return part.reshape(mask.shape)


def filled(image: Array, hole: Mask) -> Array:
    """``image`` with ``hole`` filled by what surrounds it (normalised convolution): no edge that was not there."""
    keep = (~hole).astype(np.float32)
    sigma = image.shape[0] / 16
    weight = ndimage.gaussian_filter(keep, sigma)
    around = ndimage.gaussian_filter(image * keep, sigma) / np.maximum(weight, 1e-6)
    return np.where(hole, around, image).astype(np.float32)


def _pointing(probe: Probe, judged: Judgement) -> dict[str, Any]:
    """How often the hottest pixel lies in the outline, or beside it (size / 32), and how often chance does."""
    known = [int(i) for i in np.flatnonzero(probe.truths.any(axis=(1, 2)) & probe.planes.masks.any(axis=(1, 2)))]
    if not known:
        return {"passed": None, "reason": "no outline or box"}
    margin = max(1, probe.planes.size // 32)
    hits, chances = [], []
    for i in known:
        near = ndimage.binary_dilation(probe.truths[i], iterations=margin)
        mask = probe.planes.masks[i]
        hits.append(bool(near.flat[int(np.argmax(np.where(mask, judged.maps[i], -1.0)))]))
        chances.append(float(near[mask].mean()))
    chance = float(np.mean(chances))
    p_value = float(binom.sf(sum(hits) - 1, len(hits), chance))
    return {
        "planes": len(known),
        "hits": number(float(np.mean(hits))),
        "chance": number(chance),
        "p_value": number(p_value),
        "passed": p_value < 0.05,
    }
