"""What an object is judged against: the source, the context, and what follows from both."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

from dicomnode.detectors.contract import Outcome
from dicomnode.dicom.references import InstanceReference, SeriesReference
from dicomnode.report.anatomy import laterality
from dicomnode.report.context import ReportContext, ResultUIDs, device_uid
from dicomnode.report.envelope import IDENTITY, SERIES_NUMBERS, clock, series_number
from dicomnode.report.evidence import requests
from dicomnode.report.patterns import held
from dicomnode.report.selfcheck.level import Known
from dicomnode.report.transcribe import copied, distinct, legible, text_of

DOCUMENTS = {"sr": ("sr", "sr-regions")}
"""The documents of a kind that has several; every other kind is one document of its own name."""

_DT = ("%Y%m%d%H%M%S.%f", "%Y%m%d%H%M%S")
_FORMATS = {
    "DA": ("%Y%m%d",),
    "TM": ("%H%M%S.%f", "%H%M%S"),
    "DT": (*_DT, *(f"{one}%z" for one in _DT)),
}

SEVERAL = ("seg", "pm")
"""Kinds with one Series per object, where the source's images do not fit into one: "seg", "seg-2", ..."""

_ORDERS = ("RequestAttributesSequence", "ReferencedRequestSequence")

STATUS = ("page", "pdf")
"""Kinds that may also be a status page, with UIDs of its own beside those of a result that may follow."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the objects of one result set are judged against.

    ``sources``: the source Instances; ``headers``: their Datasets without Pixel Data (at least one);
    ``context``: of the report.
    """

    sources: Sequence[InstanceReference]
    headers: Sequence[Dataset]
    context: ReportContext


