"""The grey window of the overlay: chosen once, drawn in, and stated in words (PS3.3 C.11.2.1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import Array, Plane, Volume
from dicomnode.report.anatomy import body_part
from dicomnode.report.transcribe import once

_HEAD = frozenset({"HEAD", "BRAIN", "SKULL"})
_SAMPLE = 1_000_000
_CORE = (0.5, 99.5)
"""Percentiles between which the grey values of an image count."""


@dataclass(frozen=True, slots=True)
class Window:
    """``centre`` and ``width`` in the unit of the pixels; ``origin``: where they come from, for the legend."""

    centre: float
    width: float
    unit: str
    origin: str

    @property
    def text(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"C {self.centre:g} W {self.width:g}{unit}"


def windows_of(volume: Volume, headers: Sequence[Dataset]) -> tuple[Window, ...]:
    """``windows`` of a Series by its headers, worked out once for a result set."""
    _, found = once(headers, ("windows", id(volume)), lambda: (volume, windows(volume, body_part(headers[0]))))
    return found


def windows(volume: Volume, body_part: str) -> tuple[Window, ...]:
    """One window per plane.

    The first VOI window of every plane where all of them have a usable one (some pixels lie in it); else, for all
    planes alike: CT brain 40/80 HU for a head, 40/400 HU elsewhere, other modalities 0.5 to 99.5 % of the Volume.
    """
    unit = "HU" if volume.summary.Modality == "CT" else ""
    if all(_usable(plane) for plane in volume.planes):
        return tuple(Window(*plane.window, unit, "from source") for plane in volume.planes if plane.window)
    if unit:
        head = body_part in _HEAD
        fixed = Window(40.0, 80.0, unit, "brain preset") if head else Window(40.0, 400.0, unit, "soft tissue preset")
    else:
        fixed = _percentiles(volume)
    return (fixed,) * len(volume.planes)


def _usable(plane: Plane) -> bool:
    if plane.window is None or not plane.window[1] >= 1.0:
        return False
    centre, width = plane.window
    ends = centre - width / 2, centre + width / 2
    if _reaches(_middle(plane.pixels), plane.pixels.size, *ends):
        return True
    values = _finite(plane.pixels)
    if _reaches(values, values.size, *ends):
        return True
    low, high = np.percentile(values, _CORE)
    return bool(low < centre + width / 2 and high > centre - width / 2) or low == high


def _middle(pixels: Array) -> Array:
    """A sixteenth of the rows."""
    rows = len(pixels)
    return pixels[rows * 15 // 32 : rows * 17 // 32 + 1]


def _reaches(values: Array, size: int, bottom: float, top: float) -> bool:
    """Whether the core of ``size`` pixels, of which ``values`` are some, surely lies below ``top``, above ``bottom``.

    Counting takes a tenth of the time of the percentiles: when more values are below ``top`` than the lower
    percentile leaves below itself, it is below ``top`` too. At the rank itself only the percentile can tell. Few
    values already show it in nearly every image; those that are no numbers count for nothing.
    """
    rank = (size - 1) * _CORE[0] / 100.0
    beyond = int(rank) + 2
    return int(np.count_nonzero(values < top)) >= beyond and int(np.count_nonzero(values > bottom)) >= beyond


def _percentiles(volume: Volume) -> Window:
    values = np.concatenate([_finite(plane.pixels) for plane in volume.planes])
    low, high = (float(value) for value in np.percentile(values[:: max(1, values.size // _SAMPLE)], (0.5, 99.5)))
    width = max(high - low, 1.0)
    return Window(round((low + high) / 2, 1), round(width, 1), "", "0.5 to 99.5 %")


def _finite(pixels: Array) -> Array:
    with np.errstate(invalid="ignore"):
        total = pixels.sum(dtype=np.float64)
    if np.isfinite(total):
        return pixels.ravel()
    values = pixels[np.isfinite(pixels)]
    return values if values.size else np.zeros(1, np.float32)


def grey(pixels: Array, window: Window) -> npt.NDArray[np.uint8]:
    """Pixels through the linear VOI function, 0..255 (PS3.3 C.11.2.1.2.1, y_min 0, y_max 255).

    A width below 2 is drawn as 2: the standard's formula divides by width - 1.
    """
    width = max(window.width, 2.0)
    scaled = np.asarray(pixels - (window.centre - 0.5))
    scaled /= width - 1.0
    scaled += 0.5
    scaled *= 255.0
    if np.isnan(scaled).any():
        np.nan_to_num(scaled, copy=False, nan=0.0)
    np.clip(scaled, 0.0, 255.0, out=scaled)
    values: npt.NDArray[np.uint8] = np.rint(scaled, out=scaled).astype(np.uint8)
    return values
