"""Many methods on one set, each fitted and measured alike: one table, with its rivals beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dicomnode.detectors.calibration import top_mean
from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.catalogue import build_method, catalogue, method_entry
from dicomnode.detectors.methods.contract import (
    Augmentation,
    Judgement,
    Material,
    Method,
    MethodEntry,
    Planes,
    Regime,
    Run,
)
from dicomnode.errors import ConfigError, place
from dicomnode.train.grid import Grid, load_grid
from dicomnode.train.headline import auroc_figures, number, sample_of
from dicomnode.train.judging import Judged
from dicomnode.train.mixed import Mixed
from dicomnode.train.pace import OutOfTime, fit_within, time_limit
from dicomnode.train.pixels import PixelTally, rank_steps
from dicomnode.train.recipes import Recipe
from dicomnode.train.small import small_settings, told_settings
from dicomnode.train.statistics import Resampling, average_precision, stratified_auroc

RESULTS_FILE = "results.json"
DONE, FAILED, NOT_APPLICABLE = "done", "failed", "not applicable"
TOP_SHARE = 0.02
_JUDGE_LIMIT = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared. ``methods``: names, or none for all; ``limit``: seconds for one fit; ``mixed``: split of
    unlabelled pictures; ``settings``: for every method, beside size and steps; ``small``: whether methods whose own
    settings are a recipe for a GPU get small ones; ``backbone``: name and file of frozen features."""

    recipe: Recipe
    data: Path
    out: Path
    methods: tuple[str, ...] = ()
    size: int = 64
    steps: int = 500
    seed: int = 0
    limit: float | None = None
    opt_in: bool = False
    accelerator: str = "cpu"
    train_split: str = "train_normal"
    split: str = "val"
    mixed: str = "mixed_unlabelled"
    commit: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    small: bool = True
    backbone: tuple[str, Path] | None = None


@dataclass(frozen=True, slots=True)
class _Sets:
    healthy: Grid
    mixed: Planes | None
    judged: Grid


Row = dict[str, Any]
Told = Callable[[Row], None]


def compare(plan: Plan, told: Told | None = None) -> list[Row]:
    """Fit and measure the methods; answers the rows, as ``out``/results.json keeps them after each method.

    Rows of an earlier run with the same plan are kept, failed ones tried again. A method that fails is a row with
    its reason. Raises ConfigError for unusable data, an unknown method, or results of another plan in ``out``.
    """
    entries = _entries(plan)
    rows = _earlier(plan)
    sets = _sets(plan)
    for entry in entries:
        known = next((row for row in rows if row["method"] == entry.name), None)
        if known is not None and known["status"] != FAILED:
            continue
        row = _row(plan, sets, entry)
        rows = [other for other in rows if other["method"] != entry.name] + [row]
        _keep(plan, rows)
        if told is not None:
            told(row)
    return rows


def _entries(plan: Plan) -> list[MethodEntry]:
    if plan.methods:
        return [method_entry(name) for name in plan.methods]
    return [entry for entry in catalogue().values() if plan.opt_in or not entry.opt_in]


def about_plan(plan: Plan) -> dict[str, Any]:
    """What decides the figures, as results.json and the table state it."""
    return {
        "detector": plan.recipe.detector,
        "data": plan.data.name,
        "train_split": plan.train_split,
        "split": plan.split,
        "size": plan.size,
        "steps": plan.steps,
        "seed": plan.seed,
        "limit_s": plan.limit,
        "settings": plan.settings,
        "small": plan.small,
        "backbone": plan.backbone[0] if plan.backbone else None,
        "accelerator": plan.accelerator,
    }


def _earlier(plan: Plan) -> list[Row]:
    path = plan.out / RESULTS_FILE
    if not path.is_file():
        return []
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        about, rows = kept["about"], kept["rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{RESULTS_FILE} in the output folder cannot be read; choose another folder") from error
    if about != json.loads(json.dumps(about_plan(plan))):
        raise ConfigError(f"{RESULTS_FILE} in the output folder is of another comparison; choose another folder")
    return list(rows)


def _keep(plan: Plan, rows: Sequence[Row]) -> None:
    plan.out.mkdir(parents=True, exist_ok=True)
    part = plan.out / f"{RESULTS_FILE}.part"
    part.write_text(json.dumps({"about": about_plan(plan), "rows": rows}, indent=1), encoding="utf-8")
    part.replace(plan.out / RESULTS_FILE)


def _sets(plan: Plan) -> _Sets:
    cache = plan.out / "planes"
    judged = load_grid(plan.recipe, plan.data, plan.split, plan.size, cache)
    healthy = load_grid(replace(plan.recipe, min_organ_share=0.0), plan.data, plan.train_split, plan.size, cache)
    try:
        mixed = load_grid(replace(plan.recipe, min_organ_share=0.0), plan.data, plan.mixed, plan.size, cache)
    except ConfigError:
        return _Sets(healthy, None, judged)
    return _Sets(healthy, pooled(healthy, mixed), judged)


def pooled(healthy: Grid, mixed: Grid) -> Planes:
    """The unlabelled set for methods that need one (``mixed.Mixed``)."""
    patients = [mixed.pictures[i].patient for i in mixed.kept]
    return Mixed(mixed.planes, patients, bool(healthy.patients & mixed.patients)).without(set(), healthy.planes)


