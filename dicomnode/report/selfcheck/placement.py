"""Regions, masks and maps lie where their source image lies, and inside it (PS3.3 C.7.6.2, C.10.4, C.10.5, C.18.6).

Only what single-frame sources state at the top level of their header is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset

from dicomnode.report.geometry import orientation_of
from dicomnode.report.patterns import value_of
from dicomnode.report.selfcheck.case import Case
from dicomnode.report.selfcheck.pixels import frames
from dicomnode.report.selfcheck.sr_items import content

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_GROUPS = {"PlanePositionSequence": "ImagePositionPatient", "PlaneOrientationSequence": "ImageOrientationPatient"}
_NEAR = {"ImagePositionPatient": 0.01, "ImageOrientationPatient": 0.001}
"""Millimetres, and direction cosines."""


def placement_faults(dataset: Dataset, case: Case) -> Iterator[str]:
    """What lies elsewhere than the image that it refers to, or outside of it."""
    yield from _captured(dataset, case)
    yield from _frames(dataset, case)
    yield from _drawn(dataset, case)
    for item in content(dataset, case).below:
        for image in item.children if item.value_type == "SCOORD" else ():
            images = _sources(image.dataset, "ReferencedSOPSequence", case)
            if not _inside(value_of(item.dataset, "GraphicData"), images):
                yield f"{item.path}.GraphicData: lies outside of its image (PS3.3 C.18.6.1.2)"


def _sources(dataset: Dataset, keyword: str, case: Case) -> list[Dataset]:
    uids = (str(value_of(one, "ReferencedSOPInstanceUID")) for one in value_of(dataset, keyword) or ())
    return [case.by_instance[uid] for uid in uids if uid in case.by_instance]


def _captured(dataset: Dataset, case: Case) -> Iterator[str]:
    """A picture that states its place is that of one source."""
    own = list(value_of(dataset, "PatientOrientation") or ())
    placed = [keyword for keyword in _NEAR if keyword in dataset]
    for header in _sources(dataset, "SourceImageSequence", case) if own or placed else ():
        for keyword in placed:
            if not _same(keyword, dataset, header):
                yield f"{keyword}: differs from that of the source"
        if not own:
            continue
        stated = None if "NumberOfFrames" in header else value_of(header, "ImageOrientationPatient")
        directions = orientation_of(header, [float(one) for one in stated] if stated else None)
        if directions and own != directions:
            yield "PatientOrientation: not that of the source (PS3.3 C.7.6.1.1.1)"


def _frames(dataset: Dataset, case: Case) -> Iterator[str]:
    shared = (value_of(dataset, _SHARED) or [Dataset()])[0]
    for n, frame in enumerate(value_of(dataset, _PER_FRAME) or (), 1):
        images = [
            header
            for derivation in value_of(frame, "DerivationImageSequence") or ()
            for header in _sources(derivation, "SourceImageSequence", case)
        ]
        if not _are_there(frame, case):
            yield f"{_PER_FRAME}[{n}].ReferencedFrameNumber: the source has no such frame"
        for header in images:
            if any(_number(dataset, one) != _number(header, one, dataset) for one in ("Rows", "Columns")):
                yield f"{_PER_FRAME}[{n}]: has another matrix than its source image (PS3.3 A.51.5.1)"
            for group, keyword in _GROUPS.items():
                own = (value_of(frame, group) or value_of(shared, group) or [Dataset()])[0]
                if keyword in own and not _same(keyword, own, header):
                    yield f"{_PER_FRAME}[{n}].{group}[1].{keyword}: differs from that of the source image"


def _are_there(frame: Dataset, case: Case) -> bool:
    for derivation in value_of(frame, "DerivationImageSequence") or ():
        for image in value_of(derivation, "SourceImageSequence") or ():
            number = value_of(image, "ReferencedFrameNumber")
            header = case.by_instance.get(str(value_of(image, "ReferencedSOPInstanceUID")))
            if isinstance(number, int) and header is not None and not 1 <= number <= frames(header):
                return False
    return True


def _same(keyword: str, own: Dataset, header: Dataset) -> bool:
    """Whether both state the same numbers; a source with frames, or that states none, differs from nothing."""
    stated = value_of(header, keyword)
    if not stated or "NumberOfFrames" in header:
        return True
    pairs = list(zip(own[keyword].value or (), stated, strict=False))
    return bool(pairs) and all(abs(float(a) - float(b)) <= _NEAR[keyword] for a, b in pairs)


def _number(dataset: Dataset, keyword: str, otherwise: Dataset | None = None) -> Any:
    value = value_of(dataset, keyword)
    return otherwise.get(keyword) if value is None and otherwise is not None else value


def _drawn(dataset: Dataset, case: Case) -> Iterator[str]:
    """Outlines of a presentation state, and the area that it displays."""
    everything = [
        header
        for series in value_of(dataset, "ReferencedSeriesSequence") or ()
        for header in _sources(series, "ReferencedImageSequence", case)
    ]
    for n, item in enumerate(value_of(dataset, "GraphicAnnotationSequence") or (), 1):
        images = _sources(item, "ReferencedImageSequence", case) or everything
        for m, graphic in enumerate(value_of(item, "GraphicObjectSequence") or (), 1):
            points = value_of(graphic, "GraphicData")
            if value_of(graphic, "GraphicAnnotationUnits") == "PIXEL" and not _inside(points, images):
                yield f"GraphicAnnotationSequence[{n}].GraphicObjectSequence[{m}].GraphicData: outside of its image"
    for n, item in enumerate(value_of(dataset, "DisplayedAreaSelectionSequence") or (), 1):
        corner = list(value_of(item, "DisplayedAreaBottomRightHandCorner") or ())
        for header in _sources(item, "ReferencedImageSequence", case) or everything:
            if corner != [_number(header, "Columns"), _number(header, "Rows")] and "Rows" in header:
                yield f"DisplayedAreaSelectionSequence[{n}]: does not display the whole image (PS3.3 C.10.4)"
                break


def _inside(points: Sequence[float] | None, images: Sequence[Dataset]) -> bool:
    """Whether column and row of all ``points`` lie between 0, 0 and the last corner of each image."""
    if not points:
        return True
    for header in images:
        columns, rows = value_of(header, "Columns"), value_of(header, "Rows")
        if columns and rows and (max(points[::2]) > columns or max(points[1::2]) > rows or min(points) < 0):
            return False
    return True
