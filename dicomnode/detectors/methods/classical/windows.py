"""Small windows around every pixel against the healthy windows at that place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.contract import Planes, Tensors
from dicomnode.detectors.methods.drawing import at_size
from dicomnode.errors import ConfigError

PRIOR = 4.0
"""Healthy planes that the average over all places is worth where few planes show the organ."""
LEAST_SD = 0.01
"""Smallest standard deviation that counts, in parts of the grey range."""
WINDOW_CHANNELS = 3
WINDOW = 5
"""Side of the windows in pixels."""


def shrunk(planes: Planes, size: int) -> Planes:
    """``planes`` on a grid of ``size`` pixels; masks where at least half of a pixel is organ."""
    if planes.size == size:
        return planes
    images = at_size(torch.from_numpy(np.ascontiguousarray(planes.images))[:, None], size)[:, 0]
    shares = at_size(torch.from_numpy(np.ascontiguousarray(planes.masks)).float()[:, None], size)[:, 0]
    return Planes(images.numpy(), (shares > 0.5).numpy(), planes.stacks, planes.labels)


def enlarged(maps: Array, size: int) -> Array:
    """``maps``, shape (n, own, own), brought to ``size`` pixels."""
    if maps.shape[-1] == size:
        return maps
    result: Array = at_size(torch.from_numpy(np.ascontiguousarray(maps))[:, None], size)[:, 0].numpy()
    return result


def smoothed(images: Array, side: int) -> Array:
    """Mean over ``side`` x ``side`` pixels, plane by plane; shape (n, size, size)."""
    from scipy.ndimage import uniform_filter

    result: Array = uniform_filter(images, size=(0, side, side), mode="nearest")
    return result


def window_features(planes: Planes) -> Array:
    """Mean, standard deviation and mean gradient of the window around every pixel; shape (3, n, size, size)."""
    images = np.where(planes.masks, planes.images, 0.0).astype(np.float32)
    mean = smoothed(images, WINDOW)
    variance = np.maximum(smoothed(images**2, WINDOW) - mean**2, 0.0)
    rows, columns = np.gradient(images, axis=(1, 2))
    return np.stack([mean, np.sqrt(variance), smoothed(np.hypot(rows, columns), WINDOW)])


@dataclass(frozen=True, slots=True)
class Places:
    """Mean and standard deviation of c values at every place of the grid, each (c, size, size)."""

    mean: Array
    sd: Array

    def deviations(self, values: Array) -> Array:
        """``values``, shape (c, n, size, size), in standard deviations of the place."""
        result: Array = (values - self.mean[:, None]) / self.sd[:, None]
        return result

    def maps(self, values: Array, planes: Planes) -> Array:
        """Root mean square deviation of ``values`` from the usual ones, in sd, shape (n, size, size); 0 outside the
        organ."""
        result: Array = np.sqrt(np.square(self.deviations(values)).mean(axis=0)) * planes.masks
        return result.astype(np.float32)

    def tensors(self) -> Tensors:
        return {"places.mean": self.mean, "places.sd": self.sd}


def healthy_places(values: Array, planes: Planes) -> Places:
    """What is usual at every place, from ``values`` of healthy ``planes``, shape (c, n, size, size).

    Only planes that show the organ at a place count there; where there are few of them the average over all places
    steps in.
    """
    inside = planes.masks[None].astype(np.float64)
    count, total = inside.sum(axis=1), max(float(inside.sum()), 1.0)
    overall = (values * inside).sum(axis=(1, 2, 3)) / total
    spread = ((values - overall[:, None, None, None]) ** 2 * inside).sum(axis=(1, 2, 3)) / total
    mean = ((values * inside).sum(axis=1) + PRIOR * overall[:, None, None]) / (count + PRIOR)
    squares = ((values - mean[:, None]) ** 2 * inside).sum(axis=1)
    variance = (squares + PRIOR * spread[:, None, None]) / (count + PRIOR)
    return Places(mean.astype(np.float32), np.sqrt(variance + LEAST_SD**2).astype(np.float32))


def kept_places(tensors: Tensors, channels: int, size: int) -> Places:
    """The places of ``Places.tensors``. Raises ConfigError when they are missing or of another grid."""
    mean, sd = tensors.get("places.mean"), tensors.get("places.sd")
    if mean is None or sd is None or not mean.shape == sd.shape == (channels, size, size):
        raise ConfigError("the arrays do not fit the settings of the method: places")
    return Places(mean.astype(np.float32), sd.astype(np.float32))
