"""Thresholds chosen on a labelled split and written into a model folder: region heat by Dice, alpha by its rate."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from dicomnode.detectors.calibration import ResidualCalibration, read_calibration
from dicomnode.detectors.residual import ResidualDetector
from dicomnode.errors import ConfigError
from dicomnode.models.card import write_card
from dicomnode.models.registry import CALIBRATION_FILE, open_model
from dicomnode.train.datasets import read_pictures, truth_of, unit_of
from dicomnode.train.evaluate import load_model
from dicomnode.train.headline import sample_of
from dicomnode.train.judging import JudgedSeries, judge_series
from dicomnode.train.pixels import HEAT_STEPS, PixelTally, heat_steps

HEATS = tuple(round(0.30 + 0.01 * i, 2) for i in range(69))
ALPHAS = (0.2, 0.15, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01)


def choose_region_threshold(folder: Path, data: Path, split: str = "val", *, accelerator: str = "cpu") -> float:
    """The heat, of a grid 0.30 to 0.98, with the greatest mean Dice over the outlined pictures of ``split``.

    Written into calibration.json as region_heat, and the card's hash of it. Raises ConfigError for a model without
    residual maps, unusable data, or a split without outlines.
    """
    tally = PixelTally()
    for series in _judged(folder, data, split, accelerator):
        for item in series.pictures:
            truth = None if item.heat is None or item.picture.label not in (0, 1) else truth_of(
                item.picture, item.heat.shape)  # fmt: skip
            if truth is not None and item.heat is not None:
                tally.add(heat_steps(item.heat), truth)
    if not tally.planes:
        raise ConfigError(f"the split {split} has no outline to choose a threshold by")
    dice = tally.mean_dice()
    best = max(HEATS, key=lambda heat: float(dice[int(heat * HEAT_STEPS)]))
    _rewrite(folder, {"region_heat": best})
    return best


def choose_alpha(folder: Path, data: Path, split: str = "val", *, most: float = 0.1, accelerator: str = "cpu") -> float:
    """The greatest alpha, of a grid 0.01 to 0.2, that flags at most the share ``most`` of the normal pictures.

    By their plane scores; normal pictures as in the headline figure. Written like the region threshold. Raises
    ConfigError when not even the smallest alpha does, or for unusable input.
    """
    sample = sample_of([item for one in _judged(folder, data, split, accelerator) for item in one.pictures])
    normal = sample.scores[~sample.labels]
    if not len(normal):
        raise ConfigError(f"the split {split} has no normal picture to choose alpha by")
    for alpha in ALPHAS:
        if float(np.mean(normal >= 1.0 - alpha - 1e-9)) <= most:
            _rewrite(folder, {"alpha": alpha})
            return alpha
    raise ConfigError(f"more than {most:.0%} of the normal pictures of {split} are flagged at alpha {ALPHAS[-1]}")


def _judged(folder: Path, data: Path, split: str, accelerator: str) -> list[JudgedSeries]:
    model = open_model(folder)
    detector = load_model(model, accelerator)
    if not isinstance(detector, ResidualDetector):
        raise ConfigError(f"model {model.name} has no calibration file of residual maps")
    pictures = [picture for picture in read_pictures(data, {split}) if picture.label is not None]
    if not pictures:
        raise ConfigError(f"the split {split} has no labelled picture")
    return list(judge_series(detector, pictures, unit_of(model.card.preprocessing, model.card.detector)))


def _rewrite(folder: Path, values: dict[str, float]) -> None:
    model = open_model(folder)
    changed = {**read_calibration(model.read_calibration()).model_dump(), **values}
    try:
        calibration = ResidualCalibration.model_validate(changed)
    except ValueError as error:
        raise ConfigError(f"the calibration does not allow {values}: too few healthy patients") from error
    content = calibration.model_dump_json(indent=1).encode()
    (folder / CALIBRATION_FILE).write_bytes(content)
    write_card(folder, model.card.model_copy(update={"calibration_sha256": hashlib.sha256(content).hexdigest()}))
