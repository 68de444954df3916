"""Multi-frame True Color Secondary Capture, all planes in one Instance (PS3.3 A.8.5, C.8.6.3, C.8.6.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage

from dicomnode.detectors.contract import DetectionResult, Plane, Volume
from dicomnode.report.capture import SPACING, Shot, shots
from dicomnode.report.context import ReportContext
from dicomnode.report.derived_frames import add_frames
from dicomnode.report.envelope import envelope
from dicomnode.report.geometry import aspect_ratio, decimal, patient_orientation, slice_thickness
from dicomnode.report.legend import notices
from dicomnode.report.montage import is_long, montage
from dicomnode.report.secondary_capture import (
    add_capture,
    add_derivation,
    add_pixels,
    add_series,
    derivation_text,
    outcomes,
    window_text,
)
from dicomnode.report.transcribe import copied
from dicomnode.report.window import Window

MOST_BYTES = 256 * 2**20
"""Pixels of one Instance: while it is written, they are in memory several times over."""

_PAGE_NUMBER_VECTOR, _PER_FRAME_GROUPS = 0x00182001, 0x52009230


@dataclass(slots=True)
class _Part:
    """Frames of one size on their way into an Instance. ``leading``: the first frame is a montage."""

    shape: tuple[int, int]
    scale: int
    leading: bool = False
    data: bytearray = field(default_factory=bytearray)
    indices: list[int] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)

    def takes(self, shot: Shot, most: int) -> bool:
        """Whether ``shot`` has the same size and there is room for it."""
        pixels = shot.picture.pixels
        return (pixels.shape[:2], shot.picture.scale) == (self.shape, self.scale) and (
            not self.indices or len(self.data) + pixels.nbytes <= most
        )

    def add(self, shot: Shot) -> None:
        """Append the picture as a frame."""
        self.data += np.ascontiguousarray(shot.picture.pixels).tobytes()
        self.indices.append(shot.index)
        self.windows.append(shot.window)


def multiframe_captures(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Iterator[Dataset]:
    """The overlay pictures of all planes as frames, in the order of the planes, usually of one Instance.

    Pictures of another size, and what exceeds 256 MiB, go into further Instances of the same Series. More than 12
    planes have a montage as the very first frame. Where every frame is a picture on the unchanged pixel grid of a
    cross-section, frames have their place in the patient (Pixel Measures, Plane Position, Plane Orientation; Frame
    Increment Pointer to the Per-frame Functional Groups). Else, and so with a montage, which lies nowhere, frames
    are counted pages (Page Number Vector) and no geometry is claimed.
    """
    for index, part in enumerate(_parts(volume, headers, result, context)):
        yield _instance(index, part, volume, headers, result, context)


def _parts(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Iterator[_Part]:
    part: _Part | None = None
    for shot in shots(volume, headers, result, context):
        if part is not None and not part.takes(shot, MOST_BYTES):
            yield part
            part = None
        if part is None:
            rows, columns = shot.picture.pixels.shape[:2]
            part = _Part((rows, columns), shot.picture.scale, leading=is_long(volume) and shot.index == 0)
            if part.leading:
                part.data += montage(volume, headers, result, context, like=shot.picture.sheet).tobytes()
        part.add(shot)
    if part is not None:
        yield part


def _instance(
    index: int,
    part: _Part,
    volume: Volume,
    headers: Sequence[Dataset],
    result: DetectionResult,
    context: ReportContext,
) -> Dataset:
    planes, own = [volume.planes[i] for i in part.indices], [headers[i] for i in part.indices]
    dataset = envelope("mf-sc", headers, planes[0].source.series, context, index)
    add_series(dataset, MultiFrameTrueColorSecondaryCaptureImageStorage, "overlays", headers, own[0], context)
    orientations = {tuple(patient_orientation(*pair)) for pair in zip(planes, own, strict=True)}
    orientation = () if part.leading or len(orientations) > 1 else orientations.pop()
    remarks = (("first frame: montage",) if part.leading else ()) + (outcomes(result), *notices(result, context))
    add_capture(dataset, own, orientation, remarks, context)
    text = derivation_text(window_text(part.windows), part.scale, result.calibration, context)
    in_place = part.scale == 1 and not part.leading
    add_derivation(dataset, planes, headers, text, resampled=not in_place, in_place=in_place)
    dataset.NumberOfFrames = len(planes) + part.leading
    if in_place and _has_place(planes, own):
        _add_groups(dataset, planes, own)
    else:
        _add_pages(dataset, planes, own, in_place=in_place)
    add_pixels(dataset, *part.shape, bytes(part.data))
    return dataset


def _has_place(planes: Sequence[Plane], headers: Sequence[Dataset]) -> bool:
    frames_of_reference = {str(header.get("FrameOfReferenceUID") or "") for header in headers}
    known = all(plane.spacing and plane.position and plane.orientation for plane in planes)
    return known and len(frames_of_reference) == 1 and "" not in frames_of_reference


def _add_pages(dataset: Dataset, planes: Sequence[Plane], headers: Sequence[Dataset], *, in_place: bool) -> None:
    """Count the frames, if there are several; spacing or aspect only where it holds for all of them."""
    if dataset.NumberOfFrames > 1:
        dataset.FrameIncrementPointer = _PAGE_NUMBER_VECTOR
        dataset.PageNumberVector = list(range(1, dataset.NumberOfFrames + 1))
    spacings = {plane.spacing for plane in planes}
    ratios = {tuple(aspect_ratio(*pair) or ()) for pair in zip(planes, headers, strict=True)}
    if in_place and len(spacings) == 1 and planes[0].spacing:
        dataset.PixelSpacing = [decimal(value) for value in planes[0].spacing]
        dataset.update(copied(headers[0], SPACING))
    elif len(ratios) == 1 and (ratio := ratios.pop()) and dataset.NumberOfFrames == len(planes):
        dataset.PixelAspectRatio = list(ratio)


def _add_groups(dataset: Dataset, planes: Sequence[Plane], headers: Sequence[Dataset]) -> None:
    """The three functional groups that this IOD has (PS3.3 A.8.5.4); shared where they are alike."""
    dataset.FrameOfReferenceUID = headers[0].FrameOfReferenceUID
    dataset.PositionReferenceIndicator = headers[0].get("PositionReferenceIndicator")
    if dataset.NumberOfFrames > 1:
        dataset.FrameIncrementPointer = _PER_FRAME_GROUPS
    add_frames(dataset, [_groups(plane, header) for plane, header in zip(planes, headers, strict=True)], Dataset())


def _groups(plane: Plane, header: Dataset) -> Dataset:
    measures, position, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [decimal(value) for value in plane.spacing or ()]
    thickness = slice_thickness(plane, header)
    if thickness is not None:
        measures.SliceThickness = decimal(thickness)
    position.ImagePositionPatient = [decimal(value) for value in plane.position or ()]
    orientation.ImageOrientationPatient = [decimal(value) for value in plane.orientation or ()]
    frame = Dataset()
    frame.PixelMeasuresSequence = [measures]
    frame.PlanePositionSequence = [position]
    frame.PlaneOrientationSequence = [orientation]
    return frame
