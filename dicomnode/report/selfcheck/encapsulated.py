"""Encapsulated PDF (PS3.3 A.45.1, C.24.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicomnode.report.selfcheck.case import Case
from dicomnode.report.selfcheck.coded import first

_FIXED = {
    "ConversionType": "WSD",
    "BurnedInAnnotation": "YES",
    "MIMETypeOfEncapsulatedDocument": "application/pdf",
}
_DATES = re.compile(rb"/(?:CreationDate|ModDate)\s*\(D:(\d{14})")
_REPORT = ("18748-4", "LN")
_NO_DATE = "20000101000000"
"""What a PDF writer puts when it is told not to look at the clock."""


def encapsulated_faults(dataset: Dataset, case: Case) -> Iterator[str]:
    """What is wrong with an Encapsulated PDF."""
    for keyword, value in _FIXED.items():
        if dataset.get(keyword) != value:
            yield f"{keyword}: not {value}"
    if first(dataset, "ConceptNameCodeSequence") != _REPORT:
        yield "ConceptNameCodeSequence: not (18748-4, LN)"
    if "RESEARCH" not in str(dataset.get("DocumentTitle") or "").upper():
        yield "DocumentTitle: does not say RESEARCH"
    if not dataset.get("SourceInstanceSequence"):
        yield "SourceInstanceSequence: missing, the document is made from images, Type 1C (PS3.3 C.24.2)"
    data = dataset.get("EncapsulatedDocument")
    if isinstance(data, bytes):
        yield from _document(data, dataset, case)


def _document(data: bytes, dataset: Dataset, case: Case) -> Iterator[str]:
    length = dataset.get("EncapsulatedDocumentLength")
    if length is None:
        yield "EncapsulatedDocumentLength: missing"
    elif length != len(data) and not (length == len(data) - 1 and data.endswith(b"\0")):
        yield "EncapsulatedDocumentLength: not the length without padding (PS3.3 C.24.2)"
    if len(data) % 2:
        yield "EncapsulatedDocument: has an odd length (PS3.5 7.1.1)"
    if not data.startswith(b"%PDF-"):
        yield "EncapsulatedDocument: is no PDF"
    stamps = {*case.stamps["DT"], _NO_DATE}
    if any(found.decode() not in stamps for found in _DATES.findall(data)):
        yield "EncapsulatedDocument: is stamped with another time than the start of the analysis"
