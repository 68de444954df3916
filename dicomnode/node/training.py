"""Train a model from a folder of pictures or of DICOM files: the node's loader and the training put together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.detectors.discovery import discover
from dicomnode.errors import ConfigError
from dicomnode.node.offline_series import SeriesFolder
from dicomnode.train.build import Options, load_healthy, load_mixed, train_on
from dicomnode.train.datasets import LABELS_FILE
from dicomnode.train.model_card import write_model_card
from dicomnode.train.recipes import Recipe
from dicomnode.train.series import healthy_series
from dicomnode.train.thresholds import choose_region_threshold


@dataclass(frozen=True, slots=True)
class Trained:
    """``folder``: the model folder. ``planes``, ``patients``: healthy ones that were used. ``left_out``: reason → how
    many Series or files of a DICOM folder were not."""

    folder: Path
    planes: int
    patients: int
    left_out: dict[str, int] = field(default_factory=dict)


def train_folder(recipe: Recipe, data: Path, split: str, out: Path, options: Options) -> Trained:
    """Train by ``recipe`` on ``data`` and write the model folder below ``out``, thresholds and MODEL_CARD.md included.

    ``data``: labels.csv and pictures, of which ``split`` is read; or DICOM files, of which every Series that the
    recipe's detector accepts is taken as healthy. Raises ConfigError for data that cannot be used.
    """
    left_out: dict[str, int] = {}
    pictures = (data / LABELS_FILE).is_file()
    if pictures:
        healthy = load_healthy(recipe, data, split)
        mixed = load_mixed(recipe, data, healthy)
    else:
        if recipe.mixed is not None:
            raise ConfigError("a DICOM folder has no mixed split; give a folder with labels.csv")
        series = SeriesFolder(data, discover().detectors[recipe.detector])
        healthy, mixed = healthy_series(recipe, series.volumes()), None
        left_out = series.left_out
    folder = train_on(recipe, healthy, out, options, mixed)
    if pictures and recipe.rule.thresholds_on is not None:
        choose_region_threshold(folder, data, recipe.rule.thresholds_on, accelerator=options.accelerator)
    write_model_card(folder)
    return Trained(folder, len(healthy.planes), len(set(healthy.patients)), left_out)
