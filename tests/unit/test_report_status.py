"""A series without result gets a page that says so; it can never be read as "nothing found"."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pypdf import PdfReader

from dicomnode.detectors.contract import ModelIdentity, Outcome
from dicomnode.dicom.references import InstanceReference
from dicomnode.report import DerivedObject, build_results, to_bytes
from dicomnode.report.selfcheck import Evidence, faults
from dicomnode.report.status import StatusStatement, status_results
from tests.report_fixtures import context, findings, header, multiframe, source

NO_MODEL = ModelIdentity("", "", "", "")
REASON = "the planes are not evenly spaced: distances of 2.0 to 7.5 mm between neighbours"


def made(
    outcome: Outcome = Outcome.NOT_ANALYSED, gate: str = "volume", reason: str = REASON, modality: str = "CT", **changes
) -> list[DerivedObject]:
    volume, headers = multiframe(3) if modality == "MF" else source(modality, 3)
    used = list(dict.fromkeys(plane.source for plane in volume.planes))
    return list(status_results(used, headers[:1], StatusStatement(outcome, reason, gate, 7), context(**changes)))


def text_of(item: DerivedObject) -> str:
    (page,) = PdfReader(BytesIO(item.dataset.EncapsulatedDocument)).pages
    return " ".join(page.extract_text().split())


@pytest.mark.parametrize("outcome", [Outcome.NOT_ANALYSED, Outcome.FAILED])
def test_status_is_a_page_and_a_pdf(outcome: Outcome):
    items = made(outcome)
    assert [item.kind for item in items] == ["page", "pdf"]
    assert [item.dataset.SOPClassUID for item in items] == [
        "1.2.840.10008.5.1.4.1.1.7",
        "1.2.840.10008.5.1.4.1.1.104.1",
    ]
    assert [item.dataset.SeriesNumber for item in items] == [9010, 9009]
    assert all(outcome.upper() in item.dataset.SeriesDescription for item in items)


@pytest.mark.parametrize("outcome", [Outcome.NOT_ANALYSED, Outcome.FAILED])
def test_status_never_reads_as_a_negative_result(outcome: Outcome):
    """Neither Absent nor no findings anywhere; "normal" only where the page says that it says nothing of it."""
    for item in made(outcome):
        everything = str(item.dataset).lower() + (text_of(item).lower() if item.kind == "pdf" else "")
        assert "absent" not in everything
        assert "no finding" not in everything
        assert "normal" not in everything.replace("this says nothing about whether it is normal.", "")


def test_status_says_outcome_reason_gate_count_and_what_it_means():
    text = text_of(made()[1])
    assert "NOT ANALYSED" in text
    assert "This series was not analysed by the software. This says nothing about whether it is normal." in text
    assert REASON in text
    assert "Refused by The check of the images" in text
    assert "7 received" in text
    assert "RESEARCH – NOT FOR CLINICAL USE" in text
    assert "PHANTOM-1" in text


def test_status_of_a_failure_names_no_gate_and_says_there_is_no_result():
    text = text_of(made(Outcome.FAILED, gate="")[1])
    assert "FAILED" in text
    assert "There is no result" in text
    assert "Refused" not in text


def test_status_without_model_says_so_and_names_no_weights():
    page, pdf = made(model=NO_MODEL)
    assert "no model was run" in text_of(pdf)
    assert list(page.dataset.SoftwareVersions) == ["dicomnode 0.1.0", "ct-head 1.0.0"]
    assert list(page.dataset.ContributingEquipmentSequence[0].SoftwareVersions) == ["dicomnode 0.1.0", "ct-head 1.0.0"]


def test_status_with_model_names_it():
    assert "ct-head-aeu 1.2.0" in text_of(made()[1])


def test_status_says_what_came_late_or_not_at_all():
    text = text_of(made(incomplete=True, replaces_earlier=True, generation=2)[1])
    assert "INCOMPLETE SERIES" in text
    assert "Replaces an earlier result" in text


@pytest.mark.parametrize("model", [NO_MODEL, context().model])
@pytest.mark.parametrize("outcome", [Outcome.NOT_ANALYSED, Outcome.FAILED])
def test_status_gives_the_same_bytes_again(outcome: Outcome, model: ModelIdentity):
    first, second = ([to_bytes(item.dataset) for item in made(outcome, model=model)] for _ in range(2))
    assert first == second


def test_status_never_shares_a_uid_with_a_result_or_with_the_other_outcome():
    """A job that failed may be queued again and give a result of the same generation and weights."""
    volume, headers = source("CT", 3)
    results = build_results(volume, headers, findings(volume), context(), frozenset({"page", "pdf"}))
    items = [*results, *made(Outcome.FAILED), *made(Outcome.NOT_ANALYSED)]
    assert len({item.dataset.SOPInstanceUID for item in items}) == len(items)
    assert len({item.dataset.SeriesInstanceUID for item in items}) == len(items)


def test_status_points_to_the_series_it_is_about():
    page, pdf = (item.dataset for item in made())
    assert len(page.SourceImageSequence) == len(pdf.SourceInstanceSequence) == 3
    assert page.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5.1"


def test_status_shows_no_image_of_the_patient():
    page, _ = (item.dataset for item in made())
    assert page.RecognizableVisualFeatures == "NO"
    assert page.BurnedInAnnotation == "YES"
    pixels = np.frombuffer(page.PixelData, np.uint8).reshape(page.Rows, page.Columns, 3)
    assert 0 < (pixels != 0).any(axis=2).mean() < 0.3


def test_status_of_sources_with_hardly_a_header_is_made():
    bare = Dataset()
    bare.SOPClassUID, bare.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5.1"
    used = [InstanceReference("1.2.3.4", "1.2.3.4.5", "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5.1")]
    statement = StatusStatement(Outcome.NOT_ANALYSED, "no pixel could be decoded", "volume", 1)
    _, pdf = status_results(used, [bare], statement, context(model=NO_MODEL))
    assert "Patient not given" in text_of(pdf)


def test_status_of_a_long_reason_stays_on_its_page():
    reason = "a reason of many words and a path/" + "x" * 150 + " that goes on " * 12
    page, pdf = made(reason=reason)
    assert "a reason of many words" in text_of(pdf)
    assert len(page.dataset.ImageComments) <= 10240


@pytest.mark.parametrize("modality", ["CT", "MR", "CR", "DX", "MF"])
@pytest.mark.parametrize("model", [NO_MODEL, context().model])
def test_status_passes_the_own_conformance_gate(modality: str, model: ModelIdentity):
    volume, headers = multiframe(3) if modality == "MF" else source(modality, 3)
    evidence = Evidence([plane.source for plane in volume.planes], headers, context(model=model))
    for outcome in (Outcome.NOT_ANALYSED, Outcome.FAILED):
        for item in made(outcome, modality=modality, model=model):
            assert faults(item, evidence) == []


@pytest.mark.parametrize("outcome", [Outcome.FINDINGS, Outcome.NO_FINDINGS])
def test_status_of_an_analysed_series_is_refused(outcome: Outcome):
    with pytest.raises(ValueError, match="has results"):
        StatusStatement(outcome, "why", "", 1)


def test_status_without_a_reason_is_refused():
    with pytest.raises(ValueError, match="needs a reason"):
        StatusStatement(Outcome.FAILED, " ", "", 1)


def test_status_without_sources_is_refused():
    with pytest.raises(ValueError, match="has come"):
        list(status_results([], [header()], StatusStatement(Outcome.FAILED, "why", "", 1), context()))
