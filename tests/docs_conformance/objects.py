"""Created Instances: their attributes and content trees, read from results made of synthetic sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import UID

from dicomnode.dicom.header import ROUTING_KEYWORDS
from dicomnode.dicom.references import InstanceReference
from dicomnode.dicom.sop_classes import COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE
from dicomnode.report import build_results, codes
from dicomnode.report.envelope import _COPIED, SERIES_NUMBERS
from tests.docs_conformance.attributes import CAPTURE, COPY, DOCUMENT, SHARED
from tests.docs_conformance.markdown import table
from tests.report_fixtures import context, findings, no_findings, source

_OWN_GRID = (512, 512)
_ENLARGED = (64, 64)
_OPTIONAL = ("StudyDescription", "InstitutionName", "BodyPartExamined", "SliceThickness")
_TYPE_2 = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
)


def sections() -> dict[str, str]:
    """The tables of this module."""
    made = [*_rich(), *_sparse()]
    pictures = [one for one in made if one.SOPClassUID == SECONDARY_CAPTURE]
    documents = [one for one in made if one.SOPClassUID == COMPREHENSIVE_3D_SR]
    root, regions = _documents(made)
    return {
        "series-numbers": _series_numbers(),
        "sc-attributes": _attributes(pictures, SHARED | CAPTURE),
        "sr-attributes": _attributes(documents, SHARED | DOCUMENT),
        "sr-root-content": _content(root),
        "sr-regions-content": _content(regions),
        "own-codes": _own_codes(),
        "standard-codes": _standard_codes(),
        "attributes-read": _attributes_read(),
        "character-sets": ", ".join(f"`{term}`" for term in sorted(filter(None, python_encoding))),
    }


def _rich() -> Iterator[Dataset]:
    """Results of a source that states everything, superseding earlier ones of an incomplete Series."""
    item, code = Dataset(), codes.code_item(Code("CTH", "99LOCAL", "Head"))
    item.AccessionNumber, item.RequestedProcedureID, item.RequestedProcedureCodeSequence = "A", "R", [code]
    issuer, other = Dataset(), Dataset()
    issuer.LocalNamespaceEntityID = issuer.UniversalEntityID = "X"
    other.PatientID, other.IssuerOfPatientID = "P2", "Y"
    stated = {
        "RequestAttributesSequence": [item],
        "IssuerOfPatientID": "X",
        "IssuerOfPatientIDQualifiersSequence": [issuer],
        "OtherPatientIDsSequence": [other],
        "IssuerOfAccessionNumberSequence": [issuer],
        "TimezoneOffsetFromUTC": "+0100",
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "10",
        "LossyImageCompressionMethod": "ISO_10918_1",
        "PixelSpacingCalibrationType": "GEOMETRY",
        "PixelSpacingCalibrationDescription": "table",
        "PositionReferenceIndicator": "OM",
        "BodyPartExamined": "KNEE",
        "Laterality": "R",
    }
    volume, headers = source("CT", 2, _OWN_GRID, **stated)
    before = InstanceReference("1.2.3.4", "1.2.3.4.8", COMPREHENSIVE_3D_SR, "1.2.3.4.8.1")
    again = context(generation=2, supersedes=(before,), incomplete=True)
    yield from (one.dataset for one in build_results(volume, headers, findings(volume, ((0,),)), again))


def _sparse() -> Iterator[Dataset]:
    """Results of sources that state little."""
    poor = dict.fromkeys(_TYPE_2)
    for modality in ("CT", "DX"):
        keywords = [one for one in _OPTIONAL if modality == "CT" or one != "SliceThickness"]
        extra = {} if modality == "CT" else {"ImagerPixelSpacing": ["0.2", "0.3"]}
        volume, headers = source(modality, 1, _ENLARGED, **poor, **dict.fromkeys(keywords), **extra)
        for result in (no_findings(volume), findings(volume, ((0,),))):
            yield from (one.dataset for one in build_results(volume, headers, result, context()))


def _documents(made: Sequence[Dataset]) -> tuple[Dataset, Dataset]:
    """Root and regions document of the rich source."""
    root, regions = (
        one for one in made if one.SOPClassUID == COMPREHENSIVE_3D_SR and "PredecessorDocumentsSequence" in one
    )
    return root, regions


def _attributes(made: Sequence[Dataset], origins: dict[str, tuple[str, str]]) -> str:
    known = dict.fromkeys(_COPIED, (COPY, "source")) | origins
    found = sorted({element.tag for dataset in made for element in dataset})
    rows = []
    for tag in found:
        keyword = next(dataset[tag].keyword for dataset in made if tag in dataset)
        if keyword not in known:
            raise ValueError(f"attributes.py does not say where {keyword} comes from")
        where, words = known[keyword]
        rows.append(
            (dictionary_description(tag), str(Tag(tag)), dictionary_VR(tag), _presence(made, tag), where, words)
        )
    missing = {key for key in origins if tag_for_keyword(key) not in found}
    if missing:
        raise ValueError(f"attributes.py speaks of attributes that no result has: {sorted(missing)}")
    return table(("attribute", "tag", "VR", "presence", "source", "value"), rows)


def _presence(made: Sequence[Dataset], tag: int) -> str:
    """ALWAYS, VNAP, ANAP or EMPTY, as the samples show it."""
    there = [dataset[tag] for dataset in made if tag in dataset]
    if len(there) < len(made):
        return "ANAP"
    empty = [element.value is None or element.is_empty for element in there]
    return "EMPTY" if all(empty) else "VNAP" if any(empty) else "ALWAYS"


def _content(document: Dataset) -> str:
    lines = dict.fromkeys(_items(document, 1))
    return table(("level", "relationship", "value type", "concept name", "template"), lines)


def _items(item: Dataset, level: int) -> Iterator[tuple[str, ...]]:
    """The content items, depth first; those alike come out alike."""
    for child in item.get("ContentSequence", ()):
        name = child.get("ConceptNameCodeSequence")
        concept = _code(name[0]) if name else ""
        template = child.get("ContentTemplateSequence")
        tid = f"TID {template[0].TemplateIdentifier}" if template else _TEMPLATES.get(concept, "")
        yield (">" * level, child.RelationshipType, child.ValueType, concept, tid)
        yield from _items(child, level + 1)


_TEMPLATES = {
    "(121005, DCM, Observer Type)": "TID 1002",
    "(121012, DCM, Device Observer UID)": "TID 1004",
    "(121013, DCM, Device Observer Name)": "TID 1004",
    "(121014, DCM, Device Observer Manufacturer)": "TID 1004",
    "(121015, DCM, Device Observer Model Name)": "TID 1004",
    "(121016, DCM, Device Observer Serial Number)": "TID 1004",
    "(111028, DCM, Image Library)": "TID 1600",
    "(126200, DCM, Image Library Group)": "TID 1600, 1602, 1604",
    "(111001, DCM, Algorithm Name)": "TID 4019",
    "(111003, DCM, Algorithm Version)": "TID 4019",
    "(111002, DCM, Algorithm Parameters)": "TID 4019",
}


def _code(item: Dataset) -> str:
    return f"({item.CodeValue}, {item.CodingSchemeDesignator}, {item.CodeMeaning})"


def _all_codes() -> Iterable[Code]:
    return (value for value in vars(codes).values() if isinstance(value, Code))


def _own_codes() -> str:
    mine = (one for one in _all_codes() if one.scheme_designator == codes.SCHEME)
    return table(("code value", "scheme", "meaning"), ((one.value, one.scheme_designator, one.meaning) for one in mine))


def _standard_codes() -> str:
    reported = (codes.procedure_reported(modality) for modality in ("CT", "MR", ""))
    others = dict.fromkeys((*(one for one in _all_codes() if one.scheme_designator != codes.SCHEME), *reported))
    return table(
        ("code value", "scheme", "meaning"), ((one.value, one.scheme_designator, one.meaning) for one in others)
    )


def _series_numbers() -> str:
    names = {
        "sc": ("overlay, one Instance per source image or frame", SECONDARY_CAPTURE),
        "sr": ("root document: outcome, score, threshold, every analysed image", COMPREHENSIVE_3D_SR),
        "sr-regions": ("regions document, only with findings: one region per finding", COMPREHENSIVE_3D_SR),
    }
    rows = ((number, *_named(names[kind])) for kind, number in SERIES_NUMBERS.items())
    return table(("Series Number", "object", "SOP Class"), rows)


def _named(pair: tuple[str, str]) -> tuple[str, str]:
    return pair[0], str(UID(pair[1]).name)


def _attributes_read() -> str:
    tags = sorted((Tag(tag_for_keyword(keyword)), keyword) for keyword in ROUTING_KEYWORDS)
    return table(("tag", "attribute"), ((str(tag), dictionary_description(tag)) for tag, _ in tags))
