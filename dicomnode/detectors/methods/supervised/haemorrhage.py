"""Synthetic intracranial haemorrhage on healthy head CT: shapes and places of the textbook, contrast from barely
visible to strong, and things that look like it but are not (calcification, streaks, cupping).

Grey as ``preprocess.prepare_head_ct`` makes it: brain median at 0.5, 1.5 x share of 80 HU; lengths in pixels of 128.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dicomnode.detectors.contract import Array, Mask
from dicomnode.detectors.methods.contract import Planes
from dicomnode.detectors.methods.supervised.painting import Canvas, Random, log_uniform, soft

SHARES = (0.2, 0.22, 0.2, 0.08, 0.14, 0.06, 0.1)
"""How often each kind is painted, in the order of ``Haemorrhages._painters``."""


@dataclass(frozen=True, slots=True)
class Head:
    """One healthy plane. ``depth``: distance from the inner skull, pixels. ``calm``: the image without grain.

    ``radius``: that of a disc with the organ's area; ``centre``: of the organ, (row, column).
    """

    image: Array
    organ: Mask
    depth: Array
    calm: Array
    radius: float
    centre: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Stroke:
    """One lesion: where it is (0..1) and by how much it changes the grey."""

    where: Array
    change: float


Painter = Callable[[Random, Head], Stroke]


class Haemorrhages:
    """Makes training pairs from healthy planes: the image with or without lesions, and their outline."""

    def __init__(self, planes: Planes) -> None:
        self._planes = planes
        self._canvas = Canvas(planes.size)
        self._painters: tuple[Painter, ...] = (
            self._parenchyma,
            self._subdural,
            self._epidural,
            self._ventricle,
            self._subarachnoid,
            self._midline,
            self._dark,
        )

    def make(self, draw: Random, share: float = 0.55) -> tuple[Array, Array]:
        """One image, 0..1, and the outline of its lesions, 0 or 1; both (size, size). ``share``: of sick images."""
        head = self._head(int(draw.integers(len(self._planes))))
        image = self._decoys(draw, head)
        truth = np.zeros_like(image)
        if draw.random() < share:
            for _ in range(int(draw.choice([1, 2, 3], p=[0.65, 0.25, 0.1]))):
                image, lesion = self._bled(draw, head, image)
                truth = np.maximum(truth, lesion)
        return self._scanned(draw, head, image), (truth > 0.5).astype(np.float32)

    def _head(self, index: int) -> Head:
        image, organ = self._planes.images[index].astype(np.float32), self._planes.masks[index]
        depth = ndimage.distance_transform_edt(np.pad(organ, 1))[1:-1, 1:-1].astype(np.float32)
        rows, columns = ndimage.center_of_mass(organ) if organ.any() else (self._canvas.size / 2,) * 2
        radius = max(2.0, float(np.sqrt(organ.sum() / np.pi)))
        return Head(image, organ, depth, ndimage.gaussian_filter(image, 1.0), radius, (float(rows), float(columns)))

    def _bled(self, draw: Random, head: Head, image: Array) -> tuple[Array, Array]:
        """``image`` with one more lesion, and where it is; nothing where it would not be seen."""
        stroke = self._painters[int(draw.choice(len(self._painters), p=SHARES))](draw, head)
        where = stroke.where * head.organ
        texture = 1 + draw.uniform(0, 0.35) * self._canvas.clouds(draw, draw.uniform(3, 10))
        grain = texture if draw.random() < 0.5 else np.ones_like(image)
        if draw.random() < 0.45 and stroke.change > 0:
            tissue = 0.5 + draw.normal(0, 0.03) + stroke.change * grain + (image - head.calm)
            image = image * (1 - where) + where * tissue
        else:
            image = image + where * stroke.change * grain
        unseen = abs(stroke.change) * where.max() < 0.04 or (where > 0.5).sum() < 3
        return image.astype(np.float32), np.zeros_like(where) if unseen else where

    def _contrast(self, draw: Random) -> float:
        return log_uniform(draw, 0.05, 0.45)

    def _parenchyma(self, draw: Random, head: Head) -> Stroke:
        """Haematoma or contusion, often several."""
        where, edge = np.zeros_like(head.image), draw.uniform(0.3, 1.2)
        centre = self._canvas.place(draw, head.depth > draw.choice([0.5, 2.0, 8.0]))
        for _ in range(int(draw.integers(1, 4)) if draw.random() < 0.4 else 1):
            radius = max(1.2, head.radius * log_uniform(draw, 0.03, 0.35))
            where = np.maximum(where, soft(self._canvas.blob(draw, centre, radius), edge))
            step = draw.normal(0, 2 * radius + 2, 2)
            centre = (centre[0] + float(step[0]), centre[1] + float(step[1]))
        return Stroke(where, self._contrast(draw))

    def _subdural(self, draw: Random, head: Head) -> Stroke:
        """A crescent along the inner skull; now and then an old, dark one."""
        angles = np.arctan2(self._canvas.rows - head.centre[0], self._canvas.columns - head.centre[1])
        off = (angles - draw.uniform(-np.pi, np.pi) + np.pi) % (2 * np.pi) - np.pi
        share = np.abs(off) / draw.uniform(0.25, 1.3)
        thick = head.radius * log_uniform(draw, 0.025, 0.22) * np.sqrt(np.clip(1 - share**2, 0, 1))
        thick = thick * (1 + 0.25 * self._canvas.clouds(draw, 14))
        where = soft(thick - head.depth, draw.uniform(0.3, 1.2)) * (share < 1)
        old = draw.random() < 0.25
        return Stroke(where, -draw.uniform(0.08, 0.45) if old else self._contrast(draw))

    def _epidural(self, draw: Random, head: Head) -> Stroke:
        """A lens against the inner skull: the part of a large disc that reaches into the organ."""
        angle = draw.uniform(-np.pi, np.pi)
        large, into = head.radius * draw.uniform(0.25, 0.9), head.radius * draw.uniform(0.06, 0.35)
        edge = self._skull(head, angle)
        centre = (edge[0] + (large - into) * np.sin(angle), edge[1] + (large - into) * np.cos(angle))
        inside = large * (1 + 0.05 * self._canvas.clouds(draw, 20)) - self._canvas.distance(centre)
        dark = draw.random() < 0.2
        change = -draw.uniform(0.08, 0.45) if dark else max(self._contrast(draw), 0.08)
        return Stroke(soft(inside, draw.uniform(0.3, 1.2)), change)

    def _skull(self, head: Head, angle: float) -> tuple[float, float]:
        """The last point of the organ on the ray from its centre."""
        last = head.centre
        for step in range(2, self._canvas.size):
            row, column = head.centre[0] + step * np.sin(angle), head.centre[1] + step * np.cos(angle)
            if not (0 <= row < self._canvas.size and 0 <= column < self._canvas.size):
                break
            if head.organ[int(row), int(column)]:
                last = (float(row), float(column))
        return last

    def _ventricle(self, draw: Random, head: Head) -> Stroke:
        """Blood in the dark fluid inside."""
        fluid = soft(0.42 - head.calm, 0.03) * (head.depth > 0.2 * head.radius)
        centre = self._canvas.place(draw, fluid > 0.5)
        reach = soft(self._canvas.blob(draw, centre, head.radius * draw.uniform(0.1, 0.5)), 1.5)
        where = np.clip(ndimage.gaussian_filter(fluid * reach, 0.5) * 1.2, 0, 1)
        return Stroke(where, self._contrast(draw) + 0.05)

    def _subarachnoid(self, draw: Random, head: Head) -> Stroke:
        """Blood in dark sulci and cisterns of a region, or streaks near the surface."""
        centre, reach = self._canvas.place(draw, head.organ), head.radius * draw.uniform(0.12, 0.7)
        region = soft(self._canvas.blob(draw, centre, reach), 3)
        change = self._contrast(draw)
        if draw.random() < 0.5:
            where, change = soft(0.45 - head.calm, 0.03) * region, change + 0.08
        else:
            ridges = draw.uniform(0.08, 0.25) - np.abs(self._canvas.clouds(draw, draw.uniform(5, 12)))
            where = soft(ridges, 0.05) * region
            if draw.random() < 0.6:
                where = where * soft(draw.uniform(4, 14) - head.depth, 1.5)
        return Stroke(ndimage.gaussian_filter(where, draw.uniform(0.3, 0.8)), change)

    def _midline(self, draw: Random, head: Head) -> Stroke:
        """A thin line along falx or tentorium."""
        angle = draw.normal(np.pi / 2, 0.25) if draw.random() < 0.6 else draw.uniform(0, np.pi)
        centre = (
            head.centre[0] + draw.normal(0, 0.25) * head.radius,
            head.centre[1] + draw.normal(0, 0.1) * head.radius,
        )
        long = head.radius * draw.uniform(0.15, 0.6)
        along, across = self._canvas.turned(centre, angle)
        across = across + draw.normal(0, 0.004) * along**2
        half = draw.uniform(1.0, 4.0) * np.sqrt(np.clip(1 - (along / long) ** 2, 0, 1))
        return Stroke(
            soft(half - np.abs(across), draw.uniform(0.3, 1.2)) * (np.abs(along) < long), self._contrast(draw)
        )

    def _dark(self, draw: Random, head: Head) -> Stroke:
        """Oedema or infarct: dark, with soft edges."""
        radius = head.radius * log_uniform(draw, 0.08, 0.5)
        inside = self._canvas.blob(draw, self._canvas.place(draw, head.depth > 2), radius, 0.45)
        return Stroke(soft(inside, draw.uniform(0.6, 3.0)), -draw.uniform(0.05, 0.2))

    def _decoys(self, draw: Random, head: Head) -> Array:
        """What is bright in healthy heads: calcifications, streaks."""
        image = head.image.copy()
        if draw.random() < 0.3:
            for _ in range(int(draw.integers(1, 4))):
                spot = draw.uniform(0.5, 1.6) - self._canvas.distance(self._canvas.place(draw, head.organ))
                image = image + soft(spot, 0.4) * draw.uniform(0.3, 1.0)
        if draw.random() < 0.25:
            _, across = self._canvas.turned(self._canvas.place(draw, head.organ), draw.uniform(0, np.pi))
            image = image + draw.normal(0, 0.04) * np.exp(-((across / draw.uniform(2, 8)) ** 2))
        return np.asarray(image, np.float32)

    def _scanned(self, draw: Random, head: Head, image: Array) -> Array:
        """Shading, a bright or dark rim, contrast, brightness, noise."""
        if draw.random() < 0.3:
            image = image + draw.normal(0, 0.02) * self._canvas.clouds(draw, 60)
        if draw.random() < 0.3:
            image = image + draw.normal(0, 0.06) * np.exp(-head.depth / draw.uniform(0.7, 4.0))
        scanned = (image - 0.5) * draw.uniform(0.85, 1.15) + 0.5 + draw.normal(0, 0.025)
        if draw.random() < 0.4:
            scanned = scanned + draw.uniform(0, 0.05) * draw.standard_normal(image.shape)
        return np.asarray(np.clip(scanned, 0, 1) * head.organ, np.float32)
