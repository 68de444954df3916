"""From a folder of pictures to a model folder that the registry takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch

from dicomnode.detectors.ensemble import FoldEnsemble, Methods, kind_of, method_of, pack_weights, unpack_weights
from dicomnode.detectors.methods.contract import Augmentation, Material, Method, Planes, Progress, Run, Tensors
from dicomnode.detectors.preprocess import Prepared
from dicomnode.errors import ConfigError
from dicomnode.models.card import ModelCard, write_card
from dicomnode.models.registry import CALIBRATION_FILE, WEIGHTS_FILE
from dicomnode.train.calibrate import HeldBack, calibrate
from dicomnode.train.datasets import eight_bit, patient_folds, prepare_pictures, read_pictures, stacks_of
from dicomnode.train.recipes import NetworkRecipe, Recipe


@dataclass(frozen=True, slots=True)
class Healthy:
    """The usable healthy planes; ``patients``, ``folds`` and ``countable``: one entry per plane.

    ``countable``: whether the plane counts for calibration (enough organ on it).
    """

    planes: Planes
    patients: Sequence[str]
    folds: Sequence[int]
    countable: Sequence[bool]

    def held_back(self, fold: int) -> list[int]:
        return [i for i, own in enumerate(self.folds) if own == fold and self.countable[i]]

    def seen_by(self, fold: int) -> list[int]:
        return [i for i, own in enumerate(self.folds) if own != fold]


def train_model(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    accelerator: str = "cpu",
    split: str = "train_normal",
    checkpoints: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train, calibrate and write the model folder ``out``/<model>; answers its path.

    ``data``: a folder with labels.csv (``datasets``). Only pictures of ``split`` are read. Each of ``recipe.folds``
    folds is trained without a part of the patients and calibrated on that part. ``checkpoints``: a folder that keeps
    each fitted network, so that an interrupted run goes on where it stopped. Raises ConfigError for unusable data.
    """
    healthy = load_healthy(recipe, data, split)
    mixed = None if recipe.mixed is None else load_healthy(recipe, data, recipe.mixed).planes
    runs = [_run(recipe, fold, accelerator, progress) for fold in range(recipe.folds)]
    folds = [_fit_fold(recipe, healthy, mixed, fold, runs[fold], checkpoints) for fold in range(recipe.folds)]
    weights = pack_weights(folds)
    ensemble = FoldEnsemble(unpack_weights(weights, architecture(recipe)), accelerator)
    calibration = calibrate([_held_back(ensemble, healthy, fold) for fold in range(recipe.folds)], recipe.rule)
    return write_model(recipe, out, weights, calibration.model_dump_json(indent=1).encode())


def architecture(recipe: Recipe) -> dict[str, Any]:
    """The architecture entry of the card."""
    return {"folds": recipe.folds, "networks": [dict(entry.architecture) for entry in recipe.networks]}


def load_healthy(recipe: Recipe, data: Path, split: str) -> Healthy:
    """The planes of ``split`` on the network grid, with their folds; unusable planes are left out."""
    pictures = read_pictures(data, {split})
    prepared = prepare_pictures(pictures, recipe.preparation, recipe.size, recipe.unit)
    pairs = [(plane, pic) for plane, pic in zip(prepared, pictures, strict=True) if isinstance(plane, Prepared)]
    if not pairs:
        raise ConfigError("no picture could be prepared")
    fold_of = patient_folds((pic.patient for _, pic in pairs), recipe.folds)
    kept = [plane for plane, _ in pairs]
    planes = Planes(eight_bit(kept), np.stack([plane.mask for plane in kept]), stacks_of([pic for _, pic in pairs]))
    patients = [pic.patient for _, pic in pairs]
    countable = [plane.organ_share >= recipe.min_organ_share for plane in kept]
    return Healthy(planes, patients, [fold_of[patient] for patient in patients], countable)


def write_model(recipe: Recipe, out: Path, weights: bytes, calibration: bytes) -> Path:
    """Write weights, calibration and card (without metrics) into ``out``/<model>; answers that folder."""
    folder = out / recipe.model
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    (folder / CALIBRATION_FILE).write_bytes(calibration)
    write_card(folder, _card(recipe, weights, calibration))
    return folder


def _held_back(ensemble: FoldEnsemble, healthy: Healthy, fold: int) -> HeldBack:
    chosen = healthy.held_back(fold)
    planes = healthy.planes.chosen(chosen)
    return HeldBack(planes.masks, [healthy.patients[i] for i in chosen], ensemble.judge_fold(fold, planes))


def _fit_fold(
    recipe: Recipe, healthy: Healthy, mixed: Planes | None, fold: int, run: Run, checkpoints: Path | None
) -> Methods:
    material = Material(healthy.planes.chosen(healthy.seen_by(fold)), mixed)
    methods = {}
    for entry in recipe.networks:
        kept = checkpoints / f"{recipe.model}-{fold}-{kind_of(entry.architecture)}.safetensors" if checkpoints else None
        method = _resumed(entry, kept)
        if method is None:
            method = method_of(entry.architecture)
            part = None if kept is None else kept.with_suffix(".running")
            method.fit(material, replace(run, checkpoint=part, steps=entry.steps))
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(safetensors.numpy.save(_contiguous(method)))
        methods[kind_of(entry.architecture)] = method
    return methods


def _contiguous(method: Method) -> Tensors:
    return {key: np.ascontiguousarray(value) for key, value in method.tensors().items()}


def _resumed(entry: NetworkRecipe, kept: Path | None) -> Method | None:
    if kept is None or not kept.is_file():
        return None
    method = method_of(entry.architecture)
    try:
        method.restore(safetensors.numpy.load(kept.read_bytes()))
    except (safetensors.SafetensorError, ConfigError) as error:
        raise ConfigError(f"checkpoint {kept.name} does not fit the recipe; delete it to train again") from error
    return method


def _run(recipe: Recipe, fold: int, accelerator: str, progress: Progress | None) -> Run:
    augmentation = Augmentation(mirror=recipe.mirror, rotate=recipe.rotate)
    return Run(seed=fold, accelerator=accelerator, augmentation=augmentation, progress=progress)


def _card(recipe: Recipe, weights: bytes, calibration: bytes) -> ModelCard:
    about: dict[str, Any] = json.loads(json.dumps(dict(recipe.about)))
    return ModelCard(
        name=recipe.model,
        version=recipe.version,
        detector=recipe.detector,
        sha256=hashlib.sha256(weights).hexdigest(),
        calibration_sha256=hashlib.sha256(calibration).hexdigest(),
        preprocessing={
            "preparation": recipe.preparation,
            "size": recipe.size,
            "axial": recipe.axial,
            "min_organ_share": recipe.min_organ_share,
        },
        architecture=architecture(recipe),
        training={
            "steps": {kind_of(entry.architecture): entry.steps for entry in recipe.networks},
            "mirror": recipe.mirror,
            "rotate_degrees": recipe.rotate,
            "seeds": list(range(recipe.folds)),
            "optimiser": "as the methods' settings say",
            "torch": str(torch.__version__),
        },
        **about,
    )
