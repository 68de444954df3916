"""How much a model's score moves under changes that nobody sees: projected gradient descent (PGD) as an audit.

Madry et al., ICLR 2018, eq. 2 (L∞ ball, steps of the gradient's sign), through the model's own score: up for healthy
planes, down for abnormal ones. The reference is random noise of the same size, the worst of some draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.drawing import at_size
from dicomnode.detectors.methods.residual import top_mean
from dicomnode.detectors.methods.torch_method import TorchMethod
from dicomnode.detectors.residual import ResidualDetector
from dicomnode.train.headline import number
from dicomnode.train.judging import Watch
from dicomnode.train.probing import Probe, raw_scores
from dicomnode.train.statistics import Bools, stratified_auroc

EPSILONS = (0.001, 0.002, 0.005)
"""Largest change of a pixel, as a share of the grey range."""
STEPS, DRAWS = 10, 5
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Part:
    """One term of the model's score that has a gradient: ``weight`` times the statistic of the method ``kind``."""

    kind: str
    method: TorchMethod[Any]
    share: float | None
    weight: float

    def score(self, images: Tensor, masks: Tensor) -> Tensor:
        """The term for ``images``, shape (n, 1, size, size), differentiable; shape (n,)."""
        own, full = self.method.settings.size, images.shape[-1]
        inside = (at_size(masks, own) > 0.5).float()
        scores, maps = self.method.judge_batch(at_size(images, own), inside)
        if self.share is None:
            return self.weight * scores
        if own != full:
            maps = F.interpolate(maps, size=(full, full), mode="bilinear", align_corners=False)
        return self.weight * top_mean(maps, masks, self.share)


