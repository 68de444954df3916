"""Segmentations and Parametric Maps: frames, segments, what the values mean (PS3.3 A.51, A.75, C.8.20, C.8.32)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset

from dicomnode.report.selfcheck.case import Case
from dicomnode.report.selfcheck.coded import first
from dicomnode.report.selfcheck.pixels import frames

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_FOR_ALL = {
    "BurnedInAnnotation": "NO",
    "PhotometricInterpretation": "MONOCHROME2",
    "SamplesPerPixel": 1,
}
_SEG = {"SegmentationType": "BINARY", "BitsAllocated": 1, "BitsStored": 1, "PixelRepresentation": 0}
_FIRST, _LAST = "DoubleFloatRealWorldValueFirstValueMapped", "DoubleFloatRealWorldValueLastValueMapped"
_HEAT = ("ANOMALY_HEAT", "99DICOMNODE")


def segmentation_faults(dataset: Dataset, case: Case) -> Iterator[str]:
    """What is wrong with a Segmentation."""
    for keyword, value in _SEG.items():
        if dataset.get(keyword) != value:
            yield f"{keyword}: segmentations of results have {value} (viewers refuse others)"
    yield from _frames(dataset, case, ("SegmentIdentificationSequence",))
    segments = dataset.get("SegmentSequence") or ()
    for n, item in enumerate(segments, 1):
        yield from _segment(n, item, case)
    yield from _numbers(dataset, len(segments))
    yield from _empty_frames(dataset)


def _segment(n: int, item: Dataset, case: Case) -> Iterator[str]:
    name = f"SegmentSequence[{n}]"
    if item.get("SegmentNumber") != n:
        yield f"{name}.SegmentNumber: segments count from 1 in steps of 1 (PS3.3 C.8.20.2.3)"
    if item.get("SegmentAlgorithmType") != "AUTOMATIC":
        yield f"{name}.SegmentAlgorithmType: not AUTOMATIC"
    if not item.get("SegmentAlgorithmName"):
        yield f"{name}.SegmentAlgorithmName: missing, Type 1C (PS3.3 C.8.20.2)"
    if not item.get("SegmentationAlgorithmIdentificationSequence"):
        yield f"{name}.SegmentationAlgorithmIdentificationSequence: missing (IHE AIR)"
    if "RecommendedDisplayCIELabValue" not in item:
        yield f"{name}.RecommendedDisplayCIELabValue: missing"
    identifier = item.get("TrackingID")
    if not identifier or not item.get("TrackingUID"):
        yield f"{name}.TrackingUID: TrackingID and TrackingUID go together and are missing (IHE AIR)"
    elif str(item.TrackingUID) != case.uids.tracking(str(identifier)):
        yield f"{name}.TrackingUID: not the one of its TrackingID in this result set"


def _numbers(dataset: Dataset, count: int) -> Iterator[str]:
    used = set()
    for n, item in enumerate(dataset.get(PER_FRAME) or (), 1):
        for identification in item.get("SegmentIdentificationSequence") or ():
            number = identification.get("ReferencedSegmentNumber")
            used.add(number)
            if not isinstance(number, int) or not 1 <= number <= count:
                yield f"{PER_FRAME}[{n}].ReferencedSegmentNumber: no such segment (PS3.3 C.8.20.3.1)"
    if used != set(range(1, count + 1)):
        yield "SegmentSequence: a segment has no frame"


def _empty_frames(dataset: Dataset) -> Iterator[str]:
    rows, columns, data = (dataset.get(one) for one in ("Rows", "Columns", "PixelData"))
    if not isinstance(rows, int) or not isinstance(columns, int) or not isinstance(data, bytes):
        return
    bits, size = int.from_bytes(data, "little") if len(data) < 1 << 16 else None, rows * columns
    for n in range(frames(dataset)):
        start, stop = n * size, (n + 1) * size
        if bits is None:
            inner = data[(start + 7) // 8 : stop // 8].strip(b"\0")
            empty = not inner and not _edge_bits(data, start, stop)
        else:
            empty = not (bits >> start) & ((1 << size) - 1)
        if empty:
            yield f"PixelData: frame {n + 1} is empty, frames without a segment are left out"


def _edge_bits(data: bytes, start: int, stop: int) -> bool:
    """Whether one of the bits before the first and after the last whole byte of a frame is set."""
    edges = [*range(start, min(-(-start // 8) * 8, stop)), *range(max(stop // 8 * 8, start), stop)]
    return any(data[bit // 8] >> (bit % 8) & 1 for bit in edges if bit // 8 < len(data))


def parametric_map_faults(dataset: Dataset, case: Case) -> Iterator[str]:
    """What is wrong with a Parametric Map."""
    yield from _frames(dataset, case, ())
    yield from _heat(dataset)
    if dataset.get("BitsAllocated") != 32:
        yield "BitsAllocated: 32 for float pixels (PS3.3 C.7.6.24)"
    if dataset.get("ContentQualification") != "RESEARCH":
        yield "ContentQualification: not RESEARCH"
    if dataset.get("PresentationLUTShape") != "IDENTITY":
        yield "PresentationLUTShape: not IDENTITY (PS3.3 C.8.32.2)"
    shared = (dataset.get(SHARED) or [Dataset()])[0]
    for keyword in ("RealWorldValueMappingSequence", "FrameVOILUTSequence", "PixelValueTransformationSequence"):
        if keyword not in shared:
            yield f"{SHARED}[1].{keyword}: missing (PS3.3 A.75.4)"
    if "ParametricMapFrameTypeSequence" not in shared:
        yield f"{SHARED}[1].ParametricMapFrameTypeSequence: missing (PS3.3 A.75.4)"
    for item in shared.get("RealWorldValueMappingSequence") or ():
        yield from _mapping(item)
    for item in shared.get("FrameVOILUTSequence") or ():
        if (_number(item, "WindowCenter"), _number(item, "WindowWidth")) != (0.5, 1.0):
            yield f"{SHARED}[1].FrameVOILUTSequence[1].WindowCenter, WindowWidth: not 0.5 and 1"


def _heat(dataset: Dataset) -> Iterator[str]:
    """Heat is 0 to 1; what has none is padding (PS3.3 C.7.6.24)."""
    data, padding = dataset.get("FloatPixelData"), dataset.get("FloatPixelPaddingValue")
    if not isinstance(data, bytes) or len(data) % 4:
        return
    values = np.frombuffer(data, "<f4")
    fine = (values >= 0.0) & (values <= 1.0)
    if padding is not None:
        fine |= values == np.float32(padding)
    if not fine.all():
        yield "FloatPixelData: heat that is neither 0 to 1 nor padding"


def _mapping(item: Dataset) -> Iterator[str]:
    name = f"{SHARED}[1].RealWorldValueMappingSequence[1]"
    limits = (
        _number(item, _FIRST),
        _number(item, _LAST),
    )
    if limits != (0.0, 1.0):
        yield f"{name}.{_FIRST}, {_LAST}: not 0 to 1 (PS3.3 C.7.6.16.2.11)"
    if (_number(item, "RealWorldValueSlope"), _number(item, "RealWorldValueIntercept")) != (1.0, 0.0):
        yield f"{name}.RealWorldValueSlope: slope 1 and intercept 0, pixels are heat as it is"
    quantities = [first(one, "ConceptCodeSequence") for one in item.get("QuantityDefinitionSequence") or ()]
    if _HEAT not in quantities:
        yield f"{name}.QuantityDefinitionSequence: does not say which quantity the values are"


def _number(item: Dataset, keyword: str) -> float | None:
    value = item.get(keyword)
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _frames(dataset: Dataset, case: Case, groups: tuple[str, ...]) -> Iterator[str]:
    """Functional groups and references that segments and maps share (PS3.3 C.7.6.16, C.12.2)."""
    for keyword, value in _FOR_ALL.items():
        if keyword in dataset and dataset.get(keyword) != value:
            yield f"{keyword}: not {value}"
    if [str(one) for one in dataset.get("ImageType") or ()][:2] != ["DERIVED", "PRIMARY"]:
        yield "ImageType: starts with DERIVED\\PRIMARY (PS3.3 C.8.20.2, C.8.32.2)"
    if "RESEARCH" not in str(dataset.get("ContentDescription") or "").upper():
        yield "ContentDescription: does not say RESEARCH"
    per_frame = dataset.get(PER_FRAME) or ()
    shared = (dataset.get(SHARED) or [Dataset()])[0]
    if len(per_frame) != frames(dataset):
        yield f"{PER_FRAME}: one item per frame (PS3.3 C.7.6.16)"
    needed = (*groups, "FrameContentSequence", "DerivationImageSequence", "PixelMeasuresSequence")
    needed += ("PlaneOrientationSequence",)
    needed += ("PlanePositionSequence",) if "FrameOfReferenceUID" in dataset else ()
    for n, item in enumerate(per_frame, 1):
        for keyword in needed:
            if keyword not in item and keyword not in shared:
                yield f"{PER_FRAME}[{n}].{keyword}: missing (PS3.3 A.51.5, A.75.4)"
            elif keyword in item and keyword in shared:
                yield f"{PER_FRAME}[{n}].{keyword}: shared as well as per frame (PS3.3 C.7.6.16.1.1)"
        yield from _derivation(n, item)
    yield from _dimensions(dataset)
    yield from _referenced_series(dataset, case)


def _derivation(n: int, item: Dataset) -> Iterator[str]:
    for derivation in item.get("DerivationImageSequence") or ():
        for image in derivation.get("SourceImageSequence") or ():
            if first(image, "PurposeOfReferenceCodeSequence") != ("121322", "DCM"):
                yield f"{PER_FRAME}[{n}].PurposeOfReferenceCodeSequence: not (121322, DCM)"


def _dimensions(dataset: Dataset) -> Iterator[str]:
    """PS3.3 C.7.6.17."""
    indices = dataset.get("DimensionIndexSequence") or ()
    organizations = {
        item.get("DimensionOrganizationUID") for item in dataset.get("DimensionOrganizationSequence") or ()
    }
    for n, item in enumerate(indices, 1):
        if item.get("DimensionOrganizationUID") not in organizations:
            yield f"DimensionIndexSequence[{n}].DimensionOrganizationUID: not declared (PS3.3 C.7.6.17)"
    for n, item in enumerate(dataset.get(PER_FRAME) or (), 1):
        for frame in item.get("FrameContentSequence") or ():
            values = frame.get("DimensionIndexValues")
            count = 0 if values is None else 1 if isinstance(values, int) else len(values)
            if count != len(indices):
                yield f"{PER_FRAME}[{n}].DimensionIndexValues: one per dimension (PS3.3 C.7.6.16.2.2, Type 1C)"


def _referenced_series(dataset: Dataset, case: Case) -> Iterator[str]:
    """PS3.3 C.12.2: viewers find the images to lie on here."""
    listed = {
        str(instance.get("ReferencedSOPInstanceUID"))
        for series in dataset.get("ReferencedSeriesSequence") or ()
        for instance in series.get("ReferencedInstanceSequence") or ()
    }
    if not listed:
        yield "ReferencedSeriesSequence: missing, Type 1C (PS3.3 C.12.2)"
    for n, item in enumerate(dataset.get(PER_FRAME) or (), 1):
        for derivation in item.get("DerivationImageSequence") or ():
            for image in derivation.get("SourceImageSequence") or ():
                uid = str(image.get("ReferencedSOPInstanceUID"))
                if uid not in listed or uid not in case.classes:
                    yield f"{PER_FRAME}[{n}].SourceImageSequence: not in ReferencedSeriesSequence, or not a source"
