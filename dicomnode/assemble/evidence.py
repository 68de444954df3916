"""What the headers of a Series say about its completeness. Pure; looks at Instances as a set, never at time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from dicomnode.assemble.positions import gap_in_stack
from dicomnode.dicom.sop_classes import CT_IMAGE, ENHANCED_CT_IMAGE, ENHANCED_MR_IMAGE, MR_IMAGE, is_image
from dicomnode.dicom.summary import Header

STACK_MODALITIES = frozenset({"CT", "MR", "PT"})
PET_IMAGE = "1.2.840.10008.5.1.4.1.1.128"
STACK_SOP_CLASSES = frozenset({CT_IMAGE, ENHANCED_CT_IMAGE, MR_IMAGE, ENHANCED_MR_IMAGE, PET_IMAGE})
MAX_LISTED = 5
WEIGHED = frozenset(
    {
        "SOPClassUID",
        "Modality",
        "NumberOfFrames",
        "InstanceNumber",
        "AcquisitionNumber",
        "ImagesInAcquisition",
        "NumberOfSlices",
        "NumberOfTemporalPositions",
        "TemporalPositionIdentifier",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "SliceThickness",
    }
)
"""All that ``weigh`` asks a header."""


class Shape(StrEnum):
    """What numbers and positions say: nothing missing, something missing, or nothing at all."""

    WHOLE = "whole"
    GAP = "gap"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of the Instances of one Series.

    ``declared``: the reason when a count in the headers is reached, else empty. ``declared_alone``: that count holds
    whatever else the sender still does. ``is_stack``: slices of CT, MR or PT, which come in numbers.
    """

    n_instances: int
    declared: str = ""
    declared_alone: bool = False
    shape: Shape = Shape.UNKNOWN
    reason: str = ""
    is_stack: bool = False


def weigh(headers: Sequence[Header]) -> Evidence:
    """Weigh the headers of all Instances (conflicting copies left out)."""
    declared, alone = _declared(headers)
    shape, reason = _shape(headers)
    return Evidence(len(headers), declared, alone, shape, reason, _is_stack(headers))


def number(header: Header, keyword: str) -> int | None:
    """The first value of ``keyword`` as an integer, None when there is none."""
    values = header.get(keyword, ())
    return values[0] if values and isinstance(values[0], int) else None


def _shape(headers: Sequence[Header]) -> tuple[Shape, str]:
    if not headers:
        return Shape.UNKNOWN, "no Instance that can be analysed"
    if not _is_stack(headers):
        return Shape.WHOLE, "its kind of object does not come as a stack"
    if len(headers) == 1:
        whole = (number(headers[0], "NumberOfFrames") or 1) > 1
        return (Shape.WHOLE, "multi-frame Instance") if whole else (Shape.UNKNOWN, "a single slice")
    missing = _missing_positions(headers)
    if missing:
        return Shape.GAP, missing
    numbers = _numbering(headers)
    gap_in_time = missing_temporal_positions(headers)
    return (Shape.GAP, gap_in_time) if gap_in_time else numbers


def _is_stack(headers: Sequence[Header]) -> bool:
    """CT, MR and PT images; other modalities and non-image objects have no order that could have a gap."""
    return any(
        sop_class in STACK_SOP_CLASSES or (modality in STACK_MODALITIES and is_image(sop_class))
        for modality, sop_class in ((_text(header, "Modality"), _text(header, "SOPClassUID")) for header in headers)
    )


def _text(header: Header, keyword: str) -> str:
    values = header.get(keyword, ())
    return str(values[0]) if values else ""


def _numbering(headers: Sequence[Header]) -> tuple[Shape, str]:
    """Instance Numbers (0020,0013): 1 (or 0) to n is whole, a hole between them is a gap, anything else says nothing.

    Numbers that start elsewhere may lack their begin; repeated numbers (echoes, phases) may lack anything.
    """
    numbers = [number(header, "InstanceNumber") for header in headers]
    present = sorted(value for value in numbers if value is not None)
    if len(present) < len(headers) or len(set(present)) < len(present):
        return Shape.UNKNOWN, "InstanceNumber is absent or repeated"
    first, last = present[0], present[-1]
    n_missing = last - first + 1 - len(present)
    if n_missing:
        if not _plausible_gap(present):
            return Shape.UNKNOWN, "InstanceNumber does not count Instances"
        return Shape.GAP, f"InstanceNumber {_listed(present)} missing"
    if first not in (0, 1):
        return Shape.UNKNOWN, f"InstanceNumber starts at {first}"
    return Shape.WHOLE, f"InstanceNumber {first} to {last} without gap"


def _plausible_gap(present: Sequence[int]) -> bool:
    """Holes are Instances that have not come only where most neighbours are consecutive (not 2, 4, 6 or time codes)."""
    steps = [after - before for before, after in pairwise(present)]
    return 2 * steps.count(1) >= len(steps)


def _listed(present: Sequence[int]) -> str:
    holes = [(before + 1, after - 1) for before, after in pairwise(present) if after - before > 1]
    spans = [str(start) if start == stop else f"{start}-{stop}" for start, stop in holes]
    return ", ".join(spans[:MAX_LISTED]) + (", …" if len(spans) > MAX_LISTED else "")


def _missing_positions(headers: Sequence[Header]) -> str:
    gap = gap_in_stack(headers)
    return "" if gap is None else f"a gap of {gap.spacing:.1f} mm between positions {gap.median:.1f} mm apart"


def missing_temporal_positions(headers: Sequence[Header]) -> str:
    """Number of Temporal Positions (0020,0105) against the identifiers that came; empty when nothing is missing.

    One identifier alone says nothing: some scanners make one Series per position and declare the total in each.
    """
    declared, counts = _temporal(headers)
    if declared < 2 or not 2 <= len(counts) < declared:
        return ""
    return f"{len(counts)} of {declared} temporal positions"


def _temporal(headers: Sequence[Header]) -> tuple[int, Counter[int | None]]:
    declared = {number(header, "NumberOfTemporalPositions") for header in headers}
    total = declared.pop() if len(declared) == 1 else None
    identifiers = Counter(number(header, "TemporalPositionIdentifier") for header in headers)
    return (total or 0, identifiers) if None not in identifiers else (0, Counter())


def _declared(headers: Sequence[Header]) -> tuple[str, bool]:
    """A count in the headers that is reached exactly. Larger or smaller counts are not believed (vendors differ).

    Images in Acquisition (0020,1002) counts per Acquisition Number; with a single acquisition it holds even while
    the sender is still busy. A count of one is what one-image senders write: no evidence.
    """
    acquisitions: dict[int | None, list[int | None]] = {}
    for header in headers:
        count = number(header, "ImagesInAcquisition")
        acquisitions.setdefault(number(header, "AcquisitionNumber"), []).append(count)
    if acquisitions and all(_reached(counts) for counts in acquisitions.values()):
        return f"ImagesInAcquisition reached ({len(headers)})", len(acquisitions) == 1
    slices = [number(header, "NumberOfSlices") for header in headers]
    if _reached(slices):
        return f"NumberOfSlices reached ({len(headers)})", False
    total, identifiers = _temporal(headers)
    if total >= 2 and len(identifiers) == total and len(set(identifiers.values())) == 1:
        return f"all {total} temporal positions with equal counts", False
    return "", False


def _reached(declared: Sequence[int | None]) -> bool:
    return len(declared) >= 2 and set(declared) == {len(declared)}