def attack_study(
    detector: ResidualDetector,
    probe: Probe,
    *,
    epsilons: Sequence[float] = EPSILONS,
    steps: int = STEPS,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """AUROC, score change and flipped decisions under PGD and under noise, as JSON values. Deterministic on the CPU.

    Changes lie in the grey range 0..1 of the network grid, so they hold after preparation, whatever the image's own
    resolution. Each ``epsilon`` starts from the worst of the one before.
    """
    parts, without = attackable(detector, probe)
    clean, called = raw_scores(detector, probe.planes)
    base = _Base(probe, clean, called)
    images, rows = probe.planes.images, []
    for index, epsilon in enumerate(sorted(epsilons)):
        row: dict[str, Any] = {"epsilon": epsilon, "noise": base.figures(*_noise(detector, base, epsilon))}
        row["pgd"] = None
        if parts:
            images = _attacked(parts, detector, base, images, epsilon, steps)
            row["pgd"] = base.figures(*raw_scores(detector, probe.with_images(images)))
        rows.append(row)
        if watch is not None:
            watch((index + 1) / len(epsilons))
    return {
        "steps": steps,
        "noise_draws": DRAWS,
        "planes": {"abnormal": int(probe.abnormal.sum()), "normal": int((~probe.abnormal).sum())},
        "attacked": sorted({part.kind for part in parts}),
        "not_attackable_by_gradients": without,
        "clean": {"auroc": base.auroc(clean), "score_sd_normal": number(base.spread)},
        "epsilons": rows,
    }


@dataclass(frozen=True, slots=True)
class _Base:
    """The clean answers that all others are compared with. ``spread``: of the clean scores of normal planes."""

    probe: Probe
    clean: Array
    called: Bools

    @property
    def spread(self) -> float:
        return float(self.clean[~self.probe.abnormal].std())

    @property
    def harmful(self) -> Array:
        """+1 for normal planes, -1 for abnormal ones: where a change of the score does harm."""
        return np.where(self.probe.abnormal, -1.0, 1.0).astype(np.float32)

    def auroc(self, scores: Array) -> float | None:
        return number(stratified_auroc(self.probe.abnormal, scores, self.probe.strata))

    def figures(self, scores: Array, called: Bools) -> dict[str, Any]:
        """What became of the scores, and of the decisions at 1 - alpha."""
        change = (scores - self.clean) / max(self.spread, 1e-9)
        normal = ~self.probe.abnormal
        return {
            "auroc": self.auroc(scores),
            "score_change_normal_sd": number(float(change[normal].mean())),
            "score_change_abnormal_sd": number(float(change[~normal].mean())),
            "flipped": number(float(np.mean(called != self.called))),
        }


def attackable(detector: ResidualDetector, probe: Probe) -> tuple[list[Part], dict[str, str]]:
    """The terms of the score that have a gradient, over all folds, and why the others have none, by kind."""
    parts: list[Part] = []
    without: dict[str, str] = {}
    images, masks = _tensors(detector, probe, probe.planes.images, slice(0, 2))
    for fold in detector.ensemble.folds:
        for term in detector.calibration.plane_score:
            method = fold[term.kind]
            if not isinstance(method, TorchMethod):
                without[term.kind] = "not a network"
            elif type(method).judge is not TorchMethod.judge:
                without[term.kind] = "judges planes together with their neighbours, or beside the network"
            else:
                part = Part(term.kind, method, term.share, term.weight / term.scale / len(detector.ensemble.folds))
                if _has_gradient(part, images, masks):
                    parts.append(part)
                else:
                    without[term.kind] = "as it is built its score gives no gradient with respect to the image"
    return parts, without


def _has_gradient(part: Part, images: Tensor, masks: Tensor) -> bool:
    try:
        slope = _slope([part], images, masks, torch.ones(len(images), device=images.device))[1]
    except RuntimeError:
        return False
    return bool(torch.isfinite(slope).all()) and bool(slope.abs().max() > 0)


def _slope(parts: Sequence[Part], images: Tensor, masks: Tensor, harmful: Tensor) -> tuple[Tensor, Tensor]:
    """How harmful the score is, shape (n,), and its gradient."""
    with torch.enable_grad():
        inputs = images.detach().clone().requires_grad_()
        scores = torch.stack([part.score(inputs, masks) for part in parts]).sum(dim=0) * harmful
        (slope,) = torch.autograd.grad(scores.sum(), inputs)
    return scores.detach(), slope


def pgd(
    parts: Sequence[Part], clean: Tensor, start: Tensor, masks: Tensor, harmful: Tensor, epsilon: float, steps: int
) -> Tensor:
    """The most harmful images met within ``epsilon`` of ``clean``, shape (n, 1, size, size), ``start`` among them.

    Steps of 2.5 ε / steps, as Madry et al. take them. ``harmful``: shape (n,), +1 raises the score, -1 lowers it.
    """
    low, high = (clean - epsilon).clamp(min=0.0), (clean + epsilon).clamp(max=1.0)
    here, best = start, start
    greatest, slope = _slope(parts, start, masks, harmful)
    for _ in range(steps):
        here = torch.minimum(torch.maximum(here + 2.5 * epsilon / steps * slope.sign(), low), high)
        harm, slope = _slope(parts, here, masks, harmful)
        better = harm > greatest
        best = torch.where(better[:, None, None, None], here, best)
        greatest = torch.where(better, harm, greatest)
    return best


def _attacked(
    parts: Sequence[Part], detector: ResidualDetector, base: _Base, start: Array, epsilon: float, steps: int
) -> Array:
    found, probe = np.empty_like(start), base.probe
    for first in range(0, len(start), _BATCH):
        rows = slice(first, first + _BATCH)
        clean, masks = _tensors(detector, probe, probe.planes.images, rows)
        begin, _ = _tensors(detector, probe, start, rows)
        side = torch.from_numpy(base.harmful[rows]).to(clean.device)
        found[rows] = pgd(parts, clean, begin, masks, side, epsilon, steps)[:, 0].cpu().numpy()
    return found


def _tensors(detector: ResidualDetector, probe: Probe, images: Array, rows: slice) -> tuple[Tensor, Tensor]:
    values = torch.from_numpy(np.ascontiguousarray(images[rows]))[:, None]
    masks = torch.from_numpy(np.ascontiguousarray(probe.planes.masks[rows]))[:, None].float()
    return values.to(detector.accelerator), masks.to(detector.accelerator)


def _noise(detector: ResidualDetector, base: _Base, epsilon: float) -> tuple[Array, Bools]:
    """The most harmful of some draws of ± ``epsilon`` per pixel: scores and decisions."""
    draw = np.random.default_rng(0)
    clean, harmful = base.probe.planes.images, base.harmful
    worst, decided = base.clean, base.called
    for _ in range(DRAWS):
        signs = draw.integers(0, 2, clean.shape, dtype=np.int8).astype(np.float32) * 2 - 1
        noisy = np.clip(clean + np.float32(epsilon) * signs, 0.0, 1.0)
        scores, called = raw_scores(detector, base.probe.with_images(noisy))
        harms = scores * harmful > worst * harmful
        worst, decided = np.where(harms, scores, worst), np.where(harms, called, decided)
    return worst, decided


def attack_text(study: Mapping[str, Any]) -> str:
    """The study as one paragraph for a report."""
    counts, clean = study["planes"], study["clean"]
    head = (
        f"On {counts['abnormal']} abnormal and {counts['normal']} normal planes the AUROC is {_said(clean['auroc'])}."
    )
    lines = []
    for row in study["epsilons"]:
        noise = f"{_said(row['noise']['auroc'])} under noise of that size"
        if row["pgd"] is None:
            lines.append(f"ε = {row['epsilon']:g}: {noise}")
        else:
            flipped = f"{row['pgd']['flipped']:.0%} of the decisions flipped"
            lines.append(f"ε = {row['epsilon']:g}: {_said(row['pgd']['auroc'])} ({flipped}), {noise}")
    what = (
        f"PGD of {study['steps']} steps through the score of {' and '.join(study['attacked'])}"
        if study["attacked"]
        else "No method of this model can be attacked by gradients; noise is a lower bound of what an attack can do"
    )
    left = "; ".join(f"{kind}: {why}" for kind, why in study["not_attackable_by_gradients"].items())
    tail = f" Not attacked: {left}." if left and study["attacked"] else ""
    return f"{head} {what}. AUROC at {'; '.join(lines)}.{tail}"


def _said(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
