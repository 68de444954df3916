"""Pixels of any of our images: description, length, lossy history, spacing (PS3.3 C.7.6.1, C.7.6.3, C.7.6.16, 10.7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset

from dicomnode.report.patterns import tag_of, value_of
from dicomnode.report.selfcheck import tables
from dicomnode.report.selfcheck.case import Case, as_text
from dicomnode.report.selfcheck.level import Level

_STORED = {
    tables.SECONDARY_CAPTURE: "PixelData",
    tables.MULTI_FRAME_SECONDARY_CAPTURE: "PixelData",
    tables.SEGMENTATION: "PixelData",
    tables.PARAMETRIC_MAP: "FloatPixelData",
}
_ANY_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData", "PixelDataProviderURL")
_FACTORS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_CALIBRATION = ("PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription")


def pixel_faults(dataset: Dataset, level: Level, case: Case) -> Iterator[str]:
    """What the Image Pixel Module demands by condition, and where spacing and lossy history come from."""
    stored = _STORED.get(str(value_of(dataset, "SOPClassUID")))
    for keyword in _ANY_PIXELS:
        if (tag_of(keyword) in dataset) != (keyword == stored):
            yield f"{keyword}: {'missing' if keyword == stored else 'does not belong in this kind of result'}"
    if stored is None:
        return
    if stored in dataset:
        yield from _length(dataset, stored)
    yield from _bits(dataset)
    source = case.source_of(dataset)
    yield from _lossy(dataset, case)
    yield from _ratio(dataset)
    yield from _spacing(level, source)


def frames(dataset: Dataset) -> int:
    """Number of Frames (0028,0008), 1 where it is absent or no number."""
    text = str(value_of(dataset, "NumberOfFrames") or "1")
    return int(text) if text.isdigit() else 1


def _length(dataset: Dataset, keyword: str) -> Iterator[str]:
    """PS3.5 8.1.1: all bits of all frames, padded to an even number of bytes."""
    factors = [value_of(dataset, one) for one in _FACTORS]
    data = dataset[keyword].value
    if not all(isinstance(one, int) for one in factors) or getattr(dataset[keyword], "is_undefined_length", False):
        return
    rows, columns, samples, bits = factors
    needed = (rows * columns * samples * bits * frames(dataset) + 7) // 8
    if not isinstance(data, bytes) or len(data) != needed + needed % 2:
        yield f"{keyword}: its length is not Rows x Columns x SamplesPerPixel x BitsAllocated x NumberOfFrames, padded"


def _bits(dataset: Dataset) -> Iterator[str]:
    colour = (value_of(dataset, "SamplesPerPixel") or 1) > 1
    if colour != ("PlanarConfiguration" in dataset):
        yield "PlanarConfiguration: present exactly if SamplesPerPixel is greater than 1 (PS3.3 C.7.6.3, Type 1C)"
    allocated, stored, high = (value_of(dataset, one) for one in ("BitsAllocated", "BitsStored", "HighBit"))
    if stored is not None and (high != stored - 1 or stored > (allocated or 0)):
        yield "HighBit: not BitsStored - 1, or more bits stored than allocated (PS3.3 C.7.6.3)"


def _lossy(dataset: Dataset, case: Case) -> Iterator[str]:
    """PS3.3 C.7.6.1.1.5: once lossy, always lossy."""
    sources = [one for one in case.sources_of(dataset) if value_of(one, "LossyImageCompression") == "01"]
    own = value_of(dataset, "LossyImageCompression")
    if own not in ("00", "01"):
        yield 'LossyImageCompression: "00" or "01" (PS3.3 C.7.6.1.1.5)'
    if sources and own != "01":
        yield 'LossyImageCompression: the source is lossy, "01" stays "01" (PS3.3 C.7.6.1.1.5)'
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        stated = {as_text(value_of(one, keyword)) for one in sources}
        if stated - {""} and as_text(value_of(dataset, keyword)) not in stated:
            yield f"{keyword}: the source's history is missing or altered (PS3.3 C.7.6.1.1.5)"


def _ratio(dataset: Dataset) -> Iterator[str]:
    if "PixelAspectRatio" in dataset and "PixelSpacing" in dataset:
        yield "PixelAspectRatio: not together with PixelSpacing (PS3.3 C.7.6.3.1.7)"
    if "NominalScannedPixelSpacing" in dataset:
        yield "NominalScannedPixelSpacing: is no spacing in the patient, nothing was scanned from film"


def _spacing(level: Level, source: Dataset) -> Iterator[str]:
    """Pixel Spacing, at any depth, is the source's; Imager Pixel Spacing never becomes one (PS3.3 10.7.1.3)."""
    for one in level.below():
        own = one.elements.get("PixelSpacing")
        if own is not None and not _states_spacing(source):
            yield f"{one.path}PixelSpacing: the source has none (ImagerPixelSpacing is at the detector)"
        elif own is not None and not _same_spacing(own.value, source):
            yield f"{one.path}PixelSpacing: differs from that of the source"
    if "PixelSpacing" in level.elements:
        for keyword in _CALIBRATION:
            own = level.elements.get(keyword)
            if as_text(own.value if own else None) != as_text(value_of(source, keyword)):
                yield f"{keyword}: goes with PixelSpacing, as the source states it (PS3.3 10.7.1.1)"


def _states_spacing(source: Dataset) -> bool:
    if value_of(source, "PixelSpacing"):
        return True
    groups = [
        item
        for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        for item in value_of(source, keyword) or ()
    ]
    if groups:
        return any("PixelMeasuresSequence" in item for item in groups)
    return "NumberOfFrames" in source and "ImagerPixelSpacing" not in source


def _same_spacing(value: Any, source: Dataset) -> bool:
    stated = value_of(source, "PixelSpacing")
    if not stated:
        return True
    try:
        own, theirs = ([float(one) for one in values] for values in (value, stated))
    except (TypeError, ValueError):
        return as_text(value) == as_text(stated)
    return len(own) == len(theirs) and all(abs(a - b) <= 1e-4 * abs(b) for a, b in zip(own, theirs, strict=True))
