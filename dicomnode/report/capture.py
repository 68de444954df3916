"""Secondary Capture Image Storage, one RGB picture per plane (PS3.3 A.8.1, C.8.6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, SecondaryCaptureImageStorage

from dicomnode.detectors.contract import DetectionResult, Outcome, Plane, Volume
from dicomnode.report import codes
from dicomnode.report.anatomy import body_part, laterality, recognisable
from dicomnode.report.context import ReportContext
from dicomnode.report.envelope import clock, envelope, series_description, software_versions
from dicomnode.report.geometry import aspect_ratio, decimal, patient_orientation
from dicomnode.report.legend import legend_for, picture_notices
from dicomnode.report.overlay import Picture, draw
from dicomnode.report.transcribe import copied
from dicomnode.report.window import Window, windows

_LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless})
_SERIES = ("BodyPartExamined", "RequestAttributesSequence")
_SPACING = ("PixelSpacing", "PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription")


@dataclass(frozen=True, slots=True)
class _Shot:
    """One plane on its way into a picture object."""

    index: int
    plane: Plane
    header: Dataset
    window: Window
    picture: Picture


def captures(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Iterator[Dataset]:
    """One Secondary Capture per plane, in the order of the planes, all in one Series."""
    numbers = instance_numbers(volume, headers)
    side = laterality(headers)
    for index, window in enumerate(windows(volume, body_part(headers[0]))):
        plane, header = volume.planes[index], headers[index]
        legend = legend_for(index, volume, header, result, context, window)
        shot = _Shot(index, plane, header, window, draw(plane.pixels, window, result, index, legend))
        dataset = envelope("sc", headers, plane.source.series, context, index)
        dataset.InstanceNumber = numbers[index]
        _add_series(dataset, header, side, context)
        _add_image(dataset, shot, result, context)
        _add_derivation(dataset, shot, result, context)
        _add_geometry(dataset, shot)
        _add_pixels(dataset, shot.picture)
        yield dataset


def instance_numbers(volume: Volume, headers: Sequence[Dataset]) -> tuple[int, ...]:
    """The Instance Numbers of the source, where each plane has its own, so that both stacks sort alike; else 1..n."""
    stated = [str(header.get("InstanceNumber") or "") for header in headers]
    single = all(plane.frame is None for plane in volume.planes)
    if single and len(set(stated)) == len(stated) and all(number.isdigit() for number in stated):
        return tuple(int(number) for number in stated)
    return tuple(range(1, len(headers) + 1))


def _add_series(dataset: Dataset, header: Dataset, side: str | None, context: ReportContext) -> None:
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.Modality = "OT"
    dataset.SeriesDescription = series_description("overlay", header, context)
    dataset.update(copied(header, _SERIES))
    if side is not None:
        dataset.Laterality = side


def _add_image(dataset: Dataset, shot: _Shot, result: DetectionResult, context: ReportContext) -> None:
    """SC Equipment, SC Image, General Image (PS3.3 C.8.6.1, C.8.6.2, C.7.6.1)."""
    when = clock(shot.header, context)
    dataset.ConversionType = "WSD"
    dataset.DateOfSecondaryCapture = when.strftime("%Y%m%d")
    dataset.TimeOfSecondaryCapture = when.strftime("%H%M%S.%f")
    dataset.SecondaryCaptureDeviceManufacturer = dataset.Manufacturer
    dataset.SecondaryCaptureDeviceManufacturerModelName = dataset.ManufacturerModelName
    dataset.SecondaryCaptureDeviceSoftwareVersions = software_versions(context)
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = patient_orientation(shot.plane, shot.header)
    dataset.BurnedInAnnotation = "YES"
    dataset.RecognizableVisualFeatures = recognisable(shot.header)
    outcome = Outcome.NOT_ANALYSED if result.planes[shot.index].left_out else result.outcome
    dataset.ImageComments = "; ".join((context.banner, str(outcome), *picture_notices(shot.index, result, context)))
    _add_lossy_history(dataset, shot.header)


def _add_lossy_history(dataset: Dataset, header: Dataset) -> None:
    """Lossy Image Compression stays "01" for ever (PS3.3 C.7.6.1.1.5); a lossy transfer syntax counts too."""
    dataset.LossyImageCompression = "00"
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    if header.get("LossyImageCompression") == "01" or syntax in _LOSSY:
        dataset.LossyImageCompression = "01"
        dataset.update(copied(header, ("LossyImageCompressionRatio", "LossyImageCompressionMethod")))


def _add_derivation(dataset: Dataset, shot: _Shot, result: DetectionResult, context: ReportContext) -> None:
    threshold = result.calibration.threshold if result.calibration else 0.0
    dataset.DerivationDescription = (
        f"Grey window {shot.window.text} ({shot.window.origin}) burned in, enlarged {shot.picture.scale}x, heat map "
        f"of {context.detector} {context.detector_version} shown from {context.display_threshold:g}, outlines of "
        f"findings, score threshold {threshold:g}. {context.banner}"
    )[:1024]
    derivations = [codes.code_item(codes.SEGMENTATION)]
    if shot.picture.scale > 1:
        derivations.append(codes.code_item(codes.SPATIAL_RESAMPLING))
    dataset.DerivationCodeSequence = derivations
    source = shot.plane.source
    image = Dataset()
    image.ReferencedSOPClassUID = source.SOPClassUID
    image.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if shot.plane.frame is not None:
        image.ReferencedFrameNumber = shot.plane.frame
    image.PurposeOfReferenceCodeSequence = [codes.code_item(codes.SOURCE_OF_PROCESSING)]
    image.SpatialLocationsPreserved = "YES" if shot.picture.scale == 1 else "NO"
    dataset.SourceImageSequence = [image]
    instance = Dataset()
    instance.ReferencedSOPClassUID = source.SOPClassUID
    instance.ReferencedSOPInstanceUID = source.SOPInstanceUID
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ReferencedInstanceSequence = [instance]
    dataset.ReferencedSeriesSequence = [series]


def _add_geometry(dataset: Dataset, shot: _Shot) -> None:
    """Copy geometry where the pixel grid is unchanged: the image keeps its corner, so coordinates hold.

    Imager Pixel Spacing alone never becomes Pixel Spacing; pixels that are not square get a Pixel Aspect Ratio.
    """
    plane, header = shot.plane, shot.header
    if shot.picture.scale == 1 and plane.spacing is not None:
        dataset.update(copied(header, _SPACING))
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
        dataset.update(copied(header, ("SliceThickness",)))


def _add_pixels(dataset: Dataset, picture: Picture) -> None:
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = picture.pixels.shape[:2]
    dataset.BitsAllocated = 8
    dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    data = np.ascontiguousarray(picture.pixels).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB"
