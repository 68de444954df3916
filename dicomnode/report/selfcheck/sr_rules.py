"""Own rules of SR and KO documents: IHE AIR, one template per document, evidence, honesty about the outcome."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard

from dicomnode.report import codes
from dicomnode.report.selfcheck.case import Case, as_text
from dicomnode.report.selfcheck.coded import Key, first
from dicomnode.report.selfcheck.sr_items import Item, content, item_faults, row_faults, units
from dicomnode.report.selfcheck.sr_rows import (
    COMMENT,
    DEVICE_UID,
    FINDING,
    GROUP,
    LIBRARY,
    MEASUREMENTS,
    PROCEDURE,
    REGION,
    SEGMENT,
    SOURCE_OF_SEGMENT,
    SOURCE_SERIES,
    TID_2010,
    TRACKING_ID,
    TRACKING_UID,
    tid_1500,
)

TEMPLATES = {"sr": "1501", "sr-regions": "1410", "sr-volume": "1411"}
"""The one template of the groups of each document: validators mix them up where a document has two."""

_EVIDENCE = "CurrentRequestedProcedureEvidenceSequence"
_REPORT, _OF_INTEREST = ("126000", "DCM"), ("113000", "DCM")
_ABSENT, _PRESENT = (codes.ABSENT.value, "SCT"), (codes.PRESENT.value, "SCT")
_SIZES = {
    (codes.VOLUME.value, "SCT"): (codes.CUBIC_MILLIMETRE.value, "UCUM"),
    (codes.AREA.value, "SCT"): (codes.SQUARE_MILLIMETRE.value, "UCUM"),
}
_SCORE, _THRESHOLD = (codes.ANOMALY_SCORE.value, codes.SCHEME), (codes.SCORE_THRESHOLD.value, codes.SCHEME)


def report_faults(dataset: Dataset, case: Case) -> Iterator[str]:
    """What is wrong with a Comprehensive 3D SR."""
    document = case.document_of(str(dataset.get("SeriesInstanceUID"))) or "sr"
    template = TEMPLATES.get(document, "1501")
    yield from _root(dataset, "1500", _REPORT)
    root = content(dataset, case)
    yield from item_faults(root, case)
    yield from row_faults(root, tid_1500(template), case)
    yield from _state(root, case)
    yield from _observer(root, case)
    yield from _procedure(root, case)
    yield from _images(root, case)
    if not any(
        item.concept == COMMENT and case.context.banner in str(item.dataset.get("TextValue")) for item in root.children
    ):
        yield "ContentSequence: no comment (121106, DCM) with the research banner"
    for group in groups(root):
        yield from _group(group, template, case)


def groups(root: Item) -> list[Item]:
    """The measurement groups of a document."""
    return [group for top in root.children if top.concept == MEASUREMENTS for group in top.named(GROUP)]


def key_object_faults(dataset: Dataset, case: Case) -> Iterator[str]:
    """What is wrong with a Key Object Selection."""
    yield from _root(dataset, "2010", _OF_INTEREST)
    root = content(dataset, case)
    yield from item_faults(root, case)
    yield from row_faults(root, TID_2010, case, extensible=False)
    yield from _observer(root, case)
    flagged = [one for item in root.below for one in item.references]
    if not flagged:
        yield "ContentSequence: no object is flagged (TID 2010 row 8)"
    listed = evidence(root)
    if any(str(one.value("ReferencedSOPInstanceUID")) not in listed for one in flagged):
        yield f"{_EVIDENCE}: a flagged object is missing (PS3.3 C.17.6.2)"
    if not any("RESEARCH" in str(item.dataset.get("TextValue") or "").upper() for item in root.children):
        yield "ContentSequence: the Key Object Description (113012, DCM) does not say RESEARCH"


def _root(dataset: Dataset, template: str, title: Key) -> Iterator[str]:
    if dataset.get("ValueType") != "CONTAINER":
        yield "ValueType: the root is a CONTAINER (PS3.3 C.17.3)"
    if first(dataset, "ConceptNameCodeSequence") != title:
        yield f"ConceptNameCodeSequence: not ({title[0]}, {title[1]})"
    items = dataset.get("ContentTemplateSequence") or [Dataset()]
    if (items[0].get("TemplateIdentifier"), items[0].get("MappingResource")) != (template, "DCMR"):
        yield f"ContentTemplateSequence: TemplateIdentifier and MappingResource are not {template}, DCMR (PS3.3 C.18.8)"


def _state(root: Item, case: Case) -> Iterator[str]:
    expected = {
        "CompletionFlag": "PARTIAL" if case.context.incomplete else "COMPLETE",
        "VerificationFlag": "UNVERIFIED",
        "PreliminaryFlag": "PRELIMINARY",
    }
    for keyword, value in expected.items():
        if root.level.value(keyword) != value:
            yield f"{keyword}: not {value} (PS3.3 C.17.2)"
    predecessors = evidence(root, "PredecessorDocumentsSequence")
    if predecessors != {one.SOPInstanceUID for one in case.context.supersedes}:
        yield "PredecessorDocumentsSequence: not the documents that this one supersedes (PS3.3 C.17.2, Type 1C)"


def _observer(root: Item, case: Case) -> Iterator[str]:
    for item in root.children:
        if item.concept == DEVICE_UID and str(item.dataset.get("UID")) != case.device:
            yield f"{item.path}.UID: not the Device UID of the detector and its weights (TID 1004 row 1)"


def _procedure(root: Item, case: Case) -> Iterator[str]:
    """IHE AIR: the imaging procedure, not the algorithm; validators want it from CID 100."""
    allowed = {(code.value, code.scheme_designator) for code in standard.CID100.concepts.values()}
    own = codes.procedure_reported(str(case.header.get("Modality") or ""))
    for item in root.children:
        if item.concept == PROCEDURE and (
            item.value not in allowed or item.value != (own.value, own.scheme_designator)
        ):
            yield f"{item.path}.ConceptCodeSequence: not the imaging procedure, of CID 100 (TID 1500 row 4)"


def evidence(root: Item, keyword: str = _EVIDENCE) -> set[str]:
    """SOP Instance UIDs in a Hierarchical SOP Instance Reference sequence."""
    return {
        str(one.value("ReferencedSOPInstanceUID"))
        for study in root.level.items.get(keyword, ())
        for series in study.items.get("ReferencedSeriesSequence", ())
        for one in series.items.get("ReferencedSOPSequence", ())
    }


def _images(root: Item, case: Case) -> Iterator[str]:
    """IHE AIR: all analysed images are in the Image Library and the evidence; all that is referred to is evidence."""
    sources = set(case.classes)
    listed = evidence(root)
    if not sources <= listed:
        yield f"{_EVIDENCE}: a source image is missing (PS3.3 C.17.2.3, Type 1C)"
    in_library: set[str] = set()
    referred: set[str] = set()
    for top in root.children:
        found = {str(one.value("ReferencedSOPInstanceUID")) for item in top.below for one in item.references}
        referred |= found
        if top.concept == LIBRARY:
            in_library |= found
    if in_library != sources:
        yield "ContentSequence(111028): the Image Library is not exactly the source images (TID 1600)"
    if not referred <= listed:
        yield f"{_EVIDENCE}: something that the content refers to is missing (PS3.3 C.17.2.3)"
    if not listed <= referred | sources:
        yield f"{_EVIDENCE}: something is listed that the content does not refer to (PS3.3 C.17.2.3)"


def _group(group: Item, template: str, case: Case) -> Iterator[str]:
    templates = group.dataset.get("ContentTemplateSequence") or ()
    if [one.get("TemplateIdentifier") for one in templates] not in ([], [template]):
        yield f"{group.path}.ContentTemplateSequence: groups of this document are of TID {template}, never mixed"
    yield from _tracking(group, template, case)
    yield from _algorithms(group, case)
    if template == "1501":
        yield from _outcome(group)
    elif template == "1410":
        yield from _editable(group)
    else:
        yield from _volume(group, case)


def _tracking(group: Item, template: str, case: Case) -> Iterator[str]:
    identifiers = [as_text(item.dataset.get("TextValue")) for item in group.named(TRACKING_ID)]
    uids = [as_text(item.dataset.get("UID")) for item in group.named(TRACKING_UID)]
    expected = ["series"] if template == "1501" else identifiers
    if uids and uids != [case.uids.tracking(one) for one in expected]:
        yield f"{group.path}.UID: the Tracking Unique Identifier is not that of its finding (TID 1501 row 3)"


def _algorithms(group: Item, case: Case) -> Iterator[str]:
    """TID 4019 in the group and in each of its measurements, and it is this detector."""
    own = {("111001", "DCM"): case.context.detector, ("111003", "DCM"): case.context.detector_version}
    for parent in (group, *(item for item in group.children if item.value_type == "NUM")):
        for concept, text in own.items():
            if any(as_text(item.dataset.get("TextValue")) != text for item in parent.named(concept)):
                yield f"{parent.path}: names another algorithm than the one that was run (TID 4019)"


def _outcome(group: Item) -> Iterator[str]:
    """Present or Absent, and both only with the score and the threshold that they follow from."""
    findings = [item.value for item in group.named(FINDING)]
    if len(findings) != 1 or findings[0] not in (_ABSENT, _PRESENT):
        yield f"{group.path}.ConceptCodeSequence: the finding is Present or Absent, nothing else (TID 1501 row 3b)"
    values = []
    for concept in (_SCORE, _THRESHOLD):
        numbers = [value for item in group.named(concept) if (value := measured(item)) is not None]
        if not numbers:
            yield f"{group.path}: an outcome is stated without {concept[0]}"
        if any(not 0.0 <= value <= 1.0 for value in numbers):
            yield f"{group.path}: {concept[0]} is not between 0 and 1"
        values += numbers[:1]
    if len(values) == 2 and findings and (findings[0] == _PRESENT) != (values[0] >= values[1]):
        yield f"{group.path}: Present or Absent contradicts the score at its threshold"


def measured(item: Item) -> float | None:
    """The exact value of a NUM item, None where it has none."""
    for one in item.dataset.get("MeasuredValueSequence") or ():
        value = one.get("FloatingPointValue", one.get("NumericValue"))
        return None if value is None else float(value)
    return None


def _editable(group: Item) -> Iterator[str]:
    """What lets a viewer take a region over as its own measurement."""
    regions = [list(item.dataset.get("GraphicData") or ()) for item in group.named(REGION)]
    numbers = [item for item in group.children if item.value_type == "NUM"]
    own = [
        list(item.dataset.get("GraphicData") or ())
        for number in numbers[:1]
        for item in number.children
        if (item.value_type, item.relationship) == ("SCOORD", "INFERRED FROM")
    ]
    if own != regions[:1]:
        yield f"{group.path}.GraphicData: the first NUM does not have the region's coordinates as its source"
    if not group.named(COMMENT):
        yield f"{group.path}: no comment (121106, DCM), which is the label in viewers"


def _volume(group: Item, case: Case) -> Iterator[str]:
    for concept, unit in _SIZES.items():
        for item in group.named(concept):
            if (measured(item) or 0.0) <= 0.0 or units(item) != unit:
                yield f"{item.path}: a size is a positive number of {unit[0]}"
    for item in group.named(SEGMENT):
        for one in item.dataset.get("ReferencedSOPSequence") or ():
            if not one.get("ReferencedSegmentNumber"):
                yield f"{item.path}.ReferencedSegmentNumber: missing (TID 1411 row 7)"
    series = [as_text(item.dataset.get("UID")) for item in group.named(SOURCE_SERIES)]
    if bool(series) == bool(group.named(SOURCE_OF_SEGMENT)):
        yield f"{group.path}: either the source series or the source images (TID 1411 rows 11, 12)"
    if any(uid != case.series.SeriesInstanceUID for uid in series):
        yield f"{group.path}.UID: not the source Series (TID 1411 row 12)"