def _row(plan: Plan, sets: _Sets, entry: MethodEntry) -> Row:
    row: Row = {
        "method": entry.name,
        "family": str(entry.family),
        "regime": str(entry.regime),
        "score": entry.score,
        "source": entry.source,
        "status": DONE,
        "reason": "",
        "commit": plan.commit,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "torch": str(torch.__version__),
    }
    why_not = _not_applicable(sets, entry)
    if why_not:
        return row | {"status": NOT_APPLICABLE, "reason": why_not}
    try:
        return row | _measured(plan, sets, entry)
    except ConfigError as error:
        return row | {"status": FAILED, "reason": str(error)}
    except OutOfTime:
        return row | {"status": FAILED, "reason": f"stopped: judging needs more than {_JUDGE_LIMIT:g} s"}
    except Exception as error:  # noqa: BLE001 - process edge: one method's failure must not end the table
        return row | {"status": FAILED, "reason": f"{type(error).__name__} at {place(error)}"}


def _not_applicable(sets: _Sets, entry: MethodEntry) -> str:
    if entry.stacked and all(len(stack) == 1 for stack in sets.healthy.planes.stacks):
        return "projections: the method needs neighbouring planes"
    if entry.regime is Regime.HEALTHY_AND_MIXED and sets.mixed is None:
        return "the data have no mixed set"
    return ""


def _measured(plan: Plan, sets: _Sets, entry: MethodEntry) -> Row:
    mixed = sets.mixed if entry.regime is Regime.HEALTHY_AND_MIXED else None
    own = small_settings(entry, plan.backbone) if plan.small else {}
    settings = {**own, **plan.settings, "size": plan.size, "steps": plan.steps}
    run = Run(
        seed=plan.seed,
        accelerator=plan.accelerator,
        augmentation=Augmentation(mirror=plan.recipe.mirror, rotate=plan.recipe.rotate),
    )
    began = time.perf_counter()
    method, steps = fit_within(
        lambda: build_method(entry.name, settings), Material(sets.healthy.planes, mixed), run, plan.steps, plan.limit
    )
    fitted = time.perf_counter()
    judged = _judged(method, sets.judged.planes, plan.accelerator, plan.limit)
    done = time.perf_counter()
    return {
        "steps": steps,
        "settings": told_settings(settings),
        "fit_s": round(fitted - began, 2),
        "ms_per_plane": round(1000 * (done - fitted) / len(sets.judged.planes), 3),
        **figures_of(sets.judged, judged),
    }


def _judged(method: Method, planes: Planes, accelerator: str, limit: float | None) -> Judgement:
    method.to(accelerator)
    with time_limit(None if limit is None else _JUDGE_LIMIT):
        return method.judge(planes)


def figures_of(grid: Grid, judged: Judgement) -> Row:
    """The figures of one method: by its own score, and by the mean of the greatest 2 % of its map (``top2``).

    Raises ConfigError when the answers are not finite.
    """
    if not (np.isfinite(judged.scores).all() and np.isfinite(judged.maps).all()):
        raise ConfigError("the method answers numbers that are not finite")
    masks = grid.planes.masks
    top = np.array([top_mean(own[mask], TOP_SHARE) for own, mask in zip(judged.maps, masks, strict=True)])
    sample = sample_of(_with_raws(grid, judged.scores))
    row: Row = {"n": len(sample.labels), "patients": len(set(sample.patients)), "protocol": sample.protocol}
    if sample.both_classes:
        figures = auroc_figures(sample, Resampling.of(sample.patients))
        row |= {key: figures[key] for key in ("auroc", "auroc_ci", "best_trivial", "difference_to_trivial")}
        row["auprc"] = number(average_precision(sample.labels, sample.raws))
        row["prevalence"] = number(float(sample.labels.mean()))
        of_top = sample_of(_with_raws(grid, top))
        row["auroc_top2"] = number(stratified_auroc(of_top.labels, of_top.raws, of_top.strata))
    return row | _pixel_figures(grid, judged.maps * masks)


def _with_raws(grid: Grid, raws: Array) -> list[Judged]:
    features = grid.feature_rows()
    place_of = {int(index): i for i, index in enumerate(grid.kept)}
    return [
        Judged(
            picture,
            float(raws[place_of[index]]) if index in place_of else float("-inf"),
            0.0,
            None,
            features[index],
            "" if index in place_of else "left out",
        )
        for index, picture in enumerate(grid.pictures)
    ]


def _pixel_figures(grid: Grid, maps: Array) -> Row:
    """Pixel AP, AUPRO and oracle Dice on the network grid, over the planes whose outline is known."""
    if not grid.truths[grid.known].any():
        return {"pixel_ap": None, "aupro": None, "dice_oracle": None}
    tally = PixelTally()
    for steps, truth in zip(rank_steps(maps[grid.known]), grid.truths[grid.known], strict=True):
        tally.add(steps, truth)
    figures = tally.figures()
    return {key: round(figures[key], 4) for key in ("pixel_ap", "aupro", "dice_oracle")}
