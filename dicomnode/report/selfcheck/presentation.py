"""Grayscale Softcopy Presentation States (PS3.3 A.33.1, C.10.4, C.10.5, C.11.9 to C.11.11)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicomnode.report.selfcheck.case import Case, as_text

_GRAPHIC = "GraphicAnnotationSequence"
_IDENTITY_LUT = ("IDENTITY", "INVERSE")


def presentation_faults(dataset: Dataset, case: Case) -> Iterator[str]:
    """What is wrong with a presentation state."""
    if ("PresentationLUTShape" in dataset) == ("PresentationLUTSequence" in dataset):
        yield "PresentationLUTShape: it or a PresentationLUTSequence, Type 1C (PS3.3 C.11.6)"
    elif dataset.get("PresentationLUTShape", "IDENTITY") not in _IDENTITY_LUT:
        yield "PresentationLUTShape: IDENTITY or INVERSE (PS3.3 C.11.6)"
    referred = _images(dataset)
    if not referred <= set(case.classes):
        yield "ReferencedSeriesSequence: an image that is not a source"
    yield from _areas(dataset, referred)
    yield from _annotations(dataset, case, referred)
    yield from _grey_values(dataset, case, referred)


def _images(dataset: Dataset) -> set[str]:
    return {
        str(image.get("ReferencedSOPInstanceUID"))
        for series in dataset.get("ReferencedSeriesSequence") or ()
        for image in series.get("ReferencedImageSequence") or ()
    }


def _applies_to(item: Dataset, referred: set[str]) -> set[str]:
    images = {str(image.get("ReferencedSOPInstanceUID")) for image in item.get("ReferencedImageSequence") or ()}
    return images or referred


def _areas(dataset: Dataset, referred: set[str]) -> Iterator[str]:
    covered: set[str] = set()
    for n, item in enumerate(dataset.get("DisplayedAreaSelectionSequence") or (), 1):
        covered |= _applies_to(item, referred)
        mode = item.get("PresentationSizeMode")
        if mode not in ("SCALE TO FIT", "TRUE SIZE", "MAGNIFY"):
            yield f"DisplayedAreaSelectionSequence[{n}].PresentationSizeMode: not a defined mode (PS3.3 C.10.4)"
        if ("PresentationPixelSpacing" in item) == ("PresentationPixelAspectRatio" in item):
            yield f"DisplayedAreaSelectionSequence[{n}].PresentationPixelAspectRatio: it or PresentationPixelSpacing"
    if covered != referred:
        yield "DisplayedAreaSelectionSequence: does not cover exactly the referenced images (PS3.3 C.10.4)"


def _annotations(dataset: Dataset, case: Case, referred: set[str]) -> Iterator[str]:
    noticed: set[str] = set()
    layers = {item.get("GraphicLayer") for item in dataset.get("GraphicLayerSequence") or ()}
    for n, item in enumerate(dataset.get(_GRAPHIC) or (), 1):
        if item.get("GraphicLayer") not in layers:
            yield f"{_GRAPHIC}[{n}].GraphicLayer: not in GraphicLayerSequence (PS3.3 C.10.7)"
        if not _applies_to(item, referred) <= referred:
            yield f"{_GRAPHIC}[{n}].ReferencedImageSequence: not a referenced image (PS3.3 C.10.5)"
        for m, graphic in enumerate(item.get("GraphicObjectSequence") or (), 1):
            yield from _object(f"{_GRAPHIC}[{n}].GraphicObjectSequence[{m}]", graphic, case)
        for m, text in enumerate(item.get("TextObjectSequence") or (), 1):
            yield from _text(f"{_GRAPHIC}[{n}].TextObjectSequence[{m}]", text, case)
            if "RESEARCH" in str(text.get("UnformattedTextValue") or "").upper() and _on_display(text):
                noticed |= _applies_to(item, referred)
    if noticed != referred:
        yield f"{_GRAPHIC}: an image lacks UnformattedTextValue with RESEARCH, BoundingBoxAnnotationUnits DISPLAY"


def _on_display(text: Dataset) -> bool:
    units = text.get("BoundingBoxAnnotationUnits") or text.get("AnchorPointAnnotationUnits")
    return bool(units == "DISPLAY")


def _object(name: str, graphic: Dataset, case: Case) -> Iterator[str]:
    """PS3.3 C.10.5: our outlines are closed polylines on the pixels of the image."""
    points = graphic.get("GraphicData") or ()
    for keyword, value in (("GraphicType", "POLYLINE"), ("GraphicAnnotationUnits", "PIXEL")):
        if graphic.get(keyword) != value:
            yield f"{name}.{keyword}: outlines are POLYLINE in PIXEL units"
    if graphic.get("GraphicDimensions") != 2 or len(points) != 2 * (graphic.get("NumberOfGraphicPoints") or 0):
        yield f"{name}.NumberOfGraphicPoints: does not fit GraphicData (PS3.3 C.10.5)"
    elif list(points[:2]) != list(points[-2:]):
        yield f"{name}.GraphicData: the outline is not closed"
    if "GraphicFilled" not in graphic:
        yield f"{name}.GraphicFilled: missing for a closed graphic, Type 1C (PS3.3 C.10.5)"
    yield from _tracking(name, graphic, case, needed=True)


def _text(name: str, text: Dataset, case: Case) -> Iterator[str]:
    anchor, box = "AnchorPoint" in text, "BoundingBoxTopLeftHandCorner" in text
    if not anchor and not box:
        yield f"{name}.AnchorPoint: it or a bounding box, Type 1C (PS3.3 C.10.5)"
    for present, needed in (
        (anchor, ("AnchorPointAnnotationUnits", "AnchorPointVisibility")),
        (
            box,
            (
                "BoundingBoxBottomRightHandCorner",
                "BoundingBoxAnnotationUnits",
                "BoundingBoxTextHorizontalJustification",
            ),
        ),
    ):
        for keyword in needed:
            if present != (keyword in text):
                yield f"{name}.{keyword}: goes with its point or box, Type 1C (PS3.3 C.10.5)"
    yield from _tracking(name, text, case, needed=False)


def _tracking(name: str, item: Dataset, case: Case, *, needed: bool) -> Iterator[str]:
    identifier, uid = item.get("TrackingID"), item.get("TrackingUID")
    if not identifier and not uid and not needed:
        return
    if not identifier or not uid:
        yield f"{name}.TrackingUID: TrackingID and TrackingUID go together"
    elif str(uid) != case.uids.tracking(str(identifier)):
        yield f"{name}.TrackingUID: not the one of its TrackingID in this result set"


def _grey_values(dataset: Dataset, case: Case, referred: set[str]) -> Iterator[str]:
    """Rescale and window are those of the source, or the image would look otherwise than it does."""
    headers = [case.by_instance[uid] for uid in sorted(referred) if uid in case.by_instance]
    linear = [one for one in headers if "RescaleSlope" in one and "RescaleIntercept" in one]
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        stated = {as_text(one.get(keyword)) for one in linear if not one.get("ModalityLUTSequence")} - {""}
        if stated and as_text(dataset.get(keyword)) not in stated:
            yield f"{keyword}: that of the source is not repeated (PS3.3 C.11.1)"
    if len({keyword in dataset for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType")}) > 1:
        yield "RescaleType: RescaleSlope, RescaleIntercept and RescaleType go together, Type 1C (PS3.3 C.11.1)"
    if not dataset.get("SoftcopyVOILUTSequence"):
        yield "SoftcopyVOILUTSequence: missing, the window that was analysed is not repeated (PS3.3 C.11.8)"
