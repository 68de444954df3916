"""Created Instances: their attributes and content trees, read from results made of synthetic sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import UID

from dicomnode.dicom.header import ROUTING_KEYWORDS
from dicomnode.report import codes
from dicomnode.report.envelope import IDENTITY, SERIES_NUMBERS
from dicomnode.report.montage import LONG_SERIES
from tests.docs_conformance.attributes import CAPTURE, COPY, DOCUMENT, SHARED, Origins
from tests.docs_conformance.attributes_derived import (
    KEY_OBJECTS,
    MULTI_FRAME,
    PARAMETRIC_MAP,
    PDF,
    PRESENTATION_STATE,
    SEGMENTATION,
    SERIES,
)
from tests.docs_conformance.markdown import table
from tests.docs_conformance.samples import of_kind, samples


def sections() -> dict[str, str]:
    """The tables of this module."""
    root, regions = _of_series("sr"), _of_series("sr-regions")
    return {
        "series-numbers": _series_numbers(),
        "sc-attributes": _attributes(of_kind("sc", "page"), SHARED | CAPTURE),
        "mf-sc-attributes": _attributes(of_kind("mf-sc"), MULTI_FRAME, SHARED | CAPTURE),
        "sr-attributes": _attributes(of_kind("sr", "sr-volume"), SHARED | DOCUMENT),
        "ko-attributes": _attributes(of_kind("ko"), KEY_OBJECTS, SHARED),
        "seg-attributes": _attributes(of_kind("seg"), SEGMENTATION, {**SHARED, **SERIES}),
        "pm-attributes": _attributes(of_kind("pm"), PARAMETRIC_MAP, {**SHARED, **SERIES}),
        "gsps-attributes": _attributes(of_kind("gsps"), PRESENTATION_STATE, {**SHARED, **SERIES}),
        "pdf-attributes": _attributes(of_kind("pdf"), PDF, SHARED),
        "sr-root-content": _content(root),
        "sr-regions-content": _content(regions),
        "sr-volume-content": _content(_of_series("sr-volume")),
        "ko-content": _content(_of_series("ko")),
        "own-codes": _own_codes(),
        "standard-codes": _standard_codes(),
        "attributes-read": _attributes_read(),
        "character-sets": ", ".join(f"`{term}`" for term in sorted(filter(None, python_encoding))),
    }


def _of_series(document: str) -> Dataset:
    """The first sample of one document: the one of the source that states everything."""
    return next(one.dataset for one in samples() if SERIES_NUMBERS[document] == one.dataset.SeriesNumber)


def _attributes(
    made: Sequence[Dataset], origins: Origins, others: Mapping[str, tuple[str, str]] = MappingProxyType({})
) -> str:
    """``origins``: attributes that have to be there; ``others``: some that may be."""
    known = {**dict.fromkeys(IDENTITY, (COPY, "source")), **others, **origins}
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


_DOCUMENTS = {
    "sc": f"overlay, one Instance per source image or frame; a montage first where there are more than {LONG_SERIES}",
    "sr": "root document: outcome, score, threshold, every analysed image",
    "sr-regions": "regions document, only with findings: one region per finding",
    "sr-volume": "volume document, only beside a segmentation: one group per segment",
    "seg": "segmentation, only with findings: one segment per finding",
    "pm": "anomaly heat of every analysed pixel",
    "ko": "the images with findings, only with findings",
    "gsps": "outlines over the source, only with findings",
    "pdf": "the result, or why there is none, on one page",
    "page": "the same page as a picture",
    "mf-sc": "all overlays as the frames of one Instance",
}


def _series_numbers() -> str:
    rows = (
        (number, _DOCUMENTS[name], UID(_of_series(name).SOPClassUID).name) for name, number in SERIES_NUMBERS.items()
    )
    return table(("Series Number", "object", "SOP Class"), rows)


def _attributes_read() -> str:
    tags = sorted((Tag(tag_for_keyword(keyword)), keyword) for keyword in ROUTING_KEYWORDS)
    return table(("tag", "attribute"), ((str(tag), dictionary_description(tag)) for tag, _ in tags))
