"""Synthetic lesions on tumour-free FLAIR slices: bright, of many sizes and textures, with mass effect and cysts; and
what is bright without being one (caps of the ventricles, shading).

Grey as ``preprocess.prepare_brain_flair`` makes it: median of the inner head at 0.4; lengths in pixels of 128.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.methods.contract import Planes
from dicomnode.detectors.methods.supervised.painting import Canvas, Point, Random, log_uniform, soft

LEAST_TISSUE = 0.025
"""Share of the grid that has to be tissue of middling grey for a slice to be painted on."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One tumour-free slice. ``tissue``: where a lesion may start. ``radius``: of a disc with the organ's area."""

    image: Array
    organ: Mask
    calm: Array
    tissue: Mask
    radius: float


class FlairLesions:
    """Makes training pairs from tumour-free slices: the image with or without lesions, and their outline."""

    def __init__(self, planes: Planes) -> None:
        self._planes = planes
        self._canvas = Canvas(planes.size)

    def make(self, draw: Random, share: float = 0.55) -> tuple[Array, Array]:
        """One image, 0..1, and the outline of its lesions, 0 or 1; both (size, size). ``share``: of sick images."""
        slice_ = self._slice(int(draw.integers(len(self._planes))))
        image, truth = self._caps(draw, slice_), np.zeros_like(slice_.image)
        if draw.random() < share and slice_.tissue.mean() >= LEAST_TISSUE:
            for _ in range(1 if draw.random() < 0.75 else 2):
                image, lesion = self._grown(draw, slice_, image)
                truth = np.maximum(truth, lesion)
        return self._scanned(draw, image), (truth > 0.5).astype(np.float32)

    def _slice(self, index: int) -> Slice:
        image, organ = self._planes.images[index].astype(np.float32), self._planes.masks[index]
        calm = ndimage.gaussian_filter(image, 1.2)
        tissue = organ & (calm > 0.25) & (calm < 0.6)
        return Slice(image, organ, calm, tissue, max(2.0, float(np.sqrt(organ.sum() / np.pi))))

    def _grown(self, draw: Random, slice_: Slice, image: Array) -> tuple[Array, Array]:
        """``image`` with one more lesion, and where it is; nothing where it is not brighter than before."""
        radius, centre = slice_.radius * log_uniform(draw, 0.08, 0.6), self._canvas.place(draw, slice_.tissue)
        inside = self._shape(draw, centre, radius)
        if draw.random() < 0.35 and radius > 4:
            image = self._pushed(draw, image, centre, radius)
        calm = ndimage.gaussian_filter(image, 1.0)
        where = self._extent(draw, slice_, inside, calm)
        new = self._filling(draw, image, calm, centre, radius)
        brighter = float((where * (new - image)).sum() / (where.sum() + 1e-3))
        painted = np.asarray(image * (1 - where) + where * new, np.float32)
        seen = brighter > 0.02 and (where > 0.5).sum() >= 6
        return painted, where if seen else np.zeros_like(where)

    def _shape(self, draw: Random, centre: Point, radius: float) -> Array:
        rough = draw.uniform(0.1, 0.5)
        inside = self._canvas.blob(draw, centre, radius, rough)
        if draw.random() < 0.6:
            inside = inside + radius * draw.uniform(0.05, 0.3) * self._canvas.clouds(draw, draw.uniform(3, 7))
        for _ in range(int(draw.integers(0, 3))):
            beside = (centre[0] + draw.normal(0, radius), centre[1] + draw.normal(0, radius))
            inside = np.maximum(inside, self._canvas.blob(draw, beside, radius * draw.uniform(0.3, 0.8), rough))
        return inside

    def _pushed(self, draw: Random, image: Array, centre: Point, radius: float) -> Array:
        """Mass effect: what is around moves outwards."""
        r, c = self._canvas.rows - centre[0], self._canvas.columns - centre[1]
        far = np.hypot(r, c) + 1e-3
        push = draw.uniform(0.1, 0.5) * radius * np.exp(-((far / (1.6 * radius)) ** 2))
        places = [self._canvas.rows - push * r / far, self._canvas.columns - push * c / far]
        return np.asarray(ndimage.map_coordinates(image, places, order=1, mode="nearest"), np.float32)

    def _extent(self, draw: Random, slice_: Slice, inside: Array, calm: Array) -> Array:
        """Cut to the organ; mostly sparing fluid, at times only in the darker white matter."""
        rim = soft(ndimage.distance_transform_edt(slice_.organ) - 0.5, 0.5)
        where = soft(inside, log_uniform(draw, 0.4, 2.5)) * rim * (calm < 0.75)
        choice = draw.random()
        if choice < 0.6:
            where = where * soft(calm - draw.uniform(0.18, 0.3), 0.03)
        if choice > 0.85:
            where = where * soft(draw.uniform(0.4, 0.48) - calm, 0.03)
        return np.asarray(ndimage.gaussian_filter(where, 0.4), np.float32)

    def _filling(self, draw: Random, image: Array, calm: Array, centre: Point, radius: float) -> Array:
        """What the lesion looks like inside: brighter tissue, new tissue, or tissue from elsewhere; at times a cyst."""
        contrast = log_uniform(draw, 0.04, 0.45)
        texture = 1 + draw.uniform(0, 0.5) * self._canvas.clouds(draw, log_uniform(draw, 2.5, 16))
        choice = draw.random()
        if choice < 0.4:
            new = image + contrast * texture
        elif choice < 0.7:
            new = draw.uniform(0.3, 0.45) + contrast * texture + (image - calm) * draw.uniform(0.3, 1.0)
        else:
            other = self._planes.images[int(draw.integers(len(self._planes)))]
            moved = np.roll(other, tuple(draw.integers(-20, 20, 2)), (0, 1))
            mixed = draw.uniform(0.35, 0.75) * image + draw.uniform(0.2, 0.5) * np.minimum(moved, 0.6)
            new = mixed + contrast * texture
        if draw.random() < 0.25 and radius > 5:
            middle = (centre[0] + draw.normal(0, 0.2 * radius), centre[1] + draw.normal(0, 0.2 * radius))
            cyst = soft(self._canvas.blob(draw, middle, radius * draw.uniform(0.2, 0.6)), 0.8)
            new = new * (1 - cyst) + cyst * draw.uniform(0.05, 0.4)
        return np.asarray(new, np.float32)

    def _caps(self, draw: Random, slice_: Slice) -> Array:
        """Bright caps and rims of the ventricles, which are not lesions."""
        if draw.random() >= 0.25:
            return slice_.image.copy()
        fluid = ndimage.gaussian_filter((slice_.calm < 0.2).astype(np.float32), 1.5)
        near = np.clip(fluid * 2, 0, 1) * soft(slice_.calm - 0.25, 0.05)
        caps = near * soft(self._canvas.clouds(draw, 20), 0.3)
        return np.asarray(slice_.image + draw.uniform(0, 0.15) * caps, np.float32)

    def _scanned(self, draw: Random, image: Array) -> Array:
        """Shading, gamma, gain, noise, blur."""
        if draw.random() < 0.5:
            image = image * np.exp(draw.uniform(0, 0.15) * self._canvas.clouds(draw, 70))
        if draw.random() < 0.2:
            image = np.clip(image, 0, 1) ** draw.uniform(0.8, 1.25)
        scanned = image * draw.uniform(0.82, 1.2)
        if draw.random() < 0.3:
            scanned = scanned + draw.uniform(0, 0.03) * draw.standard_normal(image.shape)
        if draw.random() < 0.2:
            scanned = ndimage.gaussian_filter(scanned, draw.uniform(0.3, 0.9))
        return np.asarray(np.clip(scanned, 0, 1), np.float32)
