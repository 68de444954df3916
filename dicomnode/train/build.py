"""From a folder of pictures to a model folder that the registry takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from dicomnode.detectors.contract import Array
from dicomnode.detectors.ensemble import FoldEnsemble, Networks, pack_weights, unpack_weights
from dicomnode.detectors.networks import Network, build_network
from dicomnode.detectors.preprocess import Prepared
from dicomnode.errors import ConfigError
from dicomnode.models.card import ModelCard, write_card
from dicomnode.models.registry import CALIBRATION_FILE, WEIGHTS_FILE
from dicomnode.train.calibrate import HeldBack, calibrate
from dicomnode.train.datasets import eight_bit, patient_folds, prepare_pictures, read_pictures
from dicomnode.train.fit import FitOptions, Progress, fit_network
from dicomnode.train.recipes import NetworkRecipe, Recipe


@dataclass(frozen=True, slots=True)
class Healthy:
    """The usable healthy planes: ``images`` shape (n, size, size); ``patients`` and ``folds``: one entry per plane."""

    planes: Sequence[Prepared]
    images: Array
    patients: Sequence[str]
    folds: Sequence[int]

    def held_back(self, fold: int) -> list[int]:
        return [i for i, own in enumerate(self.folds) if own == fold]

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
    folds = [_fit_fold(recipe, healthy, fold, accelerator, checkpoints, progress) for fold in range(recipe.folds)]
    weights = pack_weights(folds)
    stored = unpack_weights(weights, architecture(recipe))
    calibration = calibrate(_held_back(stored, healthy, accelerator, recipe.min_organ_share), recipe.rule)
    return write_model(recipe, out, weights, calibration.model_dump_json(indent=1).encode())


def architecture(recipe: Recipe) -> dict[str, Any]:
    """The architecture entry of the card."""
    return {"folds": recipe.folds, "networks": [dict(entry.architecture) for entry in recipe.networks]}


def load_healthy(recipe: Recipe, data: Path, split: str) -> Healthy:
    """The healthy planes of ``split`` on the network grid, with their folds; unusable planes are left out."""
    pictures = read_pictures(data, {split})
    fold_of = patient_folds((picture.patient for picture in pictures), recipe.folds)
    prepared = prepare_pictures(pictures, recipe.preparation, recipe.size, recipe.unit)
    pairs = [(plane, pic.patient) for plane, pic in zip(prepared, pictures, strict=True) if isinstance(plane, Prepared)]
    if not pairs:
        raise ConfigError("no picture could be prepared")
    planes, patients = [plane for plane, _ in pairs], [patient for _, patient in pairs]
    return Healthy(planes, eight_bit(planes), patients, [fold_of[patient] for patient in patients])


def write_model(recipe: Recipe, out: Path, weights: bytes, calibration: bytes) -> Path:
    """Write weights, calibration and card (without metrics) into ``out``/<model>; answers that folder."""
    folder = out / recipe.model
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    (folder / CALIBRATION_FILE).write_bytes(calibration)
    write_card(folder, _card(recipe, weights, calibration))
    return folder


def _held_back(folds: Sequence[Networks], healthy: Healthy, accelerator: str, least: float) -> list[HeldBack]:
    ensemble = FoldEnsemble(folds, accelerator)
    held = []
    for fold in range(len(folds)):
        chosen = [i for i in healthy.held_back(fold) if healthy.planes[i].organ_share >= least]
        maps = ensemble.fold_residuals(fold, healthy.images[chosen])
        held.append(HeldBack([healthy.planes[i] for i in chosen], [healthy.patients[i] for i in chosen], maps))
    return held


def _fit_fold(
    recipe: Recipe,
    healthy: Healthy,
    fold: int,
    accelerator: str,
    checkpoints: Path | None,
    progress: Progress | None,
) -> dict[str, Network]:
    images = healthy.images[healthy.seen_by(fold)]
    networks = {}
    for entry in recipe.networks:
        kept = checkpoints / f"{recipe.model}-{fold}-{entry.architecture['kind']}.safetensors" if checkpoints else None
        network = _resumed(entry, kept)
        if network is None:
            network = fit_network(images, _options(recipe, entry, fold, accelerator), progress)
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(safetensors.torch.save(network.state_dict()))
        networks[str(entry.architecture["kind"])] = network
    return networks


def _resumed(entry: NetworkRecipe, kept: Path | None) -> Network | None:
    if kept is None or not kept.is_file():
        return None
    network = build_network(entry.architecture)
    try:
        network.load_state_dict(safetensors.torch.load(kept.read_bytes()))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ConfigError(f"checkpoint {kept.name} does not fit the recipe; delete it to train again") from error
    return network.eval()


def _options(recipe: Recipe, entry: NetworkRecipe, fold: int, accelerator: str) -> FitOptions:
    return FitOptions(
        entry.architecture,
        seed=fold,
        passes=entry.passes,
        mirror=recipe.mirror,
        rotate=recipe.rotate,
        accelerator=accelerator,
    )


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
            "passes": {str(entry.architecture["kind"]): entry.passes for entry in recipe.networks},
            "mirror": recipe.mirror,
            "rotate_degrees": recipe.rotate,
            "seeds": list(range(recipe.folds)),
            "optimiser": "Adam, one-cycle rate to 1e-3, batch 32",
            "torch": str(torch.__version__),
        },
        **about,
    )
