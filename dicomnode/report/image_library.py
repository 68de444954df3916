"""TID 1600 Image Library: every analysed image, described by what its header states (PS3.16 TID 1601 to 1604)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    RelationshipTypeValues,
    UIDRefContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.sr.coding import Code

from dicomnode.detectors.contract import Plane
from dicomnode.dicom.references import InstanceReference
from dicomnode.report import codes
from dicomnode.report.evidence import instance_item
from dicomnode.report.geometry import decimal, number, pixel_distance
from dicomnode.report.patterns import element, like
from dicomnode.report.transcribe import once, said

_CONTEXT = RelationshipTypeValues.HAS_ACQ_CONTEXT
_PIXELS = Code("{pixels}", "UCUM", "Pixels")
_COSINE = Code("{-1:1}", "UCUM", "{-1:1}")
_MM = standard.UCUM.Millimeter
_POSITION = tuple(getattr(standard.DCM, f"ImagePositionPatient{axis}") for axis in "XYZ")
_ORIENTATION = tuple(
    getattr(standard.DCM, f"ImageOrientationPatient{side}{axis}") for side in ("Row", "Column") for axis in "XYZ"
)
_READ = ("Modality", "FrameOfReferenceUID", "ImagerPixelSpacing", "SliceThickness")
"""What the descriptors of an image are read from, beside its plane."""

_MODALITIES = {
    "CT": standard.DCM.ComputedTomography,
    "MR": standard.DCM.MagneticResonance,
    "CR": standard.DCM.ComputedRadiography,
    "DX": standard.DCM.DigitalRadiography,
    "MG": standard.DCM.Mammography,
    "PT": standard.DCM.PositronEmissionTomography,
    "NM": standard.DCM.NuclearMedicine,
    "US": standard.DCM.Ultrasound,
    "RF": standard.DCM.Radiofluoroscopy,
    "XA": standard.DCM.XRayAngiography,
    "RG": standard.DCM.RadiographicImaging,
}


@dataclass(frozen=True, slots=True)
class _Descriptor:
    """One statement about an image; equal ones of all images move up to the group."""

    name: Code
    value: float | str | Code
    unit: Code = _PIXELS

    def item(self) -> ContentItem:
        if isinstance(self.value, Code):
            return CodeContentItem(self.name, self.value, _CONTEXT)
        if isinstance(self.value, str):
            return UIDRefContentItem(self.name, self.value, _CONTEXT)
        number = NumContentItem(self.name, self.value, self.unit, relationship_type=_CONTEXT)
        number.MeasuredValueSequence[0].NumericValue = decimal(self.value)
        return number


def image_library(planes: Sequence[Plane], headers: Sequence[Dataset]) -> ContainerContentItem:
    """The "Image Library" container (111028, DCM) with one group and one entry per source Instance.

    It is made once for a result set: every document holds the same one, so nobody may change it.
    """
    _, made = once(headers, ("image library", id(planes)), lambda: (planes, _image_library(planes, headers)))
    return made


def _image_library(planes: Sequence[Plane], headers: Sequence[Dataset]) -> ContainerContentItem:
    described = _described(planes, headers)
    named = [{one.name.value: one for one in own} for own in described.values()]
    common = [
        one
        for one in next(iter(described.values()))
        if all((own.get(one.name.value) is one) or (own.get(one.name.value) == one) for own in named)
    ]
    group = _container(codes.IMAGE_LIBRARY_GROUP, [one.item() for one in common])
    shared = frozenset(one.name.value for one in common)
    entries = _Entries(headers)
    made = [
        entries.entry(source, [one for one in own if one.name.value not in shared]) for source, own in described.items()
    ]
    library = _container(codes.IMAGE_LIBRARY, [])
    whole = like(group, element("ContentSequence", "SQ", [*group.ContentSequence, *made]))
    library.add(element("ContentSequence", "SQ", [whole]))
    return library


def _container(name: Code, children: Iterable[ContentItem]) -> ContainerContentItem:
    container = ContainerContentItem(name, relationship_type=RelationshipTypeValues.CONTAINS)
    container.ContentSequence = ContentSequence(list(children))
    return container


class _Entries:
    """Makes the entries: one is built as a pattern, the others differ from it in UIDs and numbers only.

    A Series of 1000 images has as many entries with some numbers each; what is the same in all of them is shared.
    """

    def __init__(self, headers: Sequence[Dataset]) -> None:
        self._headers = headers
        self._patterns: dict[object, ContentItem] = {}

    def entry(self, source: InstanceReference, descriptors: list[_Descriptor]) -> Dataset:
        """The IMAGE item of ``source`` with ``descriptors`` below it."""
        pattern = self._patterns.get("entry") or self._patterns.setdefault(
            "entry",
            ImageContentItem(
                codes.SOURCE_IMAGE,
                source.SOPClassUID,
                source.SOPInstanceUID,
                relationship_type=RelationshipTypeValues.CONTAINS,
            ),
        )
        below = [self._descriptor(one) for one in descriptors]
        content = (element("ContentSequence", "SQ", below),) if below else ()
        return like(
            pattern, element("ReferencedSOPSequence", "SQ", [instance_item(source, (), self._headers)]), *content
        )

    def _descriptor(self, one: _Descriptor) -> Dataset:
        if not isinstance(one.value, (int, float)):
            return one.item()
        key = (one.name, one.unit, type(one.value))
        pattern = self._patterns.get(key) or self._patterns.setdefault(key, one.item())
        measured = pattern.MeasuredValueSequence[0]
        exact = (element("FloatingPointValue", "FD", one.value),) if "FloatingPointValue" in measured else ()
        value = like(measured, element("NumericValue", "DS", decimal(one.value)), *exact)
        return like(pattern, element("MeasuredValueSequence", "SQ", [value]))


def _described(planes: Sequence[Plane], headers: Sequence[Dataset]) -> dict[InstanceReference, list[_Descriptor]]:
    """What is said of each source Instance; what several say alike is one descriptor."""
    found: dict[InstanceReference, list[_Descriptor]] = {}
    of_headers: dict[object, list[_Descriptor]] = {}
    of_directions: dict[object, list[_Descriptor]] = {}
    for plane, header in zip(planes, headers, strict=True):
        if plane.source in found:
            continue
        alike = said(header, *_READ), plane.shape, plane.spacing
        if alike not in of_headers:
            of_headers[alike] = list(_descriptors(plane, header))
        place: list[_Descriptor] = []
        if plane.frame is None and plane.position and plane.orientation:
            if plane.orientation not in of_directions:
                of_directions[plane.orientation] = _numbers(_ORIENTATION, plane.orientation, _COSINE)
            place = _numbers(_POSITION, plane.position, _MM) + of_directions[plane.orientation]
        found[plane.source] = of_headers[alike] + place
    return found


def _numbers(names: Sequence[Code], values: Sequence[float], unit: Code) -> list[_Descriptor]:
    return [_Descriptor(name, value, unit) for name, value in zip(names, values, strict=True)]


def _descriptors(plane: Plane, header: Dataset) -> Iterable[_Descriptor]:
    """TID 1602: what all images have; TID 1604 adds where single-frame cross-sections lie. Nothing that the source does
    not state.

    No Target Region: validators accept few codes there; the groups have a Finding Site instead.
    """
    modality = _MODALITIES.get(str(header.get("Modality") or ""))
    if modality:
        yield _Descriptor(standard.DCM.Modality, modality)
    frame_of_reference = str(header.get("FrameOfReferenceUID") or "")
    if frame_of_reference:
        yield _Descriptor(standard.DCM.FrameOfReferenceUID, frame_of_reference)
    yield _Descriptor(standard.DCM.PixelDataRows, plane.shape[0], _PIXELS)
    yield _Descriptor(standard.DCM.PixelDataColumns, plane.shape[1], _PIXELS)
    yield from _spacing(plane, header)


def _spacing(plane: Plane, header: Dataset) -> Iterable[_Descriptor]:
    distance = pixel_distance(plane, header)
    if distance is not None:
        yield _Descriptor(standard.DCM.HorizontalPixelSpacing, distance[1], _MM)
        yield _Descriptor(standard.DCM.VerticalPixelSpacing, distance[0], _MM)
    thickness = number(header, "SliceThickness")
    if thickness is not None:
        yield _Descriptor(standard.DCM.SliceThickness, thickness, _MM)
