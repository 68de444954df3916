"""The pictures on the report page: the most suspicious images large, the Series at a glance, the scale of colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import DetectionResult, Volume
from dicomnode.report import colours
from dicomnode.report.context import ReportContext
from dicomnode.report.geometry import patient_orientation, pixel_distance
from dicomnode.report.legend import position_text, region_heat
from dicomnode.report.montage import selected, thumbnails
from dicomnode.report.overlay import draw_outline, enlargement, regions_on, tinted
from dicomnode.report.page_content import ranked, source_number
from dicomnode.report.page_nearest import Pair, pair_of
from dicomnode.report.page_typeface import written
from dicomnode.report.sr_content import strongest
from dicomnode.report.window import Window, grey, windows_of

Bytes = npt.NDArray[np.uint8]
LARGE = 2
_SMALL = 12
_PROFILED = 8
_OPPOSITE = str.maketrans("LRAPHF", "RLPAFH")


@dataclass(frozen=True, slots=True)
class Shot:
    """One large picture. ``pixels``: shape (rows, columns, 3), uint8 RGB; ``aspect``: width by height in mm.

    ``caption``: which image it is; ``detail``: its score and window; ``left``, ``top``: the sides of the patient at
    these edges, "" where unknown.
    """

    pixels: Bytes
    aspect: float
    caption: str
    detail: str
    left: str = ""
    top: str = ""


@dataclass(frozen=True, slots=True)
class Gallery:
    """The pictures of a page and what their colours mean.

    ``thumbs``: montage of up to 12 images, shape (rows, columns, 3), None for a Series that is shown whole already;
    ``thumbs_text``: which they are. ``profile``: the score of each image of a long Series, None: left out;
    ``marked``: indices of images with regions. ``lowest``: heat from which colours are drawn; ``outlined``: heat
    from which a region is outlined, where the detector states it; ``pair``: a finding and what healthy tissue of the
    Series is most like it.
    """

    shots: tuple[Shot, ...]
    thumbs: Bytes | None
    thumbs_text: str
    profile: tuple[float | None, ...]
    marked: frozenset[int]
    lowest: float
    outlined: float | None
    pair: Pair | None = None


def gallery(volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext) -> Gallery:
    """The strongest two images, one per finding first, and the Series at a glance."""
    chosen_windows = windows_of(volume, headers)
    n = len(volume.planes)
    shown = selected(result, _SMALL) if n > LARGE else ()
    scores = tuple(None if plane.left_out else plane.score for plane in result.planes)
    return Gallery(
        shots=tuple(_shot(i, volume, headers, result, context, chosen_windows[i]) for i in chosen(result, LARGE)),
        thumbs=thumbnails(volume, headers, result, context, shown) if shown else None,
        thumbs_text=_which(len(shown), n),
        profile=scores if n >= _PROFILED else (),
        marked=frozenset(region.plane for finding in result.findings for region in finding.regions),
        lowest=context.display_threshold,
        outlined=region_heat(result),
        pair=pair_of(ranked(result), volume, headers, chosen_windows),
    )


def _which(shown: int, n: int) -> str:
    what = f"all {n} images" if shown == n else f"{shown} of {n} images, the most suspicious and evenly spaced ones"
    return f"The series: {what}. Number and image score (0 to 1) below each; images with regions are framed."


def chosen(result: DetectionResult, limit: int) -> tuple[int, ...]:
    """The planes to show, most suspicious first: where each finding is strongest, then by image score."""
    first = [strongest(finding).plane for finding in ranked(result)]
    looked_at = [index for index, plane in enumerate(result.planes) if not plane.left_out]
    rest = sorted(looked_at, key=lambda index: (-result.planes[index].score, index))
    return tuple(dict.fromkeys((*first, *rest)))[:limit]


def _shot(
    index: int,
    volume: Volume,
    headers: Sequence[Dataset],
    result: DetectionResult,
    context: ReportContext,
    window: Window,
) -> Shot:
    plane, header = volume.planes[index], headers[index]
    scale = enlargement(plane.shape)
    image = tinted(grey(plane.pixels, window), result.planes[index].heat, context.display_threshold, scale)
    for region in regions_on(index, result):
        draw_outline(image, region, (scale, scale), max(image.shape[:2]) / 250)
    distance = pixel_distance(plane, header) or (1.0, 1.0)
    place = position_text(plane)
    caption = f"Image {index + 1} of {len(volume.planes)} ({source_number(index, volume, headers)})"
    left, top = _edges(patient_orientation(plane, header))
    return Shot(
        image,
        plane.shape[1] * distance[1] / (plane.shape[0] * distance[0]),
        written(caption + (f", {place}" if place else "")),
        written(f"Image score {result.planes[index].score:.2f} (0 to 1). Window {window.text}, {window.origin}"),
        left,
        top,
    )


def _edges(directions: Sequence[str]) -> tuple[str, str]:
    """The patient's sides at the left and the upper edge, from where rows and columns go (PS3.3 C.7.6.1.1.1)."""
    if len(directions) != 2 or not all(directions):
        return "", ""
    return directions[0][0].translate(_OPPOSITE), directions[1][0].translate(_OPPOSITE)


def colour_bar(lowest: float) -> Bytes:
    """The colours of heat from 0 to 1, left to right, shape (1, 200, 3); grey where heat is not shown."""
    values = np.linspace(0.0, 1.0, 200)
    bar = colours.heat_colours(values, lowest)
    bar[values < lowest] = 90
    return bar[None]
