"""A stress test of one model: gradient attacks, sanity of its maps, simulated scanners (``dicomnode stress``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dicomnode.detectors.ensemble import kind_of
from dicomnode.detectors.methods.catalogue import method_entry
from dicomnode.detectors.residual import ResidualDetector
from dicomnode.errors import ConfigError
from dicomnode.models.card import NOTICE
from dicomnode.models.registry import Model, open_model
from dicomnode.train.attack_study import attack_study, attack_text
from dicomnode.train.datasets import Picture, read_pictures, stacks_of, unit_of
from dicomnode.train.evaluate import load_model
from dicomnode.train.probing import probe_of
from dicomnode.train.recipes import RECIPES
from dicomnode.train.saliency import OfModel, saliency_study
from dicomnode.train.shift_study import shift_study

LIMIT = 32
"""Planes that are probed; the shifts take about as many planes in whole series."""
Show = Callable[[str, float], None]
"""Told the step and its share done."""


def stress_model(
    folder: Path,
    data: Path,
    *,
    split: str = "val",
    limit: int = LIMIT,
    accelerator: str = "cpu",
    show: Show | None = None,
) -> dict[str, Any]:
    """All studies of the model in ``folder`` on labelled pictures of ``split``, as JSON values without patient data.

    Raises ConfigError for a model without residual maps, unusable data, or a split without pictures of both labels.
    """
    told = show or _silent
    model = open_model(folder)
    detector = load_model(model, accelerator)
    if not isinstance(detector, ResidualDetector):
        raise ConfigError(
            f"model {model.name} has no maps of its own: dicomnode stress needs a model of dicomnode train"
        )
    unit = unit_of(model.card.preprocessing, model.card.detector)
    pictures = read_pictures(data, {split})
    probe = probe_of(detector, pictures, unit, limit, stacked=_needs_neighbours(model))
    attack = attack_study(detector, probe, watch=lambda share: told("attack", share))
    saliency = saliency_study(OfModel.of(detector, model.card.architecture), probe)
    told("saliency", 1.0)
    shifts = _shifts(model, data, split, _series_limit(pictures, limit), accelerator)
    told("shifts", 1.0)
    return {
        "model": {"name": detector.model.name, "version": detector.model.version, "sha256": detector.model.sha256},
        "split": split,
        "attack": {**attack, "text": attack_text(attack)},
        "saliency": saliency,
        "shifts": shifts,
        "notice": NOTICE,
    }


def _silent(_step: str, _share: float) -> None:
    """Nobody watches."""


def _needs_neighbours(model: Model) -> bool:
    entries = model.card.architecture["networks"]
    return any(method_entry(str(entry.get("method", kind_of(entry)))).stacked for entry in entries)


def _series_limit(pictures: Sequence[Picture], limit: int) -> int:
    """How many series have about ``limit`` planes, at least four."""
    return max(4, round(limit * len(stacks_of(pictures)) / len(pictures)))


def _shifts(model: Model, data: Path, split: str, limit: int, accelerator: str) -> dict[str, Any]:
    """The study of simulated scanners, or why there is none; without healthy patients on the lesions that there are."""
    card = model.card
    if card.detector not in RECIPES:
        return {"not_done": f"there is no recipe for {card.detector}"}
    recipe = replace(RECIPES[card.detector], unit=unit_of(card.preprocessing, card.detector))
    pictures = read_pictures(data, {split})
    ill = {picture.patient for picture in pictures if 1 in (picture.label, picture.patient_label)}
    healthy = {picture.patient for picture in pictures} - ill
    try:
        return shift_study(
            model.folder, recipe, data, split=split, limit=limit, accelerator=accelerator,
            lesions="planted" if healthy else "labels",
        )  # fmt: skip
    except ConfigError as error:
        return {"not_done": str(error)}