@dataclass(frozen=True)
class Case:
    """``evidence`` and what follows from it, worked out once for a whole result set."""

    evidence: Evidence

    @property
    def context(self) -> ReportContext:
        return self.evidence.context

    @cached_property
    def headers(self) -> Sequence[Dataset]:
        """The source headers, as those who make the results read them."""
        return legible(self.evidence.headers)

    @property
    def header(self) -> Dataset:
        """The first header: Patient, Study and Series of the source."""
        return self.headers[0]

    @cached_property
    def series(self) -> SeriesReference:
        return self.evidence.sources[0].series

    @cached_property
    def uids(self) -> ResultUIDs:
        return ResultUIDs.of(self.series, self.context)

    def document_of(self, series_uid: str) -> str | None:
        """The document whose Series has this UID, None where none of ours has."""
        return self._documents.get(series_uid) or self._further_documents.get(series_uid)

    @cached_property
    def _documents(self) -> Mapping[str, str]:
        return {self.uids.series(own): name for name in SERIES_NUMBERS for own in self._names(name)}

    @cached_property
    def _further_documents(self) -> Mapping[str, str]:
        """Those beyond the first of their kind: as many UIDs as planes, which few result sets have to know."""
        numbers = range(2, self.planes + 1)
        return {self.uids.series(f"{name}-{n}"): name for name in SEVERAL for n in numbers}

    def _names(self, document: str) -> Iterator[str]:
        """Under which names the UIDs of the first ``document`` are derived."""
        yield document
        if document in STATUS:
            yield from (f"status {document} {outcome}" for outcome in Outcome)

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Series Number of each document."""
        first = next(iter(SERIES_NUMBERS))
        step = series_number(first, self.headers, self.context) - SERIES_NUMBERS[first]
        return {name: number + step for name, number in SERIES_NUMBERS.items()}

    @cached_property
    def identity(self) -> Dataset:
        """Patient and Study as every result has to state them."""
        return copied(self.header, IDENTITY)

    @cached_property
    def classes(self) -> Mapping[str, str]:
        """SOP Instance UID of each source Instance to its SOP Class."""
        return {one.SOPInstanceUID: one.SOPClassUID for one in self.evidence.sources}

    @cached_property
    def by_instance(self) -> Mapping[str, Dataset]:
        return {text_of(header, "SOPInstanceUID"): header for header in self.headers}

    @cached_property
    def levels(self) -> Known:
        """The items of the result set that were walked."""
        return {}

    @cached_property
    def passed(self) -> defaultdict[object, set[int]]:
        """Levels of items that a rule has judged already, by what names the rule."""
        return defaultdict(set)

    @cached_property
    def sound(self) -> dict[int, DataElement]:
        """Elements without fault, by their id, wherever they lie."""
        return {}

    @cached_property
    def contents(self) -> dict[int, tuple[Dataset, Any]]:
        """Reports by their id, and the content trees that were read from them."""
        return {}

    def judged_once(self, about: tuple[str, ...], judge: Callable[[], bool]) -> bool:
        """What ``judge`` says ``about`` something that comes again and again."""
        found = self._judged.get(about)
        if found is None:
            found = self._judged[about] = judge()
        return found

    @cached_property
    def _judged(self) -> dict[tuple[str, ...], bool]:
        return {}

    @cached_property
    def frames_of_reference(self) -> frozenset[str]:
        """The Frame of Reference UIDs that the sources state at the top of their headers."""
        stated = distinct(self.by_instance.values(), "FrameOfReferenceUID")
        return frozenset(str(one.get("FrameOfReferenceUID") or "") for one in stated) - {""}

    @cached_property
    def stamps(self) -> Mapping[str, frozenset[str]]:
        """``analysed_at`` as DA, TM and DT, in every time zone that the source states."""
        stated = distinct(self.headers, "TimezoneOffsetFromUTC")
        times = [clock(header, self.context) for header in stated] + [self.context.analysed_at]
        return {
            vr: frozenset(when.strftime(one) for when in times for one in formats) for vr, formats in _FORMATS.items()
        }

    @cached_property
    def side(self) -> str | None:
        return laterality(self.headers)

    @cached_property
    def device(self) -> str:
        return device_uid(self.context)

    @cached_property
    def planes(self) -> int:
        """How many planes the source has at least: Instances, or frames of them."""
        frames = sum(_count(header.get("NumberOfFrames")) for header in self.by_instance.values())
        return max(len(self.classes), len(self.headers), frames)

    def has_instance(self, document: str, uid: str) -> bool:
        """Say whether an object of ``document`` may have this SOP Instance UID."""
        derived, rest = self._derived.setdefault(document, (set(), self._instances(document)))
        while uid not in derived:
            following = next(rest, None)
            if following is None:
                return False
            derived.add(following)
        return True

    @cached_property
    def _derived(self) -> dict[str, tuple[set[str], Iterator[str]]]:
        """The UIDs of each document, as far as they had to be derived."""
        return {}

    def _instances(self, document: str) -> Iterator[str]:
        """One per plane, and one more for a picture of all planes; a status page is derived by its outcome."""
        yield from (self.uids.instance(document, index) for index in (self.planes, *range(self.planes)))
        if document in STATUS:
            yield from (self.uids.instance(name) for name in self._names(document))

    def states(self, keyword: str, value: Any) -> bool:
        """Say whether a source header has ``value`` in this attribute, at any depth: it may be repeated as it is."""
        return as_text(value) in self._stated[keyword]

    @cached_property
    def _stated(self) -> Mapping[str, frozenset[str]]:
        headers = self.by_instance.values()
        return _OnDemand(lambda keyword: frozenset(text for one in headers for text in _texts(one, keyword)))

    def has_uid(self, uid: str) -> bool:
        """Say whether the source, or a result that is superseded, has this UID, or refers to it."""
        return uid in self._near_uids or uid in self._far_uids

    @cached_property
    def _near_uids(self) -> frozenset[str]:
        found = {self.series.StudyInstanceUID}
        for one in (*self.evidence.sources, *self.context.supersedes):
            found.update((one.SOPInstanceUID, one.SeriesInstanceUID, one.StudyInstanceUID))
        return frozenset(found | set(self._stated["FrameOfReferenceUID"]))

    @cached_property
    def _far_uids(self) -> frozenset[str]:
        return frozenset(text for one in self.by_instance.values() for text in _texts(one, ""))

    def sources_of(self, dataset: Dataset) -> list[Dataset]:
        """The headers of the Instances that ``dataset`` was derived from; the first one where that cannot be told."""
        if not self._latest or self._latest[-1][0] is not dataset:
            self._latest[:] = [(dataset, self._sources_of(dataset))]
        return self._latest[-1][1]

    @cached_property
    def _latest(self) -> list[tuple[Dataset, list[Dataset]]]:
        """The object that was asked for last, and its sources: each rule asks again."""
        return []

    def _sources_of(self, dataset: Dataset) -> list[Dataset]:
        images = list(dataset.get("SourceImageSequence") or ())
        for series in () if images else dataset.get("ReferencedSeriesSequence") or ():
            images += series.get("ReferencedInstanceSequence") or ()
        found = (self.by_instance.get(str(image.get("ReferencedSOPInstanceUID"))) for image in images)
        return [header for header in found if header is not None] or [self.header]

    def source_of(self, dataset: Dataset) -> Dataset:
        """The first of ``sources_of``."""
        return self.sources_of(dataset)[0]

    def repeated(self, dataset: Dataset) -> frozenset[str]:
        """The sequences that say of patient and order just what the source says: repeated as it is, right or wrong."""
        found = {name for name in _ORDERS if dataset.get(name) and dataset[name].value in self._orders(dataset, name)}
        return frozenset(found | {name for name in IDENTITY if self._is_identity(dataset, name)})

    def _is_identity(self, dataset: Dataset, name: str) -> bool:
        own = held(dataset, name)
        return own is not None and own.VR == VR.SQ and own == held(self.identity, name)

    def _orders(self, dataset: Dataset, name: str) -> list[Sequence[Dataset]]:
        headers = (self.source_of(dataset), self.header)
        if name == "ReferencedRequestSequence":
            return [requests(header, self.series.StudyInstanceUID) for header in headers]
        return [copied(header, (name,)).get(name) or () for header in headers]


def _count(value: Any) -> int:
    text = str(value or "").strip()
    return int(text) if text.isdigit() else 1


class _OnDemand(dict[str, frozenset[str]]):
    """A mapping whose values are made when they are first asked for."""

    def __init__(self, make: Callable[[str], frozenset[str]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: str) -> frozenset[str]:
        self[key] = self._make(key)
        return self[key]


def _texts(dataset: Dataset, keyword: str) -> Iterator[str]:
    """The values of ``keyword`` at any depth, of all UIDs when it is "". What cannot be decoded is passed over.

    Only elements that are asked for are decoded: sources hold what breaks their VR, and pydicom quotes it in warnings.
    """
    wanted = tag_for_keyword(keyword) if keyword else None
    for tag in dataset.keys():  # noqa: SIM118 (iterating a Dataset decodes its elements)
        raw = dataset.get_item(tag)
        vr = str(raw.VR or _vr(tag))
        if vr == VR.SQ:
            for item in _decoded(dataset, tag) or ():
                yield from _texts(item, keyword)
        elif tag == wanted or (wanted is None and vr == VR.UI):
            yield as_text(_decoded(dataset, tag))


def _vr(tag: BaseTag) -> str:
    return dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"


def _decoded(dataset: Dataset, tag: BaseTag) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dataset[tag].value
    except (ValueError, TypeError, KeyError, NotImplementedError, OverflowError, EOFError):
        return None


def as_text(value: Any) -> str:
    """``value`` in a form in which equal values of different Python types are equal."""
    if isinstance(value, (list, tuple)) or (hasattr(value, "__iter__") and not isinstance(value, (str, bytes))):
        return "\\".join(as_text(one) for one in value)
    return "" if value is None else str(value)
