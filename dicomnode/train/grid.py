"""The pictures of one split on a network grid, prepared once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from dicomnode.detectors.contract import Mask
from dicomnode.detectors.methods.contract import Planes
from dicomnode.detectors.preprocess import Prepared, preparation_of
from dicomnode.detectors.residual import enough_organ
from dicomnode.errors import ConfigError
from dicomnode.train.datasets import LABELS_FILE, Picture, eight_bit, read_pictures, read_plane, stacks_of, truth_of
from dicomnode.train.recipes import Recipe
from dicomnode.train.trivial import trivial_features


@dataclass(frozen=True, slots=True)
class Grid:
    """``pictures``: all of the split; ``kept``: those that could be prepared and have enough organ, as indices.

    ``planes``: the kept ones, in that order. ``truths``: outlines on the grid, shape of the planes; ``known``: whether
    the outline of a plane is known, shape (n,). ``features``: of all pictures, by name, shape (pictures,).
    """

    pictures: Sequence[Picture]
    kept: npt.NDArray[np.int64]
    planes: Planes
    truths: Mask
    known: npt.NDArray[np.bool_]
    features: Mapping[str, npt.NDArray[np.float64]]

    @property
    def patients(self) -> set[str]:
        return {picture.patient for picture in self.pictures}

    def feature_rows(self) -> list[dict[str, float]]:
        """The features picture by picture."""
        return [{name: float(own[i]) for name, own in self.features.items()} for i in range(len(self.pictures))]


def load_grid(recipe: Recipe, data: Path, split: str, size: int, cache: Path | None = None) -> Grid:
    """The planes of ``split`` at ``size`` by the node's own preprocessing; ``cache``: a folder that keeps them.

    Raises ConfigError for unusable data, or when no picture can be prepared.
    """
    pictures = read_pictures(data, {split})
    path = None if cache is None else cache / f"planes-{split}-{size}.safetensors"
    state = (
        f"{recipe.preparation}{' clahe' * recipe.clahe} {recipe.min_organ_share} "
        f"{hashlib.sha256((data / LABELS_FILE).read_bytes()).hexdigest()}"
    )
    arrays = None if path is None else _kept(path, state)
    if arrays is None:
        arrays = _prepared(recipe, pictures, size)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(safetensors.numpy.save(arrays, {"state": state}))
    kept = arrays["kept"].astype(np.int64)
    stacks = stacks_of([pictures[i] for i in kept])
    planes = Planes(arrays["images"].astype(np.float32) / np.float32(255), arrays["masks"].astype(bool), stacks)
    features = {
        key.removeprefix("feature."): own.astype(np.float64)
        for key, own in arrays.items()
        if key.startswith("feature.")
    }
    return Grid(pictures, kept, planes, arrays["truths"].astype(bool), arrays["known"].astype(bool), features)


def _kept(path: Path, state: str) -> dict[str, npt.NDArray[np.generic]] | None:
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, "numpy") as stored:
            if (stored.metadata() or {}).get("state") != state:
                return None
            return {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 - no mapping
    except (safetensors.SafetensorError, OSError):
        return None


def _prepared(recipe: Recipe, pictures: Sequence[Picture], size: int) -> dict[str, npt.NDArray[np.generic]]:
    prepare = preparation_of(recipe.preparation, clahe=recipe.clahe)
    kept: list[int] = []
    planes: list[Prepared] = []
    truths, known, rows = [], [], []
    for index, picture in enumerate(pictures):
        pixels = read_plane(picture, recipe.unit).pixels
        rows.append(trivial_features(picture, pixels))
        item = enough_organ(prepare(pixels, size), recipe.min_organ_share)
        if isinstance(item, Prepared):
            truth = truth_of(picture, pixels.shape)
            kept.append(index)
            planes.append(item)
            known.append(truth is not None)
            outline = np.zeros(pixels.shape, np.float32) if truth is None else truth.astype(np.float32)
            truths.append(item.from_plane(outline) > 0.5)
    if not planes:
        raise ConfigError("no picture could be prepared")
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "kept": np.array(kept, dtype=np.int64),
        "images": np.round(eight_bit(planes) * 255).astype(np.uint8),
        "masks": np.stack([plane.mask for plane in planes]).astype(np.uint8),
        "truths": np.stack(truths).astype(np.uint8),
        "known": np.array(known).astype(np.uint8),
    }
    return arrays | {f"feature.{name}": np.array([row[name] for row in rows]) for name in rows[0]}
