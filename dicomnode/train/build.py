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

from dicomnode.detectors.acquisition import AcquisitionModel
from dicomnode.detectors.acquisition_features import geometry
from dicomnode.detectors.calibration import read_calibration
from dicomnode.detectors.conformal import false_positive_rate
from dicomnode.detectors.contract import Array
from dicomnode.detectors.ensemble import FoldEnsemble, Methods, kind_of, method_of, pack_weights, unpack_weights
from dicomnode.detectors.methods.contract import Augmentation, Material, Method, Planes, Progress, Run, Tensors
from dicomnode.detectors.preprocess import Prepared
from dicomnode.detectors.registration import TEMPLATE_KEY, aligned, registration_of
from dicomnode.detectors.residual import score_planes
from dicomnode.errors import ConfigError
from dicomnode.models.card import ModelCard, write_card
from dicomnode.models.registry import CALIBRATION_FILE, WEIGHTS_FILE, open_model
from dicomnode.train.acquisition import fit_acquisition
from dicomnode.train.calibrate import HeldBack, calibrate
from dicomnode.train.datasets import patient_folds, prepare_pictures, read_pictures, training_planes
from dicomnode.train.mixed import Mixed
from dicomnode.train.previews import spread, write_previews
from dicomnode.train.recipes import NetworkRecipe, Recipe

TRAINING_ONLY = frozenset({"backbone_weights", "backbone_sha256"})
"""Settings that name a file of the trainer's machine; what was read from it lies in the model's own weights."""


@dataclass(frozen=True, slots=True)
class Healthy:
    """The usable healthy planes; ``patients``, ``folds`` and ``countable``: one entry per plane.

    ``countable``: whether the plane counts for calibration (enough organ on it). ``geometry``: what is known of the
    plane's spacing, for the acquisition gate. ``template``: what the planes were aligned to, None without registration.
    """

    planes: Planes
    patients: Sequence[str]
    folds: Sequence[int]
    countable: Sequence[bool]
    geometry: Sequence[dict[str, float]] = ()
    template: Array | None = None

    def held_back(self, fold: int) -> list[int]:
        return [i for i, own in enumerate(self.folds) if own == fold and self.countable[i]]

    def seen_by(self, fold: int) -> list[int]:
        return [i for i, own in enumerate(self.folds) if own != fold]


@dataclass(frozen=True, slots=True)
class Options:
    """How a training runs, whatever the recipe. ``seed``: of the first fold, the next ones count on. ``checkpoints``:
    a folder that keeps each fitted network, so that an interrupted run goes on where it stopped. ``previews``: keep
    pictures of held-back planes in the model folder."""

    accelerator: str = "cpu"
    seed: int = 0
    patience: int | None = None
    checkpoints: Path | None = None
    progress: Progress | None = None
    previews: bool = False


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
    """Train on the pictures of ``split`` in ``data`` (a folder with labels.csv, see ``datasets``); see ``train_on``."""
    options = Options(accelerator, checkpoints=checkpoints, progress=progress)
    healthy = load_healthy(recipe, data, split)
    return train_on(recipe, healthy, out, options, load_mixed(recipe, data, healthy))


def train_on(recipe: Recipe, healthy: Healthy, out: Path, options: Options, mixed: Mixed | None = None) -> Path:
    """Train, calibrate and write the model folder ``out``/<model>; answers its path.

    Each of ``recipe.folds`` folds is trained without a part of the patients and calibrated on that part. Raises
    ConfigError when the patients are too few for the threshold, before anything is trained.
    """
    _require_patients(recipe, healthy)
    folds = [_fit_fold(recipe, healthy, mixed, fold, options) for fold in range(recipe.folds)]
    extra: Tensors = {} if healthy.template is None else {TEMPLATE_KEY: healthy.template.astype(np.float16)}
    weights = pack_weights(folds, extra)
    ensemble = FoldEnsemble(unpack_weights(weights, architecture(recipe)), options.accelerator)
    calibration = calibrate([_held_back(ensemble, healthy, fold) for fold in range(recipe.folds)], recipe.rule)
    calibration = calibration.model_copy(update={"acquisition": acquisition_of(healthy)})
    content = calibration.model_dump_json(indent=1).encode()
    folder = write_model(recipe, out, weights, content, options.seed)
    if options.previews:
        for fold in range(recipe.folds):
            planes = healthy.planes.chosen(spread(healthy.held_back(fold)))
            write_previews(folder, fold, planes, score_planes(ensemble, calibration, planes), calibration)
    return folder


