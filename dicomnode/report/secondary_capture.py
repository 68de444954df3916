"""What every picture object states beside its pixels (PS3.3 C.7.3.1, C.7.6.1, C.7.6.3, C.8.6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from dicomnode.detectors.contract import Calibration, DetectionResult, Plane
from dicomnode.dicom.references import InstanceReference
from dicomnode.report import codes
from dicomnode.report.anatomy import FEATURES_FROM, recognisable
from dicomnode.report.context import ReportContext
from dicomnode.report.envelope import add_examined_part, clock, series_description, software_versions
from dicomnode.report.evidence import instance_item, referenced_series
from dicomnode.report.patterns import element, like, put
from dicomnode.report.transcribe import copied, distinct, said
from dicomnode.report.window import Window

_COMPRESSED = "LossyImageCompression"
_COLOURS = {
    "SamplesPerPixel": 3,
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
}
_SYNTAX = "TransferSyntaxUID"
_LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless})


def add_series(
    dataset: Dataset, sop_class: str, what: str, headers: Sequence[Dataset], header: Dataset, context: ReportContext
) -> None:
    """General Series; ``header``: the source whose own attributes are copied, ``headers``: all, for the side."""
    dataset.SOPClassUID = sop_class
    dataset.Modality = "OT"
    dataset.SeriesDescription = series_description(what, header, context)
    add_examined_part(dataset, header, headers)


def add_capture(
    dataset: Dataset,
    headers: Sequence[Dataset],
    orientation: Sequence[str],
    remarks: Iterable[str],
    context: ReportContext,
) -> None:
    """SC Equipment and General Image of a picture made from ``headers``; ``remarks``: Image Comments."""
    moment = clock(headers[0], context)
    dataset.ConversionType = "WSD"
    dataset.DateOfSecondaryCapture = moment.strftime("%Y%m%d")
    dataset.TimeOfSecondaryCapture = moment.strftime("%H%M%S.%f")
    dataset.SecondaryCaptureDeviceManufacturer = dataset.Manufacturer
    dataset.SecondaryCaptureDeviceManufacturerModelName = dataset.ManufacturerModelName
    dataset.SecondaryCaptureDeviceSoftwareVersions = software_versions(context)
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = list(orientation)
    dataset.BurnedInAnnotation = "YES"
    features = {recognisable(header) for header in distinct(headers, *FEATURES_FROM)}
    dataset.RecognizableVisualFeatures = "YES" if "YES" in features else "NO"
    dataset.ImageComments = "; ".join((context.banner, *remarks))[:10240]
    add_lossy_history(dataset, *headers)


def add_lossy_history(dataset: Dataset, *headers: Dataset) -> None:
    """Lossy Image Compression stays "01" for ever (PS3.3 C.7.6.1.1.5); a lossy transfer syntax counts too."""
    dataset.LossyImageCompression = "00"
    lossy = {said(one, _COMPRESSED) for one in distinct(headers, _COMPRESSED) if one.get(_COMPRESSED) == "01"}
    syntaxes = _LossySyntax()
    for header in headers:
        if syntaxes.has(header) or said(header, _COMPRESSED) in lossy:
            dataset.LossyImageCompression = "01"
            dataset.update(copied(header, ("LossyImageCompressionRatio", "LossyImageCompressionMethod")))
            return


class _LossySyntax:
    """Which headers came with lossy pixels; a transfer syntax, the same in most of a Series, is decoded once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], bool] = {}

    def has(self, header: Dataset) -> bool:
        meta = getattr(header, "file_meta", None)
        if meta is None:
            return False
        stated = said(meta, _SYNTAX)
        if stated not in self._known:
            self._known[stated] = meta.get(_SYNTAX) in _LOSSY
        return self._known[stated]


def derivation_text(grey: str, scale: int, calibration: Calibration | None, context: ReportContext) -> str:
    """Derivation Description: how the pixels came about; at most 1024 characters (VR ST)."""
    threshold = calibration.threshold if calibration else 0.0
    return (
        f"{grey} burned in, enlarged {scale}x, heat map of {context.detector} {context.detector_version} shown from "
        f"{context.display_threshold:g}, outlines of findings, score threshold {threshold:g}. {context.banner}"
    )[:1024]


def window_text(windows: Iterable[Window]) -> str:
    """The grey windows of the planes in words."""
    different = dict.fromkeys((window.text, window.origin) for window in windows)
    if len(different) == 1:
        ((text, origin),) = different
        return f"Grey window {text} ({origin})"
    return "Grey window of each image (from source)"


def add_derivation(
    dataset: Dataset,
    planes: Sequence[Plane],
    headers: Sequence[Dataset],
    text: str,
    *,
    resampled: bool,
    in_place: bool,
) -> None:
    """Derivation and references to the sources, each Instance once with its frames (PS3.3 C.7.6.1.1.3, .4).

    ``headers``: of the result set. ``resampled``: pixels were enlarged or reduced; ``in_place``: every pixel lies where
    it lay in the source.
    """
    dataset.DerivationDescription = text
    derivations = [codes.code_item(codes.SEGMENTATION)]
    if resampled:
        derivations.append(codes.code_item(codes.SPATIAL_RESAMPLING))
    dataset.DerivationCodeSequence = derivations
    frames: dict[InstanceReference, list[int]] = {}
    for plane in planes:
        frames.setdefault(plane.source, []).extend([] if plane.frame is None else [plane.frame])
    about = _purpose(in_place=in_place)
    dataset.SourceImageSequence = [like(about, *instance_item(source, own, headers)) for source, own in frames.items()]
    dataset.ReferencedSeriesSequence = referenced_series(frames, headers)


def source_image(source: InstanceReference, frames: Sequence[int], *, in_place: bool) -> Dataset:
    """Source Image Sequence item (PS3.3 C.7.6.1.1.4); ``frames``: of a multi-frame source."""
    return like(_purpose(in_place=in_place), *instance_item(source, frames))


def _purpose(*, in_place: bool) -> Dataset:
    image = Dataset()
    image.PurposeOfReferenceCodeSequence = [codes.code_item(codes.SOURCE_OF_PROCESSING)]
    image.SpatialLocationsPreserved = "YES" if in_place else "NO"
    return image


def add_pixels(dataset: Dataset, rows: int, columns: int, data: bytes) -> None:
    """RGB, 8 bits, colour by pixel; ``data``: one or more frames, padded here to an even length."""
    numbers = {**_COLOURS, "Rows": rows, "Columns": columns}
    put(
        dataset,
        element("PhotometricInterpretation", "CS", "RGB"),
        *(element(keyword, "US", number) for keyword, number in numbers.items()),
        element("PixelData", "OB", data + b"\0" if len(data) % 2 else data),
    )


def outcomes(result: DetectionResult) -> str:
    """The outcome of the Series, with how many images were left out, for Image Comments."""
    left_out = sum(bool(plane.left_out) for plane in result.planes)
    text = str(result.outcome)
    return f"{text}; {left_out} of {len(result.planes)} images not analysed" if left_out else text
