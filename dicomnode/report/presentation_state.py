"""Grayscale Softcopy Presentation State: outlines and scores over the source images (PS3.3 A.33.1, C.10, C.11).

A notice on every image says what it is. Many viewers show no presentation states: it never carries a result alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from highdicom.color import CIELabColor
from pydicom.dataset import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from dicomnode.detectors.contract import DetectionResult, Finding, Region, Volume
from dicomnode.dicom.references import InstanceReference
from dicomnode.report import colours
from dicomnode.report.context import ReportContext, ResultUIDs
from dicomnode.report.envelope import add_examined_part, clock, envelope, series_description
from dicomnode.report.evidence import instance_item
from dicomnode.report.geometry import aspect_ratio, decimal, functional_group
from dicomnode.report.legend import notices
from dicomnode.report.lettering import drawable
from dicomnode.report.scores import score_texts
from dicomnode.report.transcribe import copied
from dicomnode.report.window import Window, windows_of

_REGIONS, _NOTICE = "AI REGIONS", "AI NOTICE"
_LINEAR = ("RescaleIntercept", "RescaleSlope", "RescaleType")
_MOST_POINTS = 8000
"""Graphic Data is FL, whose length in bytes has 16 bits in Explicit VR (PS3.5 7.1.2)."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What the planes of one presentation state have in common: the Modality LUT and the polarity of the display."""

    modality: str
    inverted: bool