def _require_patients(recipe: Recipe, healthy: Healthy) -> None:
    counted = {name for name, own in zip(healthy.patients, healthy.countable, strict=True) if own}
    if false_positive_rate(len(counted), recipe.rule.alpha) == 0:
        least = 1 / (len(counted) + 1)
        raise ConfigError(
            f"{len(counted)} healthy patients are too few for a threshold at alpha {recipe.rule.alpha:g}; "
            f"with these alpha must be at least {least:.3f}"
        )


def load_mixed(recipe: Recipe, data: Path, healthy: Healthy) -> Mixed | None:
    """The unlabelled planes of the split ``recipe.mixed``, None when the recipe names none."""
    if recipe.mixed is None:
        return None
    pictures = read_pictures(data, {recipe.mixed})
    prepared = prepare_pictures(pictures, recipe.preparation, recipe.size, recipe.unit, clahe=recipe.clahe)
    pairs = [(plane, pic) for plane, pic in zip(prepared, pictures, strict=True) if isinstance(plane, Prepared)]
    if not pairs:
        raise ConfigError(f"no picture of {recipe.mixed} could be prepared")
    own = [pic for _, pic in pairs]
    kept, _ = aligned([plane for plane, _ in pairs], recipe.registration, healthy.template)
    planes = training_planes(kept, own)
    patients = [pic.patient for pic in own]
    return Mixed(planes, patients, shared=bool(set(patients) & set(healthy.patients)))


def acquisition_of(healthy: Healthy) -> AcquisitionModel | None:
    """The acquisition gate of a model trained on ``healthy``; None with too few patients for one."""
    return fit_acquisition(healthy.planes, healthy.patients, healthy.folds, healthy.countable, healthy.geometry or None)


def add_acquisition(folder: Path, recipe: Recipe, data: Path, split: str = "train_normal") -> AcquisitionModel | None:
    """Give the model in ``folder``, trained by ``recipe`` on ``data``, an acquisition gate; its networks stay.

    Writes calibration.json and the card's hash of it. Raises ConfigError when model or data are not usable.
    """
    model = open_model(folder)
    registration = registration_of(model.card.preprocessing, model.read_weights())
    kind, template = (None, None) if registration is None else (registration.kind, registration.template)
    same = replace(recipe, registration=kind, clahe=bool(model.card.preprocessing.get("clahe", False)))
    gate = acquisition_of(load_healthy(same, data, split, template))
    calibration = read_calibration(model.read_calibration()).model_copy(update={"acquisition": gate})
    content = calibration.model_dump_json(indent=1).encode()
    (folder / CALIBRATION_FILE).write_bytes(content)
    write_card(folder, model.card.model_copy(update={"calibration_sha256": hashlib.sha256(content).hexdigest()}))
    return gate


def architecture(recipe: Recipe) -> dict[str, Any]:
    """The architecture entry of the card."""
    entries = [entry.architecture.items() for entry in recipe.networks]
    kept = [{key: value for key, value in entry if key not in TRAINING_ONLY} for entry in entries]
    return {"folds": recipe.folds, "networks": kept}


