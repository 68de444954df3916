"""Secondary Capture Image Storage, one RGB picture per plane (PS3.3 A.8.1, C.8.6), a montage before a long Series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.detectors.contract import DetectionResult, Outcome, Plane, Volume
from dicomnode.report.context import ReportContext, ResultUIDs
from dicomnode.report.envelope import envelope
from dicomnode.report.geometry import aspect_ratio, decimal, patient_orientation, slice_thickness
from dicomnode.report.legend import legend_for, notices, picture_notices
from dicomnode.report.montage import is_long, montage
from dicomnode.report.overlay import Picture, draw
from dicomnode.report.patterns import element, like
from dicomnode.report.secondary_capture import (
    add_capture,
    add_derivation,
    add_pixels,
    add_series,
    derivation_text,
    outcomes,
    window_text,
)
from dicomnode.report.transcribe import copied, text_of
from dicomnode.report.window import Window, windows_of

SPACING = ("PixelSpacing", "PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription")


@dataclass(frozen=True, slots=True)
class Shot:
    """One plane on its way into a picture object."""

    index: int
    plane: Plane
    header: Dataset
    window: Window
    picture: Picture


def pictured(result: DetectionResult, context: ReportContext) -> tuple[int, ...]:
    """The planes that get a picture of their own, in order: all, or in a very long Series those with regions.

    A Series with more than ``context.picture_all_up_to`` planes: without any region, the plane with the greatest score.
    How the others look is in the montage, which is in front of such a Series.
    """
    n = len(result.planes)
    if context.picture_all_up_to is None or n <= context.picture_all_up_to:
        return tuple(range(n))
    marked = {region.plane for finding in result.findings for region in finding.regions}
    if not marked:
        looked_at = [index for index in range(n) if not result.planes[index].left_out]
        marked = {max(looked_at or range(n), key=lambda index: (result.planes[index].score, -index))}
    return tuple(sorted(marked))


def shots(
    volume: Volume,
    headers: Sequence[Dataset],
    result: DetectionResult,
    context: ReportContext,
    planes: Sequence[int] | None = None,
) -> Iterator[Shot]:
    """The overlay picture of every plane, or of ``planes``, one after the other."""
    chosen = windows_of(volume, headers)
    for index in range(len(volume.planes)) if planes is None else planes:
        plane, header, window = volume.planes[index], headers[index], chosen[index]
        legend = legend_for(index, volume, header, result, context, window)
        yield Shot(index, plane, header, window, draw(plane.pixels, window, result, index, legend))


def captures(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Iterator[Dataset]:
    """One Secondary Capture per plane that is ``pictured``, in the order of the planes, all in one Series.

    More than 12 planes have a montage before them, with the Instance Number before the smallest of theirs; its UID
    is that of index "number of planes", so that those of the planes do not depend on it.
    """
    numbers = instance_numbers(volume, headers)
    if is_long(volume):
        if min(numbers) < 1:
            numbers = tuple(number + 1 for number in numbers)
        yield _montage_capture(volume, headers, result, context, min(numbers) - 1)
    source = volume.planes[0].source.series
    pattern, uids = envelope("sc", headers, source, context), ResultUIDs.of(source, context)
    for shot in shots(volume, headers, result, context, pictured(result, context)):
        dataset = like(
            pattern,
            element("SOPInstanceUID", "UI", uids.instance("sc", shot.index)),
            element("InstanceNumber", "IS", numbers[shot.index]),
        )
        add_series(dataset, SecondaryCaptureImageStorage, "overlay", headers, shot.header, context)
        _add_image(dataset, shot, headers, result, context)
        _add_geometry(dataset, shot)
        rows, columns = shot.picture.pixels.shape[:2]
        add_pixels(dataset, rows, columns, np.ascontiguousarray(shot.picture.pixels).tobytes())
        yield dataset


def _montage_capture(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext, number: int
) -> Dataset:
    """The montage as Secondary Capture: made from all planes, lying nowhere in the patient."""
    planes = volume.planes
    dataset = envelope("sc", headers, planes[0].source.series, context, len(planes))
    dataset.InstanceNumber = number
    add_series(dataset, SecondaryCaptureImageStorage, "overlay", headers, headers[0], context)
    own, n = len(pictured(result, context)), len(planes)
    only = (f"{own} of {n} images have a picture of their own: those with findings, or the most suspicious",)
    remarks = ("montage", outcomes(result), *(only if own < n else ()), *notices(result, context))
    add_capture(dataset, headers, (), remarks, context)
    grey = window_text(windows_of(volume, headers))
    text = "Montage of reduced overlay pictures. " + derivation_text(grey, 1, result.calibration, context)
    add_derivation(dataset, planes, headers, text[:1024], resampled=True, in_place=False)
    picture = montage(volume, headers, result, context)
    rows, columns = picture.shape[:2]
    add_pixels(dataset, rows, columns, np.ascontiguousarray(picture).tobytes())
    return dataset


def instance_numbers(volume: Volume, headers: Sequence[Dataset]) -> tuple[int, ...]:
    """The Instance Numbers of the source, where each plane has its own, so that both stacks sort alike; else 1..n."""
    stated = [text_of(header, "InstanceNumber") for header in headers]
    single = all(plane.frame is None for plane in volume.planes)
    if single and len(set(stated)) == len(stated) and all(_is_number(number) for number in stated):
        return tuple(int(number) for number in stated)
    return tuple(range(1, len(headers) + 1))


def _is_number(text: str) -> bool:
    """No sign, and within VR IS (PS3.5 6.2)."""
    return text.isdigit() and int(text) < 2**31


def _add_image(
    dataset: Dataset, shot: Shot, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> None:
    outcome = Outcome.NOT_ANALYSED if result.planes[shot.index].left_out else result.outcome
    remarks = (str(outcome), *picture_notices(shot.index, result, context))
    add_capture(dataset, [shot.header], patient_orientation(shot.plane, shot.header), remarks, context)
    scale = shot.picture.scale
    text = derivation_text(window_text([shot.window]), scale, result.calibration, context)
    add_derivation(dataset, [shot.plane], headers, text, resampled=scale > 1, in_place=scale == 1)


def _add_geometry(dataset: Dataset, shot: Shot) -> None:
    """Copy geometry where the pixel grid is unchanged: the image keeps its corner, so coordinates hold.

    Imager Pixel Spacing alone never becomes Pixel Spacing; pixels that are not square get a Pixel Aspect Ratio.
    """
    plane, header = shot.plane, shot.header
    if shot.picture.scale == 1 and plane.spacing is not None:
        dataset.update(copied(header, SPACING))
        if "PixelSpacing" not in dataset:
            dataset.PixelSpacing = [decimal(value) for value in plane.spacing]
    elif ratio := aspect_ratio(plane, header):
        dataset.PixelAspectRatio = ratio
    frame_of_reference = header.get("FrameOfReferenceUID")
    if shot.picture.scale == 1 and frame_of_reference and plane.position and plane.orientation:
        dataset.FrameOfReferenceUID = frame_of_reference
        dataset.PositionReferenceIndicator = header.get("PositionReferenceIndicator")
        dataset.ImagePositionPatient = [decimal(value) for value in plane.position]
        dataset.ImageOrientationPatient = [decimal(value) for value in plane.orientation]
        thickness = slice_thickness(plane, header)
        dataset.SliceThickness = None if thickness is None else decimal(thickness)
