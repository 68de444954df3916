"""Images on their way into a hosted network, and its maps on their way back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dicomnode.config.hosted import HostedInput
from dicomnode.detectors.contract import Array, Plane
from dicomnode.detectors.resample import Box, crop_resize, paste


def scaled(pixels: Array, plane: Plane, settings: HostedInput) -> Array:
    """Pixel values in the network's range, any shape. Values that are no numbers count as the lowest.

    ``plane``: whose stored range counts where the settings say ``stored``.
    """
    values = pixels.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, values[finite].min() if finite.any() else 0.0).astype(np.float32)
    limits = _limits(values, plane, settings)
    if limits is None:
        return values
    low, high = limits
    share = np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0)
    start, end = settings.range
    return np.asarray(start + share * (end - start), np.float32)


def _limits(values: Array, plane: Plane, settings: HostedInput) -> tuple[float, float] | None:
    if settings.window is not None:
        centre, width = settings.window
        return centre - 0.5 * width, centre + 0.5 * width
    if settings.percentiles is not None:
        low, high = np.percentile(values, settings.percentiles)
        return float(low), float(high)
    return (plane.stored_min, plane.stored_max) if settings.stored else None


def channels_of(values: Array, settings: HostedInput) -> Array:
    """``values`` as (channels, …), each channel with its mean taken off and divided by its standard deviation."""
    stacked = np.repeat(values[None], settings.channels, axis=0)
    if settings.mean:
        shape = (-1,) + (1,) * values.ndim
        stacked = (stacked - np.reshape(settings.mean, shape)) / np.reshape(settings.sd, shape)
    return np.ascontiguousarray(stacked, dtype=np.float32)


def box_of(shape: tuple[int, int], settings: HostedInput) -> Box:
    """The part of an image that the network sees: all of it, or its middle square."""
    rows, columns = shape
    if not settings.square:
        return Box(0.0, 0.0, rows, columns)
    side = min(rows, columns)
    top, left = 0.5 * (rows - side), 0.5 * (columns - side)
    return Box(top, left, top + side, left + side)


def network_size(shape: tuple[int, int], settings: HostedInput) -> tuple[int, int]:
    """(rows, columns) of the network's input for an image of ``shape``."""
    if settings.size:
        return settings.size[-2], settings.size[-1]
    box = box_of(shape, settings)
    return int(box.height), int(box.width)


def to_network(plane: Plane, settings: HostedInput) -> Array:
    """One image as the network wants it, shape (channels, rows, columns)."""
    values = scaled(plane.pixels, plane, settings)
    size = network_size(plane.shape, settings)
    box = box_of(plane.shape, settings)
    if size != plane.shape or settings.square:
        values = crop_resize(values, box, size)
    return channels_of(values, settings)


def onto_plane(values: Array, plane: Plane, settings: HostedInput) -> Array:
    """A map of the network, shape (rows, columns), on the grid of the image; 0 where the network did not look."""
    if values.shape == plane.shape and not settings.square:
        return values.astype(np.float32)
    return paste(values, box_of(plane.shape, settings), plane.shape)


def stack_to_network(planes: Sequence[Plane], settings: HostedInput) -> Array:
    """A stack as the network wants it, shape (channels, planes, rows, columns); the settings' size by interpolation."""
    import torch

    values = scaled(np.stack([plane.pixels for plane in planes]), planes[0], settings)
    if settings.size and settings.size != values.shape:
        cube = torch.from_numpy(values)[None, None]
        values = torch.nn.functional.interpolate(cube, size=settings.size, mode="trilinear")[0, 0].numpy()
    return channels_of(values, settings)


def onto_stack(values: Array, shape: tuple[int, int, int]) -> Array:
    """A map of the network, shape (planes, rows, columns), on the grid of the stack, ``shape`` in that order."""
    import torch

    if values.shape == shape:
        return values
    cube = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    on_grid: Array = torch.nn.functional.interpolate(cube, size=shape, mode="trilinear")[0, 0].numpy()
    return on_grid
