"""A finding beside the nearest healthy patch of its own Series: two small pictures and their figures in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import Finding, NearestHealthy, Volume
from dicomnode.report import colours
from dicomnode.report.geometry import pixel_distance
from dicomnode.report.page_typeface import written
from dicomnode.report.window import Window, grey

Bytes = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
_WIDTH = 200
_AROUND = 2.0


@dataclass(frozen=True, slots=True)
class Pair:
    """``finding``, ``healthy``: RGB pictures, shape (rows, columns, 3), uint8, of equal size; the patch is framed.

    ``title``: of which finding; ``text``: where the healthy patch is and how far off.
    """

    finding: Bytes
    healthy: Bytes
    title: str
    text: str


def pair_of(
    findings: Sequence[Finding], volume: Volume, headers: Sequence[Dataset], chosen: Sequence[Window]
) -> Pair | None:
    """The pair of the first finding that has one. ``chosen``: the window of every plane."""
    for finding in findings:
        nearest = finding.nearest
        if nearest is not None:
            first, second = (_picture(volume, headers, index, box, chosen[index]) for index, box in _places(nearest))
            name = finding.label or finding.tracking_id
            return Pair(first, second, written(f"{name}, nearest healthy patch"), written(_short(nearest, volume)))
    return None


def _short(nearest: NearestHealthy, volume: Volume) -> str:
    column, row = nearest.centre
    return (
        f"Difference {nearest.distance:.2f}, usual between healthy patches {nearest.usual:.2f} (median), in standard "
        f"deviations of the organ. Right: image {nearest.plane + 1} of {len(volume.planes)}, column {column:.0f}, "
        f"row {row:.0f}."
    )


def _places(nearest: NearestHealthy) -> tuple[tuple[int, Box], tuple[int, Box]]:
    return (nearest.finding_plane, nearest.finding_box), (nearest.plane, nearest.box)


def _picture(volume: Volume, headers: Sequence[Dataset], index: int, box: Box, window: Window) -> Bytes:
    """The patch with its surroundings, twice as wide, framed; what lies outside the image is black."""
    plane = volume.planes[index]
    down, across = pixel_distance(plane, headers[index]) or (1.0, 1.0)
    width, height = box[2] - box[0], box[3] - box[1]
    margin = (_AROUND - 1.0) / 2.0
    around = (
        box[0] - margin * width, box[1] - margin * height, box[2] + margin * width, box[3] + margin * height,
    )  # fmt: skip
    tall = round(_WIDTH * min(max(height * down / (width * across), 0.5), 2.0))
    whole = Image.fromarray(grey(plane.pixels, window))
    part = whole.transform((_WIDTH, tall), Image.Transform.EXTENT, around, Image.Resampling.BILINEAR)
    picture = part.convert("RGB")
    edge = (1.0 - 1.0 / _AROUND) / 2.0
    frame = (edge * _WIDTH, edge * tall, (1.0 - edge) * _WIDTH, (1.0 - edge) * tall)
    ImageDraw.Draw(picture).rectangle(frame, outline=colours.CONTOUR, width=3)
    return np.asarray(picture)
