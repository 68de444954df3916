"""Made-up opacities in pictures of the lungs: what the opacity head of ``lung-features`` learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.methods.features.lung_heads import Matrix

VISIBLE = 0.5
"""Change of grey, as a share of the step from air to tissue, from which an opacity counts as fully visible."""
_SHARE = 0.65
"""Share of made-up pictures that get an opacity."""
_GRID = 128
"""Side for which widths in pixels are given."""


@dataclass(frozen=True, slots=True)
class LungPicture:
    """``image``: shape (n, n), 0..1. ``lungs``: the aerated lungs, same shape."""

    image: Array
    lungs: Mask

    def mirrored(self) -> LungPicture:
        return LungPicture(self.image[:, ::-1], self.lungs[:, ::-1])


def made_up(picture: LungPicture, rng: np.random.Generator) -> tuple[Array, Array]:
    """A changed copy of ``picture``, with an opacity in 65 of 100, and how visible it is, 0..1; shapes (n, n)."""
    if rng.random() < 0.8:
        picture = _moved(picture, rng)
    if rng.random() < 0.5:
        picture = picture.mirrored()
    image, visible = picture.image, np.zeros_like(picture.image)
    if rng.random() < _SHARE:
        image, visible = with_opacity(picture, rng)
    return _other_exposure(image, rng), np.clip(visible / VISIBLE, 0.0, 1.0).astype(np.float32)


def with_opacity(picture: LungPicture, rng: np.random.Generator) -> tuple[Array, Array]:
    """``picture`` with one opacity, and the change of grey it makes as a share of the step from air to tissue.

    Lung is brought towards the grey of tissue, with the picture's own coarse shading, sometimes with streaks.
    Without enough lung the picture stays as it is.
    """
    image, n = picture.image, picture.image.shape[0]
    shape = _shape(picture.lungs, rng) if picture.lungs.sum() >= 0.02 * n * n else np.zeros_like(image)
    peak = float(shape.max())
    if peak < 0.05:
        return image, np.zeros_like(image)
    air, tissue = np.quantile(image[picture.lungs], 0.2), np.quantile(image, 0.85)
    gap = max(0.08, float(tissue - air))
    strength, level = rng.uniform(0.25, 0.95), air + gap * rng.uniform(0.55, 1.0)
    target = np.maximum(ndimage.gaussian_filter(image, n * 0.03), level)
    result = image + np.clip(strength * shape / peak, 0, 1) * (target - image)
    if rng.random() < 0.4:
        streaks = np.exp(-((_noise(rng, n, int(rng.integers(20, 45))) / 0.35) ** 2))
        result = result + rng.uniform(0.03, 0.12) * gap * streaks * shape / peak
    result = np.clip(result, 0.0, 1.0)
    visible = np.abs(ndimage.gaussian_filter(result - image, n * 0.012)) / gap
    return result.astype(np.float32), visible.astype(np.float32)


def _shape(lungs: Mask, rng: np.random.Generator) -> Matrix:
    """Strength of an opacity, about 0..1: blobs, a basal one, or patches, in one lung or in both."""
    n = lungs.shape[0]
    left = lungs.copy()
    left[:, n // 2 :] = False
    sides = [side for side in (left, lungs & ~left) if side.sum() > 0.01 * n * n] or [lungs]
    side, kind = sides[rng.integers(len(sides))], rng.random()
    if kind < 0.62:
        strength, where = _blobs(side, rng), side if rng.random() < 0.75 else lungs
    elif kind < 0.8:
        strength, where = _basal(side, rng), side
    else:
        strength, where = _patches(n, rng), lungs if rng.random() < 0.6 else side
    if rng.random() < 0.6:
        texture = 1 + rng.uniform(0.1, 0.6) * _noise(rng, n, int(rng.integers(12, 40)))
        strength = strength * np.clip(texture, 0, 1.6)
    shaped: Matrix = np.clip(strength * _soft_hull(where, rng), 0.0, 1.2)
    return shaped


def _blobs(side: Mask, rng: np.random.Generator) -> Matrix:
    """One to four warped ellipses, the lower fields more often."""
    n = side.shape[0]
    rows, columns = np.nonzero(side)
    weights = np.exp(1.2 * (rows - rows.min()) / max(1, int(np.ptp(rows))))
    weights /= weights.sum()
    y, x = np.mgrid[:n, :n] / n
    y, x = y + 0.05 * _noise(rng, n, 6), x + 0.05 * _noise(rng, n, 6)
    strength = np.zeros((n, n))
    for _ in range(int(rng.integers(1, 5))):
        centre = rng.choice(len(rows), p=weights)
        long, short = np.exp(rng.uniform(np.log(0.03), np.log(0.14), 2))
        turn = rng.uniform(0, np.pi)
        dy, dx = y - rows[centre] / n, x - columns[centre] / n
        u = (dy * np.cos(turn) + dx * np.sin(turn)) / long
        v = (-dy * np.sin(turn) + dx * np.cos(turn)) / short
        blob = rng.uniform(0.5, 1) * np.exp(-0.5 * (u * u + v * v) ** rng.uniform(0.8, 2))
        strength = np.maximum(strength, blob)
    return strength


def _basal(side: Mask, rng: np.random.Generator) -> Matrix:
    """The lower part of one lung, with a soft upper edge that may rise to the outside as a meniscus does."""
    n = side.shape[0]
    rows, columns = np.nonzero(side)
    y, x = np.mgrid[:n, :n] / n
    top, centre = np.quantile(rows, rng.uniform(0.55, 0.93)) / n, columns.mean() / n
    rise = rng.uniform(-0.1, 0.5) * np.clip(np.sign(centre - 0.5) * (x - centre), -0.1, 0.2)
    edge = top - rise + 0.05 * _noise(rng, n, 6)
    strength: Matrix = 1 / (1 + np.exp(-(y - edge) / rng.uniform(0.008, 0.04)))
    return strength


def _patches(n: int, rng: np.random.Generator) -> Matrix:
    """Irregular patches around one height."""
    y = np.mgrid[:n, :n][0] / n
    field = _noise(rng, n, int(rng.integers(4, 12))) - rng.uniform(-0.3, 0.9)
    height = np.exp(-(((y - rng.uniform(0.35, 0.8)) / rng.uniform(0.15, 0.5)) ** 2))
    strength: Matrix = height / (1 + np.exp(-field * rng.uniform(2, 5)))
    return strength


def _soft_hull(where: Mask, rng: np.random.Generator) -> Matrix:
    scale = where.shape[0] / _GRID
    reach = max(1, round(12 * scale))
    hull = ndimage.binary_closing(np.pad(where, reach + 4), iterations=reach)[
        reach + 4 : -reach - 4, reach + 4 : -reach - 4
    ]
    wider = round(int(rng.integers(0, 4)) * scale)
    grown = ndimage.binary_dilation(hull, iterations=wider) if wider else hull
    soft: Matrix = ndimage.gaussian_filter(grown.astype(float), rng.uniform(1, 3) * scale)
    return soft


def _moved(picture: LungPicture, rng: np.random.Generator) -> LungPicture:
    """Turned by a few degrees, stretched and shifted a little."""
    n = picture.image.shape[0]
    turn, stretch = rng.normal(0, 0.06), np.exp(rng.normal(0, 0.07, 2))
    centre = np.full(2, (n - 1) / 2)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * stretch[:, None]
    offset = centre - matrix @ centre + rng.normal(0, 4 * n / _GRID, 2)
    image = ndimage.affine_transform(picture.image, matrix, offset, order=1, mode="nearest")
    lungs = ndimage.affine_transform(picture.lungs.astype(np.float32), matrix, offset, order=1) > 0.5
    return LungPicture(image, lungs)


def _other_exposure(image: Array, rng: np.random.Generator) -> Array:
    """Changes of grey, sharpness and noise that carry no disease."""
    changed = np.clip(image, 0, 1) ** np.exp(rng.uniform(-0.35, 0.35))
    if rng.random() < 0.5:
        changed = ndimage.gaussian_filter(changed, rng.uniform(0, 1.2) * image.shape[0] / _GRID)
    if rng.random() < 0.5:
        changed = changed + rng.standard_normal(changed.shape) * rng.uniform(0, 0.03)
    low, high = np.percentile(changed, (1, 99))
    stretched: Array = np.clip((changed - low) / max(float(high - low), 1e-3), 0, 1).astype(np.float32)
    return stretched


def _noise(rng: np.random.Generator, n: int, cells: int) -> Matrix:
    """Smooth noise of unit spread with about ``cells`` bumps a side, shape (n, n)."""
    coarse = rng.standard_normal((cells + 3, cells + 3))
    smooth: Matrix = ndimage.zoom(coarse, n / cells, order=3)[:n, :n]
    return smooth
