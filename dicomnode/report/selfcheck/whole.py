"""What only a whole result set can break: one UID one object, references that resolve, findings that agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from dicomnode.report import codes
from dicomnode.report.context import DerivedObject
from dicomnode.report.patterns import value_of
from dicomnode.report.selfcheck.case import Case
from dicomnode.report.selfcheck.level import Level, walked
from dicomnode.report.selfcheck.sr_items import Item, content
from dicomnode.report.selfcheck.sr_rows import FINDING, TRACKING_UID
from dicomnode.report.selfcheck.sr_rules import groups

_OUTSIDE = frozenset({"RequestAttributesSequence", "ReferencedRequestSequence", "PredecessorDocumentsSequence"})
"""Where a result may refer to what is neither source nor result: orders, and earlier generations."""

_OF_FINDINGS = frozenset({"seg", "gsps", "sr-regions", "sr-volume"})
"""Documents that track every finding."""

_PARTS = frozenset({"sr-regions", "sr-volume"})

Reference = tuple[str, str, int]
"""SOP Class UID, SOP Instance UID, Segment Number or 0."""


@dataclass(slots=True)
class ResultSet:
    """What has gone by of one result set: UIDs and counts, never the Datasets themselves."""

    case: Case
    instances: dict[str, str] = field(default_factory=dict)
    segments: dict[str, frozenset[int]] = field(default_factory=dict)
    series: dict[str, tuple[str, ...]] = field(default_factory=dict)
    references: dict[Reference, str] = field(default_factory=dict)
    tracked: dict[str, set[str]] = field(default_factory=dict)
    documents: set[str] = field(default_factory=set)
    absent: bool = False

    def add(self, item: DerivedObject) -> Iterator[str]:
        """Take note of one more object; yield what is wrong with it beside those that came before."""
        dataset, uid = item.dataset, str(item.dataset.SOPInstanceUID)
        if uid in self.instances or uid in self.case.classes:
            yield "SOPInstanceUID: another object has it already (PS3.3 C.12.1)"
        self.instances[uid] = str(dataset.SOPClassUID)
        numbers = (value_of(one, "SegmentNumber") for one in value_of(dataset, "SegmentSequence") or ())
        self.segments[uid] = frozenset(number for number in numbers if isinstance(number, int))
        keywords = ("SOPClassUID", "Modality", "SeriesNumber", "SeriesDate", "SeriesTime")
        shared = (item.kind, *(str(value_of(dataset, one)) for one in keywords))
        if self.series.setdefault(str(dataset.SeriesInstanceUID), shared) != shared:
            yield "SeriesInstanceUID: one Series holds objects of different kinds (PS3.3 C.7.3.1)"
        for reference in _references(walked(dataset, known=self.case.levels), self.case.passed["references"]):
            self.references.setdefault(reference, item.kind)
        self._track(item.kind, dataset)

    def _track(self, kind: str, dataset: Dataset) -> None:
        document = self.case.document_of(str(dataset.SeriesInstanceUID)) or kind
        self.documents.add(document)
        if document in _OF_FINDINGS:
            self.tracked.setdefault(document, set()).update(_tracked(dataset, self.case))
        if document == "sr":
            self.absent = any(_is_absent(group) for group in groups(content(dataset, self.case)))

    def faults(self) -> Iterator[str]:
        """What is wrong with the set now that all of its objects have gone by."""
        for (sop_class, uid, segment), kind in self.references.items():
            known = self.case.classes.get(uid) or self.instances.get(uid)
            if known != sop_class:
                yield f"{kind}: ReferencedSOPInstanceUID resolves neither to a source nor to an object of the set"
            elif segment and segment not in self.segments.get(uid, frozenset()):
                yield f"{kind}: ReferencedSegmentNumber: the segmentation has no such segment"
        if len({frozenset(uids) for uids in self.tracked.values()}) > 1:
            yield f"TrackingUID: {', '.join(sorted(self.tracked))} do not track the same findings"
        if self.documents & _PARTS and "sr" not in self.documents:
            yield "sr: the root document, which stands for the whole analysis, is missing (IHE AIR)"
        if self.absent and any(self.tracked.values()):
            yield "ConceptCodeSequence: Absent is stated beside documents that have findings"


def _is_absent(group: Item) -> bool:
    return any(item.value == (codes.ABSENT.value, "SCT") for item in group.named(FINDING))


def _tracked(dataset: Dataset, case: Case) -> Iterator[str]:
    for item in content(dataset, case).below:
        if item.concept == TRACKING_UID:
            yield str(value_of(item.dataset, "UID"))
    for segment in value_of(dataset, "SegmentSequence") or ():
        yield str(value_of(segment, "TrackingUID"))
    for annotation in value_of(dataset, "GraphicAnnotationSequence") or ():
        for graphic in value_of(annotation, "GraphicObjectSequence") or ():
            yield str(value_of(graphic, "TrackingUID"))


def _references(level: Level, passed: set[int]) -> Iterator[Reference]:
    for name, items in level.items.items():
        for item in () if name in _OUTSIDE else items:
            if id(item) not in passed:
                passed.add(id(item))
                uid = item.value("ReferencedSOPInstanceUID")
                if uid is not None:
                    number = item.value("ReferencedSegmentNumber")
                    yield str(item.value("ReferencedSOPClassUID")), str(uid), number if isinstance(number, int) else 0
                yield from _references(item, passed)
