"""Secondary Capture pictures: one per plane, many in one, and the page (PS3.3 A.8, C.8.6; own rules)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicomnode.report.geometry import DIRECTIONS
from dicomnode.report.patterns import tag_of, value_of
from dicomnode.report.selfcheck.case import Case
from dicomnode.report.selfcheck.coded import first
from dicomnode.report.selfcheck.pixels import frames

_PICTURE = {
    "PhotometricInterpretation": "RGB",
    "SamplesPerPixel": 3,
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "PixelRepresentation": 0,
    "ConversionType": "WSD",
    "BurnedInAnnotation": "YES",
}
_GREY = (
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTSequence",
    "VOILUTFunction",
    "PresentationLUTShape",
    "PresentationLUTSequence",
)
_GEOMETRY = (
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "PixelSpacing",
)
_GROUPS = frozenset({"PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence"})
_PER_FRAME = "PerFrameFunctionalGroupsSequence"
_PER_FRAME_TAG = 0x52009230


def capture_faults(kind: str, dataset: Dataset, case: Case) -> Iterator[str]:
    """What is wrong with a Secondary Capture; ``kind``: "sc", "mf-sc" or "page"."""
    for keyword, value in _PICTURE.items():
        if value_of(dataset, keyword) != value:
            yield f"{keyword}: pictures of results have {value}"
    for keyword in _GREY:
        if tag_of(keyword) in dataset:
            yield f"{keyword}: no rescale, VOI or presentation LUT on RGB"
    if [str(one) for one in value_of(dataset, "ImageType") or ()][:2] != ["DERIVED", "SECONDARY"]:
        yield "ImageType: starts with DERIVED\\SECONDARY (PS3.3 C.7.6.1.1.2)"
    if value_of(dataset, "RecognizableVisualFeatures") not in ("YES", "NO"):
        yield "RecognizableVisualFeatures: YES or NO (PS3.3 C.7.6.1)"
    if case.context.banner not in str(value_of(dataset, "ImageComments") or ""):
        yield "ImageComments: do not have the research banner"
    yield from _orientation(dataset)
    yield from _derivation(kind, dataset, case)
    if kind == "mf-sc":
        yield from _multi_frame(dataset)
    elif "NumberOfFrames" in dataset:
        yield "NumberOfFrames: does not belong in a single-frame Secondary Capture"


def _orientation(dataset: Dataset) -> Iterator[str]:
    if "PatientOrientation" not in dataset:
        yield "PatientOrientation: missing, Type 2C (PS3.3 C.7.6.1)"
        return
    values = dataset.PatientOrientation or []
    if values and (len(values) != 2 or not all(DIRECTIONS.match(str(one)) for one in values)):
        yield "PatientOrientation: empty, or the directions of rows and columns (PS3.3 C.7.6.1.1.1)"


def _derivation(kind: str, dataset: Dataset, case: Case) -> Iterator[str]:
    if case.context.banner not in str(value_of(dataset, "DerivationDescription") or ""):
        yield "DerivationDescription: missing, or without the research banner"
    if not value_of(dataset, "DerivationCodeSequence") and kind != "page":
        yield "DerivationCodeSequence: missing, the picture is derived (PS3.3 C.7.6.1.1.3)"
    items = value_of(dataset, "SourceImageSequence") or ()
    if not items and (kind != "page" or len(case.classes) > 0):
        yield "SourceImageSequence: missing, the picture is derived (PS3.3 C.7.6.1.1.4)"
    if any(value_of(item, "SpatialLocationsPreserved") == "NO" for item in items):
        yield from _no_geometry(dataset)
    for n, item in enumerate(items, 1):
        name = f"SourceImageSequence[{n}]"
        if first(item, "PurposeOfReferenceCodeSequence") != ("121322", "DCM"):
            yield f"{name}.PurposeOfReferenceCodeSequence: not (121322, DCM)"
        preserved = value_of(item, "SpatialLocationsPreserved")
        if preserved not in ("YES", "NO") and kind != "page":
            yield f"{name}.SpatialLocationsPreserved: YES or NO (PS3.3 C.7.6.1)"


def _no_geometry(dataset: Dataset) -> Iterator[str]:
    for keyword in _GEOMETRY:
        if tag_of(keyword) in dataset:
            yield f"{keyword}: the pixel grid was changed, geometry of the source does not hold"


def _multi_frame(dataset: Dataset) -> Iterator[str]:
    """PS3.3 C.8.6.3, C.7.6.6, A.8.5.4."""
    count = frames(dataset)
    pointer = value_of(dataset, "FrameIncrementPointer")
    if pointer is None:
        if count > 1:
            yield "FrameIncrementPointer: missing (PS3.3 C.8.6.3, Type 1C)"
    elif pointer not in dataset:
        yield "FrameIncrementPointer: points at an attribute that is not there (PS3.3 C.7.6.6)"
    elif pointer != _PER_FRAME_TAG and len(dataset[pointer].value or ()) != count and count > 1:
        yield "FrameIncrementPointer: points at a vector of another length than NumberOfFrames"
    groups = value_of(dataset, _PER_FRAME)
    if groups is not None and len(groups) != count:
        yield f"{_PER_FRAME}: one item per frame (PS3.3 C.7.6.16)"
    yield from _all_groups(dataset)
    for keyword in ("SharedFunctionalGroupsSequence", _PER_FRAME):
        for n, item in enumerate(value_of(dataset, keyword) or (), 1):
            for element in item:
                if element.keyword not in _GROUPS:
                    yield f"{keyword}[{n}].{element.keyword}: not a functional group of this IOD (PS3.3 A.8.5.4)"


def _all_groups(dataset: Dataset) -> Iterator[str]:
    """A frame that lies in the patient says where, in which direction and how large its pixels are."""
    shared = {element.keyword for item in value_of(dataset, "SharedFunctionalGroupsSequence") or () for element in item}
    for n, item in enumerate(value_of(dataset, _PER_FRAME) or (), 1):
        for keyword in sorted(_GROUPS):
            if keyword not in item and keyword not in shared:
                yield f"{_PER_FRAME}[{n}].{keyword}: missing (PS3.3 A.8.5.4)"
