"""Stored values to what a detector sees: Modality LUT, padding, polarity (PS3.3 C.11.1, C.7.5.1.1.2, C.7.6.3.1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from dicomnode.detect.pixels_codec import PixelFormat, Stored
from dicomnode.detect.volume_header import integer, items, number, numbers, text, values
from dicomnode.detect.volume_terms import MALFORMED, NotAnalysable
from dicomnode.detectors.contract import Array, Mask

Real = npt.NDArray[np.floating[Any]]
_EXACT_IN_FLOAT32 = float(1 << 24)
_AIR_HU, _LEAST_HU = -1000.0, -1024.0


@dataclass(frozen=True, slots=True)
class Rescale:
    """The linear Modality LUT: output = slope x stored + intercept (PS3.3 C.11.1.1.2)."""

    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A Modality LUT Sequence item: ``first`` is the stored value of the first entry (PS3.3 C.11.1.1.1)."""

    first: int
    entries: tuple[int, ...]


ModalityLUT = Rescale | LookupTable


@dataclass(frozen=True, slots=True, eq=False)
class Grey:
    """An image as a Plane wants it, with the range that its stored bits can express."""

    pixels: Array
    stored_min: float
    stored_max: float


def linear_rescale(dataset: Dataset) -> Rescale | None:
    """Rescale Slope and Intercept of a Data Set or of a Pixel Value Transformation item, or None.

    Raises NotAnalysable for a slope of zero, which leaves no image.
    """
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if slope is None or intercept is None:
        return None
    if slope == 0:
        raise NotAnalysable("an image has a Rescale Slope of zero")
    return Rescale(slope, intercept)


def modality_lut(header: Dataset, form: PixelFormat) -> ModalityLUT:
    """The Modality LUT of a single-frame image; the identity when it has none.

    Raises NotAnalysable for a table that does not agree with its descriptor.
    """
    tables = items(header, "ModalityLUTSequence")
    return _lookup_table(tables[0], form) if tables else linear_rescale(header) or Rescale()


def _lookup_table(item: Dataset, form: PixelFormat) -> LookupTable:
    descriptor, data = numbers(item, "LUTDescriptor", 3), values(item, "LUTData")
    if descriptor is None or not data:
        raise NotAnalysable("the Modality LUT of an image is incomplete")
    count, first = int(descriptor[0]) or 1 << 16, int(descriptor[1])
    if form.signed and first >= 1 << 15:
        first -= 1 << 16
    try:
        if isinstance(data[0], bytes):
            words = np.frombuffer(data[0], "<u2", count=count)
        else:
            words = np.asarray(data, dtype=np.uint16)
    except MALFORMED as error:
        raise NotAnalysable("the Modality LUT of an image is not readable") from error
    if len(words) != count:
        raise NotAnalysable("the Modality LUT of an image has another length than its descriptor says")
    return LookupTable(first, tuple(int(word) for word in words))


def apply_lut(stored: Stored, lut: ModalityLUT, kind: type[np.floating[Any]] = np.float64) -> Real:
    """Output values of the shape of ``stored``; outside a table its end entries hold (PS3.3 C.11.1.1.1).

    ``kind``: what a Rescale is computed in and gives.
    """
    if isinstance(lut, Rescale):
        output = stored.astype(kind)
        if lut != Rescale():
            output *= lut.slope
            output += lut.intercept
        return output
    index = np.clip(stored.astype(np.int64) - lut.first, 0, len(lut.entries) - 1)
    return np.asarray(lut.entries, dtype=np.float64)[index]


def expressible_range(form: PixelFormat, lut: ModalityLUT) -> tuple[float, float]:
    """(least, greatest) output value that the stored bits can express."""
    if isinstance(lut, LookupTable):
        return float(min(lut.entries)), float(max(lut.entries))
    ends = [end * lut.slope + lut.intercept for end in form.stored_range]
    return min(ends), max(ends)


def _exact_in(form: PixelFormat, lut: ModalityLUT) -> type[np.floating[Any]]:
    """float32 where every step of the rescale is a whole number that it holds, as in most CT: half of the time."""
    if isinstance(lut, LookupTable) or not (lut.slope.is_integer() and lut.intercept.is_integer()):
        return np.float64
    product = abs(lut.slope) * (1 << max(16, form.bits_allocated))  # a codec may give more than Bits Stored
    return np.float32 if 2 * (product + abs(lut.intercept)) <= _EXACT_IN_FLOAT32 else np.float64


def padding_mask(header: Dataset, form: PixelFormat, stored: Stored, words: Stored) -> Mask:
    """True where a pixel is padding: Pixel Padding Value, up to the Range Limit when there is one.

    A value written with the wrong VR (US for SS) is read in the sense of Pixel Representation. A value that Bits
    Stored cannot hold is looked for in the whole words.
    """
    value = integer(header, "PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    limit = integer(header, "PixelPaddingRangeLimit")
    ends = sorted(_in_sense_of(form, end) for end in (value, value if limit is None else limit))
    least, greatest = form.stored_range
    where = stored if least <= ends[0] and ends[1] <= greatest else words
    if ends[1] < where.min() or where.max() < ends[0]:
        return np.zeros(stored.shape, dtype=np.bool_)
    mask: Mask = (where >= ends[0]) & (where <= ends[1])
    return mask


def _in_sense_of(form: PixelFormat, value: int) -> int:
    size = 1 << form.bits_allocated
    value %= size
    return value - size if form.signed and value >= size // 2 else value


def is_inverted(header: Dataset) -> bool:
    """Whether the image is to be inverted to have the MONOCHROME2 sense.

    CT is never: its values are HU whatever the display polarity.
    """
    return text(header, "PhotometricInterpretation") == "MONOCHROME1" and text(header, "Modality") != "CT"


def to_grey(header: Dataset, form: PixelFormat, lut: ModalityLUT, frame: tuple[Stored, Stored]) -> Grey:
    """Modality LUT, then MONOCHROME1 inversion, then padding to background.

    Inversion is x -> least + greatest - x over the range that the stored bits can express after the Modality LUT,
    so stored_min and stored_max stay what they were. Padding becomes the least value of the other pixels. In CT
    values below -1024 HU count as padding too (fill without a tag, or smeared by lossy compression), and padding
    becomes air, -1000 HU, when the image reaches that low.
    """
    stored, words = frame
    output = apply_lut(stored, lut, _exact_in(form, lut))
    least, greatest = expressible_range(form, lut)
    if is_inverted(header):
        output = least + greatest - output
    is_ct = text(header, "Modality") == "CT"
    padding = padding_mask(header, form, stored, words)
    if is_ct and output.min() < _LEAST_HU:
        padding = padding | (output < _LEAST_HU)
    if padding.any():
        output[padding] = _background(output[~padding], _AIR_HU if is_ct else least)
    return Grey(output.astype(np.float32, copy=False), least, greatest)


def _background(image: Real, floor: float) -> float:
    return max(float(image.min()), floor) if image.size else floor


def first_window(dataset: Dataset) -> tuple[float, float] | None:
    """(centre, width) of the first VOI window with a usable width (PS3.3 C.11.2.1.2), or None."""
    centre, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    return (centre, width) if centre is not None and width is not None and width > 0 else None


def inverted_window(window: tuple[float, float], ends: Sequence[float], *, linear: bool) -> tuple[float, float]:
    """The window of the inverted image. The LINEAR function is symmetric about centre - 0.5 (PS3.3 C.11.2.1.2.1)."""
    return ends[0] + ends[1] - window[0] + (1.0 if linear else 0.0), window[1]
