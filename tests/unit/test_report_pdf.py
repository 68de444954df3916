"""The PDF is one page of real text with embedded typefaces, and the same bytes every time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import config
from pydicom.dataelem import DataElement
from pypdf import PdfReader

from dicomnode.detectors.contract import Outcome
from dicomnode.report import build_results, pdf, to_bytes
from dicomnode.report.page_content import PageContent, headline
from dicomnode.report.page_patient import date_time
from dicomnode.report.pdf import pdf_bytes
from tests.report_fixtures import context, findings, header, multiframe, no_findings, source

ROOT = Path(__file__).parents[2]


def pdf_of(volume, headers, result, **changes):
    (one,) = build_results(volume, headers, result, context(**changes), frozenset({"pdf"}))
    return one.dataset


def document(dataset) -> bytes:
    return dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]


def text_of(dataset) -> str:
    (page,) = PdfReader(BytesIO(document(dataset))).pages
    return " ".join(page.extract_text().split())


def sources_of(modality: str):
    return multiframe(3) if modality == "MF" else source(modality, 3)


@pytest.mark.parametrize("modality", ["CT", "MR", "CR", "DX", "MF"])
@pytest.mark.parametrize("found", [True, False])
def test_pdf_is_one_page_with_outcome_score_threshold_and_banner_as_text(modality: str, found: bool):
    volume, headers = sources_of(modality)
    text = text_of(pdf_of(volume, headers, findings(volume) if found else no_findings(volume)))
    assert ("NO FINDINGS" in text) is not found
    assert ("Series score 0.98" if found else "Series score 0.40") in text
    assert "Threshold 0.95" in text
    assert "RESEARCH – NOT FOR CLINICAL USE" in text
    assert "not a medical device" in text
    assert "Phantom, Synthetic" in text
    assert "SHA-256 ab12cd34ab12cd34" in text
    assert "UTC+00:00" in text


def test_pdf_has_all_of_its_typefaces_embedded():
    volume, headers = source("CT", 3)
    (page,) = PdfReader(BytesIO(document(pdf_of(volume, headers, findings(volume))))).pages
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    assert {font["/BaseFont"].partition("+")[2] for font in fonts} == {
        "DejaVuSansCondensed",
        "DejaVuSansCondensed-Bold",
    }
    assert all("/FontFile2" in font["/FontDescriptor"] for font in fonts)


def test_pdf_document_data_names_no_patient_and_is_dated_by_the_analysis():
    volume, headers = source("CT", 1, TimezoneOffsetFromUTC="+0200")
    reader = PdfReader(BytesIO(document(pdf_of(volume, headers, no_findings(volume)))))
    assert reader.metadata["/CreationDate"] == reader.metadata["/ModDate"] == "D:20261121083001+02'00'"
    assert "Phantom" not in str(reader.metadata)


@pytest.mark.parametrize("name", ["Люкceмбypг^Иван", "Διονυσιος", "Yamada^Tarou=山田^太郎", "山田^太郎", "홍^길동"])
def test_pdf_of_any_name_is_made_and_writes_it_right_or_not_at_all(name: str):
    volume, headers = source("CT", 1, PatientName=name)
    dataset = pdf_of(volume, headers, no_findings(volume))
    text, drawn = text_of(dataset), name.split("=", maxsplit=1)[0].replace("^", ", ")
    assert (drawn in text) != ("identify by the ID" in text)
    assert "PHANTOM-1" in text
    assert str(dataset.PatientName) == name


def test_pdf_gives_the_same_bytes_again():
    volume, headers = source("CT", 14)
    assert to_bytes(pdf_of(volume, headers, findings(volume))) == to_bytes(pdf_of(volume, headers, findings(volume)))


def test_pdf_gives_the_same_bytes_in_another_process():
    code = (
        "import hashlib; from tests.report_fixtures import *; from dicomnode.report import build_results, to_bytes;"
        "v, h = source('CT', 3); r = build_results(v, h, findings(v), context(), frozenset({'pdf', 'page'}));"
        "print(hashlib.sha256(b''.join(to_bytes(one.dataset) for one in r)).hexdigest())"
    )
    seen = set()
    for seed, zone in (("0", "UTC"), ("7", "Asia/Tokyo")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": str(ROOT)}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        seen.add(run.stdout)
    assert len(seen) == 1


def test_pdf_is_an_encapsulated_document_with_what_the_module_demands():
    """PS3.3 C.24.1, C.24.2, C.8.6.1."""
    volume, headers = source("CT", 3, AcquisitionDate="20260105", AcquisitionTime="101500", Laterality="L")
    one = pdf_of(volume, headers, findings(volume))
    assert one.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
    assert (one.Modality, one.ConversionType, one.BurnedInAnnotation) == ("DOC", "WSD", "YES")
    assert one.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert one.DocumentTitle == "AI anomaly detection report: FINDINGS (RESEARCH)"
    concept = one.ConceptNameCodeSequence[0]
    assert (concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning) == (
        "18748-4",
        "LN",
        "Diagnostic imaging study",
    )
    assert [item.ReferencedSOPInstanceUID for item in one.SourceInstanceSequence] == [
        plane.source.SOPInstanceUID for plane in volume.planes
    ]
    assert (one.SeriesNumber, one.InstanceNumber, one.AcquisitionDateTime) == (9009, 1, "20260105101500")
    assert "Laterality" not in one
    assert "PixelData" not in one


def test_pdf_of_a_multi_frame_source_names_it_once():
    volume, headers = multiframe(3)
    assert len(pdf_of(volume, headers, findings(volume)).SourceInstanceSequence) == 1


@pytest.mark.parametrize("length", [1000, 1001])
def test_pdf_is_padded_to_an_even_length_and_states_its_own(length: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pdf, "pdf_bytes", lambda *_: b"%PDF-".ljust(length, b"x"))
    volume, headers = source("CT", 1)
    one = pdf_of(volume, headers, no_findings(volume))
    assert len(one.EncapsulatedDocument) == 1000 + 2 * (length % 2)
    assert one.EncapsulatedDocumentLength == length
    assert one.EncapsulatedDocument[length:] == b"\0" * (length % 2)


def test_pdf_shows_thirty_findings_on_one_page():
    volume, headers = source("CT", 30)
    text = text_of(pdf_of(volume, headers, findings(volume, tuple((n,) for n in range(30)))))
    assert "Findings (30)" in text
    assert "finding-1 " in text


@pytest.mark.parametrize("outcome", list(Outcome))
def test_pdf_of_any_outcome_without_pictures_is_one_page(outcome: Outcome):
    bare = PageContent(
        outcome, headline(outcome), "", alarming=False, patient=(), series=(), method=(), figures=(), findings=(),
        statements=(), notices=(), banner="RESEARCH",
    )  # fmt: skip
    assert len(PdfReader(BytesIO(pdf_bytes(bare, None, context().analysed_at))).pages) == 1


def test_pdf_changes_with_its_content():
    volume, headers = source("CT", 1)
    result = no_findings(volume)
    assert document(pdf_of(volume, headers, result)) != document(pdf_of(volume, headers, replace(result, score=0.41)))


@pytest.mark.parametrize(
    ("time", "whole"), [("101500", "20260105101500"), ("10:15", "20260105"), ("", "20260105"), ("99", "20260105")]
)
def test_report_pdf_joins_acquisition_date_and_time_only_when_the_time_is_one(time, whole):
    own = header("DX")
    own.AcquisitionDate = "20260105"
    own.add(DataElement("AcquisitionTime", "TM", time, validation_mode=config.IGNORE))
    assert date_time(own) == whole
