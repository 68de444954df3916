"""Plots of an evaluation as PNG: ROC, precision and recall, reliability, scores by class."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dicomnode.train.evaluate import Evaluation
from dicomnode.train.statistics import roc_curve

Draw = Callable[[Any, Evaluation], None]
_INK, _RIVAL, _SECOND = "#1f4e79", "#888888", "#c0504d"


def plots_of(found: Evaluation) -> Mapping[str, bytes]:
    """Title to PNG; without both classes only the scores are drawn, and nothing without any picture."""
    if not len(found.sample.labels):
        return {}
    draws: dict[str, Draw] = {"Scores by class": _scores}
    if found.sample.both_classes:
        draws = {"ROC curve": _roc, "Precision and recall": _precision, "Reliability": _reliability, **draws}
    return {title: _png(title, draw, found) for title, draw in draws.items()}


def _png(title: str, draw: Draw, found: Evaluation) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes, found)
    axes.set_title(title, fontsize=10)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _roc(axes: Any, found: Evaluation) -> None:
    false, true, _ = roc_curve(found.sample.labels, found.sample.raws)
    figure = found.figures["auroc"]
    words = "all pictures in one curve" if figure is None else f"all pictures in one curve; headline AUROC {figure:.3f}"
    axes.plot(false, true, color=_INK, drawstyle="steps-post", label=words)
    axes.plot([0, 1], [0, 1], color=_RIVAL, linestyle="--", label="coin")
    axes.set(xlabel="false positive rate", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(fontsize=7, loc="lower right")


def _precision(axes: Any, found: Evaluation) -> None:
    labels = found.sample.labels
    order = np.argsort(-found.sample.raws, kind="stable")
    hits = np.cumsum(labels[order])
    recall, precision = hits / hits[-1], hits / np.arange(1, len(hits) + 1)
    axes.plot(recall, precision, color=_INK, drawstyle="steps-post", label=f"AUPRC {found.figures['auprc']:.3f}")
    share = float(labels.mean())
    axes.axhline(share, color=_RIVAL, linestyle="--", label=f"prevalence {share:.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(fontsize=7)


def _reliability(axes: Any, found: Evaluation) -> None:
    calibration = found.figures["calibration"]
    kinds = [("score as a chance", calibration, _INK)]
    if calibration["platt"] is not None:
        kinds.append(("Platt, other patients", calibration["platt"], _SECOND))
    for name, own, colour in kinds:
        rows = own["reliability"]
        stated, observed = [row["stated"] for row in rows], [row["observed"] for row in rows]
        axes.plot(stated, observed, color=colour, marker="o", label=f"{name}: ECE {own['ece']:.3f}")
    axes.plot([0, 1], [0, 1], color=_RIVAL, linestyle="--")
    axes.set(xlabel="stated", ylabel="observed share abnormal", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(fontsize=7)


def _scores(axes: Any, found: Evaluation) -> None:
    scores, labels = found.sample.scores, found.sample.labels
    edges = np.linspace(0, 1, 21)
    for name, own, colour in (("normal", ~labels, _INK), ("abnormal", labels, _SECOND)):
        if own.any():
            weights = np.full(int(own.sum()), 1 / own.sum())
            axes.hist(scores[own], edges, weights=weights, color=colour, alpha=0.55, label=f"{name} ({own.sum()})")
    threshold = found.figures["threshold"]["plane_score"]
    if threshold is not None:
        axes.axvline(threshold, color=_RIVAL, linestyle="--", label="threshold")
    axes.set(xlabel="calibrated plane score", ylabel="share of the class")
    axes.legend(fontsize=7)
