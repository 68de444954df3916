"""Small made-up organs, healthy and with bright lesions, for tests of the methods."""

from __future__ import annotations

import numpy as np

from dicomnode.detectors.methods.contract import Material, Planes

SIZE = 32


def plane(draw: np.random.Generator, *, lesion: bool, depth: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image 0..1, organ and lesion mask, each (32, 32): an ellipse with two lobes that widens with ``depth``."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    r, c = rows - 15.5 - draw.normal(0, 0.4), columns - 15.5 - draw.normal(0, 0.4)
    organ = (r / (12 + 2 * depth)) ** 2 + (c / (9 + 3 * depth)) ** 2 < 1
    lobes = 0.15 * np.cos(c / (2.5 + 0.5 * depth)) + 0.1 * np.sin(r / 4 + draw.normal(0, 0.1))
    image = np.where(organ, 0.45 + lobes, 0.0)
    truth = np.zeros((SIZE, SIZE), bool)
    if lesion:
        inner = np.argwhere((r / 8) ** 2 + (c / 6) ** 2 < 1)
        row, column = inner[draw.integers(len(inner))]
        truth = (np.hypot(rows - row, columns - column) < draw.uniform(2.5, 4.5)) & organ
        image = image + truth * draw.uniform(0.3, 0.45)
    noisy = image + organ * draw.normal(0, 0.03, image.shape)
    return np.clip(noisy, 0, 1).astype(np.float32), organ, truth


def planes(seed: int, count: int, *, lesions: float = 0.0, depth: int = 1) -> tuple[Planes, np.ndarray]:
    """``count`` stacks of ``depth`` planes; the share ``lesions`` of planes has one. Answers them (labels included)
    and the lesion masks, shape (n, 32, 32)."""
    draw = np.random.default_rng(seed)
    made = [
        plane(draw, lesion=bool(draw.random() < lesions), depth=(k + 0.5) / depth)
        for _ in range(count)
        for k in range(depth)
    ]
    images, organs, truths = (np.stack(part) for part in zip(*made, strict=True))
    stacks = tuple(tuple(range(i * depth, (i + 1) * depth)) for i in range(count))
    labels = truths.any(axis=(1, 2)).astype(np.int8)
    return Planes(images, organs, stacks, labels), truths


def material(*, depth: int = 1, seed: int = 0) -> Material:
    """128 healthy planes and 64 mixed ones (half with a lesion)."""
    healthy, _ = planes(seed, 128 // depth, depth=depth)
    mixed, _ = planes(seed + 1, 64 // depth, lesions=0.5, depth=depth)
    return Material(healthy, Planes(mixed.images, mixed.masks, mixed.stacks))


def labelled(*, depth: int = 1, seed: int = 7) -> tuple[Planes, np.ndarray]:
    """64 planes to judge, half with a lesion, and the lesion masks."""
    return planes(seed, 64 // depth, lesions=0.5, depth=depth)