def load_healthy(recipe: Recipe, data: Path, split: str, template: Array | None = None) -> Healthy:
    """The planes of ``split`` on the network grid, with their folds; unusable planes are left out.

    ``template``: what a recipe with a registration aligns them to; None makes it from them.
    """
    pictures = read_pictures(data, {split})
    prepared = prepare_pictures(pictures, recipe.preparation, recipe.size, recipe.unit, clahe=recipe.clahe)
    pairs = [(plane, pic) for plane, pic in zip(prepared, pictures, strict=True) if isinstance(plane, Prepared)]
    if not pairs:
        raise ConfigError("no picture could be prepared")
    fold_of = patient_folds((pic.patient for _, pic in pairs), recipe.folds)
    kept, template = aligned([plane for plane, _ in pairs], recipe.registration, template)
    planes = training_planes(kept, [pic for _, pic in pairs])
    patients = [pic.patient for _, pic in pairs]
    countable = [plane.organ_share >= recipe.min_organ_share for plane in kept]
    known = [geometry(pic.pixel_mm, pic.slice_mm) for _, pic in pairs]
    return Healthy(planes, patients, [fold_of[patient] for patient in patients], countable, known, template)


def write_model(recipe: Recipe, out: Path, weights: bytes, calibration: bytes, seed: int = 0) -> Path:
    """Write weights, calibration and card (without metrics) into ``out``/<model>; answers that folder."""
    folder = out / recipe.model
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    (folder / CALIBRATION_FILE).write_bytes(calibration)
    write_card(folder, _card(recipe, weights, calibration, seed))
    return folder


def _held_back(ensemble: FoldEnsemble, healthy: Healthy, fold: int) -> HeldBack:
    chosen = healthy.held_back(fold)
    planes = healthy.planes.chosen(chosen)
    names = [healthy.patients[i] for i in chosen]
    return HeldBack(planes.masks, names, ensemble.judge_fold(fold, planes), planes.shares)


def _fit_fold(recipe: Recipe, healthy: Healthy, mixed: Mixed | None, fold: int, options: Options) -> Methods:
    seen = healthy.planes.chosen(healthy.seen_by(fold))
    held = {name for name, own in zip(healthy.patients, healthy.folds, strict=True) if own == fold}
    material = Material(seen, None if mixed is None else mixed.without(held, seen))
    methods = {}
    for entry in recipe.networks:
        kind = kind_of(entry.architecture)
        kept = _checkpoint(recipe, fold, kind, options)
        method = _resumed(entry, kept)
        if method is None:
            method = method_of(entry.architecture)
            part = None if kept is None else kept.with_suffix(".running")
            run = _run(recipe, fold, kind, options)
            method.fit(material, replace(run, checkpoint=part, steps=entry.steps))
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(safetensors.numpy.save(_contiguous(method)))
        methods[kind] = method
    return methods


def _checkpoint(recipe: Recipe, fold: int, kind: str, options: Options) -> Path | None:
    if options.checkpoints is None:
        return None
    seed = f"-seed{options.seed}" if options.seed else ""
    return options.checkpoints / f"{recipe.model}-{fold}-{kind}{seed}.safetensors"


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


def _run(recipe: Recipe, fold: int, kind: str, options: Options) -> Run:
    shown, name = options.progress, f"fold {fold + 1} of {recipe.folds}: {kind}"
    return Run(
        seed=options.seed + fold,
        accelerator=options.accelerator,
        augmentation=Augmentation(mirror=recipe.mirror, rotate=recipe.rotate),
        progress=None if shown is None else lambda _, share: shown(name, share),
        patience=options.patience,
    )


def _card(recipe: Recipe, weights: bytes, calibration: bytes, seed: int) -> ModelCard:
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
            "unit": recipe.unit,
            **({} if recipe.registration is None else {"registration": recipe.registration}),
            **({"clahe": True} if recipe.clahe else {}),
        },
        architecture=architecture(recipe),
        training={
            "steps": {kind_of(entry.architecture): entry.steps for entry in recipe.networks},
            "mirror": recipe.mirror,
            "rotate_degrees": recipe.rotate,
            "seeds": [seed + fold for fold in range(recipe.folds)],
            "optimiser": "as the methods' settings say",
            "torch": str(torch.__version__),
        },
        **about,
    )
