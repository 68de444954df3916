"""A MONAI bundle as a detector: the Volume in place of its first file, its segmentation on the Volume's own grid."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dicomnode.config.hosted import HostedBundle
from dicomnode.detectors.contract import DetectionResult, Mask, ModelIdentity, Outcome, Volume
from dicomnode.detectors.hosted.answer import Scale, answer, from_label_values
from dicomnode.detectors.hosted.bundle import BundleParts, build
from dicomnode.detectors.hosted.bundle_files import BundleFiles, read_bundle
from dicomnode.detectors.hosted.digest import require
from dicomnode.detectors.hosted.grid import Grid, by_plane, grid_of, voxels
from dicomnode.errors import ConfigError

_PRED = "pred"
_SCALE = Scale("1 where the model segments the label, 0 where it does not; the model gives no probability")


class HostedBundleDetector:
    """A ``LoadedDetector`` around the parts of a bundle. ``facts``: what results say of it."""

    def __init__(
        self,
        identity: ModelIdentity,
        settings: HostedBundle,
        parts: BundleParts,
        accelerator: str,
        facts: dict[str, str],
    ) -> None:
        self.model, self.accelerator = identity, accelerator
        self._settings, self._parts, self._facts = settings, parts, facts

    def detect(self, volume: Volume) -> DetectionResult:
        """Analyse one Volume; NOT_ANALYSED with the reason where it is no regular stack."""
        grid = grid_of(volume)
        if isinstance(grid, str):
            return DetectionResult(Outcome.NOT_ANALYSED, reason=grid)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # transforms may quote what they are given
            predicted = self._predicted(volume, grid)
        if predicted.ndim != 4 or tuple(predicted.shape[1:]) != grid.shape:
            return DetectionResult(Outcome.FAILED, reason="the bundle's output does not lie on the grid of the images")
        values = self._masks(predicted)
        if isinstance(values, str):
            return DetectionResult(Outcome.FAILED, reason=values)
        told = from_label_values(values, self._settings, volume)
        return answer(self.model.name, self._settings, volume, told, _SCALE, self._facts)

    def _predicted(self, volume: Volume, grid: Grid) -> Tensor:
        """The bundle's answer on the grid of the Volume, shape (channels, column, row, plane)."""
        parts = self._parts
        data: dict[str, Any] = {parts.image_key: self._image(volume, grid)}
        for transform in parts.preprocessing:
            data = transform(data)
        image = data[parts.image_key]
        batch = image.as_tensor()[None].to(self.accelerator)
        output = parts.inferer(inputs=batch, network=parts.network)
        if isinstance(output, (list, tuple)):
            output = output[0]
        data[_PRED] = _like(output[0].float().cpu(), image)
        for transform in parts.postprocessing:
            data = transform(data)
        predicted = data[_PRED]
        if not parts.inverts:
            predicted = _resampled(predicted, image, grid)
        return torch.as_tensor(predicted).as_subclass(Tensor).float().cpu()

    def _image(self, volume: Volume, grid: Grid) -> Any:
        """What LoadImaged would have made of a NIfTI file of this Volume."""
        from monai.data.meta_tensor import MetaTensor

        values = torch.from_numpy(voxels(volume))
        affine = torch.from_numpy(grid.affine)
        meta = {
            "spatial_shape": np.asarray(grid.shape),
            "original_affine": grid.affine.copy(),
            "space": "RAS",
            "original_channel_dim": 0 if self._parts.channel_first else float("nan"),
            "filename_or_obj": "image",
        }
        return MetaTensor(values[None] if self._parts.channel_first else values, affine=affine, meta=meta)

    def _masks(self, predicted: Tensor) -> dict[int, Mask] | str:
        """Label index to mask, shape (planes, rows, columns): a channel each, or one channel with label values."""
        labels = self._settings.labels
        array = predicted.numpy()
        if len(array) == 1:
            values = by_plane(np.rint(array[0]).astype(np.int32))
            return {label.index: np.asarray(values == label.index, bool) for label in labels}
        if max(label.index for label in labels) >= len(array):
            return f"the bundle's output has {len(array)} channels, a label asks for another"
        return {label.index: np.asarray(by_plane(array[label.index] > 0.5), np.bool_) for label in labels}


def _like(output: Tensor, image: Any) -> Any:
    """A prediction with the place of the image that it was made of."""
    from monai.data.meta_tensor import MetaTensor

    return MetaTensor(output, affine=image.affine.clone())


def _resampled(predicted: Any, image: Any, grid: Grid) -> Any:
    """The prediction on ``grid``, by nearest neighbour: for a bundle whose postprocessing does not bring it back."""
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.spatial.array import SpatialResample

    own = predicted if isinstance(predicted, MetaTensor) else _like(torch.as_tensor(predicted), image)
    return SpatialResample(mode="nearest", padding_mode="zeros")(
        own.float(), dst_affine=torch.from_numpy(grid.affine), spatial_size=grid.shape
    )


def load_bundle(identity: ModelIdentity, settings: HostedBundle, path: Path, accelerator: str) -> HostedBundleDetector:
    """The detector of a bundle. A private copy is made, hashed, and only then read: what was allowed is what runs.

    Raises ConfigError for another hash, BundleRefused with the reason for a bundle that cannot be hosted.
    """
    with tempfile.TemporaryDirectory(prefix="dicomnode-bundle-") as folder:
        root = Path(folder) / (path.name or "bundle")
        try:
            shutil.copytree(path, root, symlinks=True)
        except (OSError, shutil.Error) as error:
            raise ConfigError(f"bundle {path.name} cannot be copied: {type(error).__name__}") from error
        require(root, settings.sha256)
        files = read_bundle(root, settings)
        parts = build(files, accelerator)
    return HostedBundleDetector(identity, settings, parts, accelerator, _facts(files))


def _facts(files: BundleFiles) -> dict[str, str]:
    stated = {"format": "MONAI bundle"}
    for key, name in (("version", "bundle version"), ("monai_version", "made with MONAI")):
        if files.metadata.get(key):
            stated[name] = str(files.metadata[key])[:32]
    return stated
