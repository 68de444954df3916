"""Content items: what each value type holds, and how a tree of them fits the rows of a template (PS3.3 C.17.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

from pydicom.dataset import Dataset

from dicomnode.report.codes import SCHEME
from dicomnode.report.selfcheck.case import Case
from dicomnode.report.selfcheck.coded import Key
from dicomnode.report.selfcheck.level import Level, walked
from dicomnode.report.selfcheck.modules import is_empty
from dicomnode.report.selfcheck.sr_rows import ANY, COMMENT, Row

_COMMON = frozenset(
    {
        "RelationshipType",
        "ValueType",
        "ConceptNameCodeSequence",
        "ContentSequence",
        "ObservationDateTime",
        "ObservationUID",
    }
)
_NEEDS = {
    "CONTAINER": ("ContinuityOfContent",),
    "TEXT": ("TextValue",),
    "CODE": ("ConceptCodeSequence",),
    "NUM": ("MeasuredValueSequence",),
    "UIDREF": ("UID",),
    "PNAME": ("PersonName",),
    "DATE": ("Date",),
    "TIME": ("Time",),
    "DATETIME": ("DateTime",),
    "IMAGE": ("ReferencedSOPSequence",),
    "COMPOSITE": ("ReferencedSOPSequence",),
    "WAVEFORM": ("ReferencedSOPSequence",),
    "SCOORD": ("GraphicType", "GraphicData"),
    "SCOORD3D": ("GraphicType", "GraphicData", "ReferencedFrameOfReferenceUID"),
}
"""Type 1 attributes of each value type (PS3.3 tables C.17-5 and C.18)."""

_MAY = {
    "CONTAINER": ("ContentTemplateSequence",),
    "NUM": ("NumericValueQualifierCodeSequence",),
    "SCOORD": ("PixelOriginInterpretation", "FiducialUID"),
    "SCOORD3D": ("FiducialUID",),
}
_NAMELESS = frozenset({"CONTAINER", "IMAGE", "COMPOSITE", "WAVEFORM", "SCOORD", "SCOORD3D"})
_MEASURED = ("NumericValue", "MeasurementUnitsCodeSequence")
_REFERENCE = ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID")


@dataclass(frozen=True)
class Item:
    """A content item and where it is: ``path`` as attribute path with the code of its concept name; "" for the root.

    What it says is read once: every rule walks the same tree, and a report has an item for each of its images.
    """

    path: str
    dataset: Dataset
    level: Level

    @cached_property
    def value_type(self) -> str:
        return str(self.level.value("ValueType") or "")

    @cached_property
    def relationship(self) -> str:
        return str(self.level.value("RelationshipType") or "")

    @cached_property
    def concept(self) -> Key:
        return _code(self.level, "ConceptNameCodeSequence")

    @cached_property
    def value(self) -> Key:
        """The code of a CODE item."""
        return _code(self.level, "ConceptCodeSequence")

    @cached_property
    def children(self) -> list[Item]:
        """The content items one level below."""
        found = []
        levels = self.level.items.get("ContentSequence", ())
        for n, (item, level) in enumerate(zip(self.level.value("ContentSequence") or (), levels, strict=True), 1):
            code = _code(level, "ConceptNameCodeSequence")[0]
            at = f"{self.path}{'.' if self.path else ''}ContentSequence[{n}]{f'({code})' if code else ''}"
            found.append(Item(at, item, level))
        return found

    @cached_property
    def below(self) -> list[Item]:
        """All content items below, depth first."""
        return [item for child in self.children for item in (child, *child.below)]

    @property
    def references(self) -> Sequence[Level]:
        """The Instances that the item itself refers to."""
        return self.level.items.get("ReferencedSOPSequence", ())

    def named(self, *concepts: Key) -> list[Item]:
        """The children with one of ``concepts`` as their name."""
        return [child for child in self.children if child.concept in concepts]


def content(dataset: Dataset, case: Case) -> Item:
    """The root of the content tree of ``dataset``, the same one for whoever asks. Pictures, which have none, are not
    remembered."""
    if "ContentSequence" not in dataset:
        return Item("", dataset, Level("", {}, {}))
    if id(dataset) not in case.contents:
        case.contents[id(dataset)] = dataset, Item("", dataset, walked(dataset, known=case.levels))
    root: Item = case.contents[id(dataset)][1]
    return root


def _code(level: Level, keyword: str) -> Key:
    """(value, scheme) of the first item of the Code Sequence ``keyword``; ("", "") where there is none."""
    items = level.items.get(keyword)
    if not items:
        return "", ""
    return str(items[0].value("CodeValue") or ""), str(items[0].value("CodingSchemeDesignator") or "")


def _unjudged(root: Item, passed: set[int]) -> Iterator[Item]:
    """Those of ``descendants`` whose Datasets no document before had; ``passed``: their ids."""
    for child in root.children:
        if id(child.dataset) not in passed:
            passed.add(id(child.dataset))
            yield child
            yield from _unjudged(child, passed)


def item_faults(root: Item, case: Case) -> Iterator[str]:
    """Content items that break their value type. What several documents share is judged once."""
    for item in _unjudged(root, case.passed["items"]):
        if item.value_type not in _NEEDS:
            yield f"{item.path}.ValueType: missing or not one of an SR of ours, Type 1 (PS3.3 C.17.3)"
            continue
        if not item.relationship:
            yield f"{item.path}.RelationshipType: missing, Type 1 (PS3.3 C.17.3)"
        if not item.concept[0] and item.value_type not in _NAMELESS:
            yield f"{item.path}.ConceptNameCodeSequence: missing, Type 1C (PS3.3 C.17.3)"
        yield from _attributes(item)


def _attributes(item: Item) -> Iterator[str]:
    needed = _NEEDS[item.value_type]
    allowed = _COMMON | set(needed) | set(_MAY.get(item.value_type, ()))
    for keyword in needed:
        if is_empty(item.level.value(keyword)):
            yield f"{item.path}.{keyword}: missing or empty, Type 1 of {item.value_type} (PS3.3 C.17.3, C.18)"
    for keyword in item.level.elements:
        if keyword not in allowed:
            yield f"{item.path}.{keyword}: does not belong in {item.value_type} (PS3.3 C.17.3)"
    if item.value_type == "NUM":
        yield from _inside(item, "MeasuredValueSequence", _MEASURED)
        yield from _same_number(item)
    elif "ReferencedSOPSequence" in needed:
        yield from _inside(item, "ReferencedSOPSequence", _REFERENCE)
    elif item.value_type == "SCOORD":
        yield from _graphic(item)


def _inside(item: Item, keyword: str, needed: tuple[str, ...]) -> Iterator[str]:
    for n, one in enumerate(item.level.items.get(keyword, ()), 1):
        for name in needed:
            if is_empty(one.value(name)):
                yield f"{item.path}.{keyword}[{n}].{name}: missing or empty, Type 1 (PS3.3 C.18)"


def _same_number(item: Item) -> Iterator[str]:
    """PS3.3 C.18.1: Floating Point Value is the same number, more exact: Numeric Value rounds it to its own digits."""
    for n, one in enumerate(item.level.items.get("MeasuredValueSequence", ()), 1):
        exact, text = one.value("FloatingPointValue"), str(one.value("NumericValue") or "")
        if exact is None or not _is_number(text):
            continue
        digits = len(text.partition(".")[2]) if "e" not in text.lower() else 0
        if abs(float(text) - float(exact)) > 0.5001 * 10.0**-digits + 1e-6 * abs(float(exact)):
            yield f"{item.path}.MeasuredValueSequence[{n}].FloatingPointValue: another number than NumericValue"


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def _graphic(item: Item) -> Iterator[str]:
    """Regions of ours are closed polylines (PS3.3 C.18.6.1.2)."""
    points = list(item.dataset.get("GraphicData") or ())
    if item.dataset.get("GraphicType") != "POLYLINE":
        yield f"{item.path}.GraphicType: regions are POLYLINE"
    elif len(points) < 8 or len(points) % 2 or points[:2] != points[-2:]:
        yield f"{item.path}.GraphicData: the region is not closed (PS3.3 C.18.6.1.2)"
    elif min(points) < 0:
        yield f"{item.path}.GraphicData: lies outside of the image (PS3.3 C.18.6.1.2)"


def row_faults(parent: Item, rows: tuple[Row, ...], case: Case, *, extensible: bool = True) -> Iterator[str]:
    """What does not fit ``rows``: unknown items, missing ones, too many of them, other values than allowed.

    In an extensible template a comment or a text or code of our own scheme may be added (PS3.16 6.2.4). An item that
    several documents have is judged once by the same row.
    """
    counts: Counter[str] = Counter()
    kinds = {row.kind: row for row in reversed(rows)}
    for item in parent.children:
        kind = item.relationship, item.value_type
        row = kinds.get((*kind, item.concept)) or kinds.get((*kind, ANY))
        if row is not None:
            counts[row.place] += 1
            passed = case.passed["row", id(row), extensible]
            if id(item.dataset) not in passed:
                passed.add(id(item.dataset))
                yield from _value_faults(item, row)
                yield from row_faults(item, row.children, case, extensible=extensible)
        elif not (extensible and _is_extension(item)):
            yield f"{item.path}: no row of the template has this relationship, value type and concept (PS3.16)"
    where = parent.path or "ContentSequence"
    for row in rows:
        if counts[row.place] < row.least:
            yield f"{where}: lacks {row.value_type} {_said(row.concept)} ({row.place})"
        elif row.most and counts[row.place] > row.most:
            yield f"{where}: more than {row.most} {row.value_type} {_said(row.concept)} ({row.place})"


def _value_faults(item: Item, row: Row) -> Iterator[str]:
    if row.value is not None and item.value != row.value:
        yield f"{item.path}.ConceptCodeSequence: not {_said(row.value)} ({row.place})"
    if row.units is not None and units(item) not in (row.units, None):
        yield f"{item.path}.MeasurementUnitsCodeSequence: not {_said(row.units)} ({row.place})"


def units(item: Item) -> Key | None:
    """The units of a NUM item, None where it has none."""
    measured = item.level.items.get("MeasuredValueSequence")
    units = measured[0].items.get("MeasurementUnitsCodeSequence") if measured else None
    return _code(measured[0], "MeasurementUnitsCodeSequence") if measured and units else None


def _is_extension(item: Item) -> bool:
    own = item.concept == COMMENT or item.concept[1] == SCHEME
    return item.relationship == "CONTAINS" and item.value_type in ("TEXT", "CODE") and own


def _said(concept: Key) -> str:
    return "" if concept in (ANY, ("", "")) else f"({concept[0]}, {concept[1]})"