def presentation_states(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Iterator[Dataset]:
    """The presentation states of a result with findings, usually one; none without findings.

    One refers to all planes with the same Modality LUT: it replaces that of the images it is applied to (PS3.4 N.2),
    so that images which are rescaled differently need another. The window is that of the overlay pictures, per
    image; the display is the whole image, not turned.
    """
    if not result.findings:
        return
    shown = windows_of(volume, headers)
    looks: dict[_Look, list[int]] = {}
    for index, header in enumerate(headers):
        looks.setdefault(_look(volume, header, index), []).append(index)
    for number, (look, indices) in enumerate(looks.items()):
        dataset = envelope("gsps", headers, volume.planes[0].source.series, context, number)
        dataset.SOPClassUID = GrayscaleSoftcopyPresentationStateStorage
        dataset.Modality = "PR"
        dataset.SeriesDescription = series_description("outlines", headers[0], context)
        add_examined_part(dataset, headers[0], headers)
        _add_identification(dataset, result, clock(headers[0], context))
        dataset.ReferencedSeriesSequence = [_series(volume, indices)]
        dataset.update(_modality_lut(volume, headers[indices[0]], indices[0]))
        dataset.PresentationLUTShape = "INVERSE" if look.inverted else "IDENTITY"
        dataset.SoftcopyVOILUTSequence = _voi(volume, shown, indices, inverted=look.inverted)
        dataset.DisplayedAreaSelectionSequence = _areas(volume, headers, indices)
        _add_graphics(dataset, volume, indices, result, context)
        yield dataset


def _look(volume: Volume, header: Dataset, index: int) -> _Look:
    """CT is never inverted: its values are HU, whatever its Photometric Interpretation."""
    inverted = header.get("PhotometricInterpretation") == "MONOCHROME1" and header.get("Modality") != "CT"
    return _Look(_modality_lut(volume, header, index).to_json(), inverted)


def _modality_lut(volume: Volume, header: Dataset, index: int) -> Dataset:
    """The Modality LUT of a source image, for a multi-frame one that of its frame; empty: it has none."""
    frame = volume.planes[index].frame
    if frame is None:
        if header.get("ModalityLUTSequence"):
            return copied(header, ("ModalityLUTSequence",))
        found = copied(header, _LINEAR)
    else:
        found = copied(functional_group(header, frame, "PixelValueTransformationSequence") or header, _LINEAR)
    if "RescaleSlope" not in found or "RescaleIntercept" not in found:
        return Dataset()
    if not found.get("RescaleType"):
        found.RescaleType = "HU" if header.get("Modality") == "CT" else "US"
    return found


def _add_identification(dataset: Dataset, result: DetectionResult, when: datetime) -> None:
    """Presentation State Identification (PS3.3 C.11.10); Content Date and Time belong to no module of this IOD.

    The contribution is dated without offset from UTC, as ``dcmpschk`` of DCMTK refuses one.
    """
    dataset.ContentLabel = "AI FINDINGS"
    dataset.ContentDescription = f"{len(result.findings)} outlined, research use only"
    dataset.PresentationCreationDate = dataset.ContentDate
    dataset.PresentationCreationTime = dataset.ContentTime
    dataset.ContentCreatorName = None
    del dataset.ContentDate, dataset.ContentTime
    for item in dataset.ContributingEquipmentSequence:
        item.ContributionDateTime = when.strftime("%Y%m%d%H%M%S.%f")


def _images(volume: Volume, indices: Sequence[int]) -> list[Dataset]:
    """Image SOP Instance Reference items, each Instance once, with its frames."""
    frames: dict[InstanceReference, list[int]] = {}
    for index in indices:
        plane = volume.planes[index]
        frames.setdefault(plane.source, []).extend(() if plane.frame is None else (plane.frame,))
    return [instance_item(source, own) for source, own in frames.items()]


def _series(volume: Volume, indices: Sequence[int]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = volume.planes[0].source.SeriesInstanceUID
    item.ReferencedImageSequence = _images(volume, indices)
    return item


def _voi(volume: Volume, shown: Sequence[Window], indices: Sequence[int], *, inverted: bool) -> list[Dataset]:
    """One item per window. For an inverted display it is that of the values as stored, not as turned for analysis."""
    groups: dict[tuple[float, float, str], list[int]] = {}
    for index in indices:
        plane, window = volume.planes[index], shown[index]
        # LINEAR is symmetric about centre - 0.5 (PS3.3 C.11.2.1.2.1)
        centre = plane.stored_min + plane.stored_max - window.centre + 1.0 if inverted else window.centre
        groups.setdefault((centre, max(window.width, 1.0), window.origin), []).append(index)
    items = []
    for (centre, width, origin), members in groups.items():
        item = Dataset()
        if len(groups) > 1:
            item.ReferencedImageSequence = _images(volume, members)
        item.WindowCenter, item.WindowWidth = decimal(centre), decimal(width)
        item.WindowCenterWidthExplanation = origin
        items.append(item)
    return items


def _areas(volume: Volume, headers: Sequence[Dataset], indices: Sequence[int]) -> list[Dataset]:
    """The whole image, fitted into the display; one item per size and pixel shape (PS3.3 C.10.4)."""
    groups: dict[tuple[int, int, tuple[float, ...], tuple[int, ...]], list[int]] = {}
    for index in indices:
        plane = volume.planes[index]
        ratio = tuple(aspect_ratio(plane, headers[index]) or (1, 1))
        groups.setdefault((*plane.shape, plane.spacing or (), ratio), []).append(index)
    items = []
    for (rows, columns, spacing, ratio), members in groups.items():
        item = Dataset()
        if len(groups) > 1:
            item.ReferencedImageSequence = _images(volume, members)
        item.DisplayedAreaTopLeftHandCorner = [1, 1]
        item.DisplayedAreaBottomRightHandCorner = [columns, rows]
        item.PresentationSizeMode = "SCALE TO FIT"
        if spacing:
            item.PresentationPixelSpacing = [decimal(value) for value in spacing]
        else:
            item.PresentationPixelAspectRatio = list(ratio)
        items.append(item)
    return items


def _add_graphics(
    dataset: Dataset, volume: Volume, indices: Sequence[int], result: DetectionResult, context: ReportContext
) -> None:
    """Graphic Annotation and Graphic Layer: outlines and scores per image, the notice on all of them."""
    annotations = [_notice(result, context)]
    for index in indices:
        own = [(finding, region) for finding in result.findings for region in finding.regions if region.plane == index]
        if own:
            annotations.append(_annotation(volume, index, own, context))
    dataset.GraphicAnnotationSequence = annotations
    layers = ((_REGIONS, "Outlines and scores of findings", colours.CONTOUR), (_NOTICE, "Notice", colours.BANNER))
    used = {annotation.GraphicLayer for annotation in annotations}
    dataset.GraphicLayerSequence = [
        _layer(order, *layer) for order, layer in enumerate((one for one in layers if one[0] in used), start=1)
    ]


def _layer(order: int, name: str, description: str, colour: tuple[int, int, int]) -> Dataset:
    layer = Dataset()
    layer.GraphicLayer = name
    layer.GraphicLayerOrder = order
    layer.GraphicLayerRecommendedDisplayGrayscaleValue = 0xFFFF
    layer.GraphicLayerRecommendedDisplayCIELabValue = list(CIELabColor.from_rgb(*colour).value)
    layer.GraphicLayerDescription = description
    return layer


def _notice(result: DetectionResult, context: ReportContext) -> Dataset:
    """Banner and outcome, bottom-centre, where viewers write nothing.

    Raises ValueError for a result without score or calibration.
    """
    if result.score is None or result.calibration is None:
        raise ValueError("a result without score has no presentation state")
    score, threshold = score_texts(result.score, result.calibration.threshold)
    lines = (
        f"{context.detector}: {result.outcome}, series score {score} (threshold {threshold})",
        *notices(result, context),
        context.banner,
    )
    text = Dataset()
    text.BoundingBoxAnnotationUnits = "DISPLAY"
    text.BoundingBoxTopLeftHandCorner = [0.1, 0.9]
    text.BoundingBoxBottomRightHandCorner = [0.9, 0.99]
    text.BoundingBoxTextHorizontalJustification = "CENTER"
    text.UnformattedTextValue = "\r\n".join(drawable(line) for line in lines)[:1024]
    item = Dataset()
    item.GraphicLayer = _NOTICE
    item.TextObjectSequence = [text]
    return item


def _annotation(volume: Volume, index: int, own: Sequence[tuple[Finding, Region]], context: ReportContext) -> Dataset:
    uids = ResultUIDs.of(volume.planes[index].source.series, context)
    item = Dataset()
    item.ReferencedImageSequence = _images(volume, [index])
    item.GraphicLayer = _REGIONS
    item.TextObjectSequence = []
    item.GraphicObjectSequence = []
    for finding, region in own:
        for made in (_text(finding, region), _polyline(region)):
            made.TrackingID = finding.tracking_id
            made.TrackingUID = uids.tracking(finding.tracking_id)
            sequence = "TextObjectSequence" if "UnformattedTextValue" in made else "GraphicObjectSequence"
            item[sequence].value.append(made)
    return item


def _text(finding: Finding, region: Region) -> Dataset:
    """Label and score of the region, anchored at the upper right corner of its box."""
    text = Dataset()
    text.AnchorPointAnnotationUnits = "PIXEL"
    text.AnchorPoint = [float(value) for value in _inside(np.array([[region.box[2], region.box[1]]]), region)[0]]
    text.AnchorPointVisibility = "N"
    text.UnformattedTextValue = f"{drawable(finding.label) or 'AI anomaly'} {region.score:.2f} (RESEARCH)"
    return text


def _polyline(region: Region) -> Dataset:
    """The closed outline in image coordinates: 0, 0 is the corner of the first pixel (PS3.3 C.10.5.1.2)."""
    points = _inside(np.asarray(region.contour, np.float64), region)
    step = -(-len(points) // _MOST_POINTS)
    points = np.concatenate([points[:-1:step], points[:1]])
    graphic = Dataset()
    graphic.GraphicAnnotationUnits = "PIXEL"
    graphic.GraphicDimensions = 2
    graphic.NumberOfGraphicPoints = len(points)
    graphic.GraphicData = [float(value) for value in points.ravel()]
    graphic.GraphicType = "POLYLINE"
    graphic.GraphicFilled = "N"
    return graphic


def _inside(
    points: np.ndarray[tuple[int, ...], np.dtype[np.float64]], region: Region
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rows, columns = region.mask.shape
    return np.clip(points, 0.0, (columns, rows)).astype(np.float32)
