"""The options of PS3.15 E.3 one by one: what they keep, what they clean, and what goes all the same."""

from __future__ import annotations

import io

import pydicom
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ComprehensiveSRStorage

from dicomnode.deid.profile import Profile
from dicomnode.deid.words import cleaned, names_in
from tests.unit.deid_objects import PSEUDONYMS, code, file_of, image, item, new_of, transformed


def _node(kind: str, name: tuple[str, str, str], **more: object) -> Dataset:
    return item(RelationshipType="CONTAINS", ValueType=kind, ConceptNameCodeSequence=code(*name), **more)


def report() -> pydicom.FileDataset:
    """A structured report with every kind of content that may name somebody."""
    dataset = image(
        ComprehensiveSRStorage, Modality="SR", ValueType="CONTAINER", ContinuityOfContent="SEPARATE", Rows=None,
        Columns=None, BitsAllocated=None, BitsStored=None, HighBit=None, PixelRepresentation=None, SamplesPerPixel=None,
        PhotometricInterpretation=None, PixelData=None, ImageType=None, BurnedInAnnotation=None,
    )  # fmt: skip
    dataset.ConceptNameCodeSequence = code("126000", "DCM", "Imaging Measurement Report")
    picture = _node("IMAGE", ("121112", "DCM", "Source of Measurement"))
    picture.ReferencedSOPSequence = Sequence([item(ReferencedSOPInstanceUID="1.2.3.4")])
    length = item(NumericValue="12.5", MeasurementUnitsCodeSequence=code("mm", "UCUM", "millimeter"))
    dataset.ContentSequence = Sequence([
        _node("TEXT", ("121071", "DCM", "Finding"), TextValue="VTEXTV"),
        _node("PNAME", ("121008", "DCM", "Person Observer Name"), PersonName="VPNAMEV^A"),
        _node("UIDREF", ("121012", "DCM", "Device Observer UID"), UID="1.2.3.5"),
        _node("CODE", ("121071", "DCM", "Finding"), ConceptCodeSequence=code("76752008", "SCT", "Breast")),
        _node("CODE", ("1", "99HOME", "VPRIVMEANINGV"), ConceptCodeSequence=code("2", "99HOME", "VOWNCODEV lung")),
        _node("NUM", ("410668003", "SCT", "Length"), MeasuredValueSequence=Sequence([length])),
        _node("DATE", ("111060", "DCM", "Study Date"), Date="20200110"),
        picture,
    ])  # fmt: skip
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    return dataset


@pytest.mark.parametrize("options", ["", "clean_structured_content", "clean_structured_content clean_descriptors"])
def test_no_text_or_name_of_a_report_survives(options: str) -> None:
    """D22: TEXT, PNAME, UIDREF and meanings of a site's own codes, with and without the option."""
    raw, _ = transformed(file_of(report()), *options.split())
    for mark in (b"VTEXTV", b"VPNAMEV", b"1.2.3.5\0", b"VPRIVMEANINGV", b"VOWNCODEV"):
        assert mark not in raw


def test_a_cleaned_report_keeps_codes_numbers_and_references() -> None:
    """D22: with Clean Structured Content, coded concepts, numbers and images stay; the document is still one."""
    new = new_of(report(), "clean_structured_content", "retain_modified_dates")
    nodes = new.ContentSequence
    assert (new.ValueType, new.ConceptNameCodeSequence[0].CodeValue) == ("CONTAINER", "126000")
    assert [node.ValueType for node in nodes] == [node.ValueType for node in report().ContentSequence]
    assert nodes[0].TextValue == "REMOVED"
    assert nodes[1].PersonName == "REMOVED"
    assert PSEUDONYMS.uid("1.2.3.5") == nodes[2].UID
    assert nodes[3].ConceptCodeSequence[0].CodeMeaning == "Breast"
    assert nodes[4].ConceptCodeSequence[0].CodeMeaning == "lung"
    assert nodes[5].MeasuredValueSequence[0].NumericValue == 12.5
    assert nodes[5].MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "mm"
    assert nodes[6].Date == new.StudyDate
    assert nodes[7].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == PSEUDONYMS.uid("1.2.3.4")


def test_a_report_stays_one_under_the_basic_profile() -> None:
    """D22: without the option the content is dummies of the same kinds, and the references still lead to the images."""
    new = new_of(report())
    assert new.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert [node.ValueType for node in new.ContentSequence] == [node.ValueType for node in report().ContentSequence]
    assert new.ContentSequence[7].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == PSEUDONYMS.uid("1.2.3.4")


def test_retained_uids_stay_inside_a_replaced_document() -> None:
    """D2: what an option keeps stays also in a sequence of dummies: references would lead nowhere otherwise."""
    new = new_of(report(), "retain_uids")
    assert new.ContentSequence[7].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"


def test_cleaned_descriptions_hold_known_words_only() -> None:
    """D2: names, numbers without unit and unknown words go from a description, known ones stay."""
    dataset = image(
        SeriesDescription="CT Thorax JANE 1.5mm Dr. Smythe 12345 2020-01-10 venous", StudyDescription="Smythe 4711"
    )
    new = new_of(dataset, "clean_descriptors")
    assert new.SeriesDescription == "CT Thorax 1.5mm venous"
    assert "StudyDescription" not in new
    assert "SeriesDescription" not in new_of(dataset)


def test_known_words_that_are_the_patients_name_go() -> None:
    """D2: a patient called Foot is not told by the description of her foot."""
    dataset = image(PatientName="FOOT^BASAL", SeriesDescription="Foot lateral basal")
    assert new_of(dataset, "clean_descriptors").SeriesDescription == "lateral"
    assert cleaned("Foot lateral", frozenset(), names_in("Lateral^A")) == "Foot"


def test_words_of_a_site_stay() -> None:
    """D2: a profile may add words of its own."""
    new = new_of(image(SeriesDescription="Kopf nativ Meier"), "clean_descriptors", words=frozenset({"kopf", "nativ"}))
    assert new.SeriesDescription == "Kopf nativ"


def test_cleaned_code_sequences_keep_published_codes() -> None:
    """D2: meanings of published schemes stay, those of a site's own scheme are cleaned and never empty."""
    dataset = image(AdmittingDiagnosesCodeSequence=Sequence([
        *code("73211009", "SCT", "Diabetes mellitus"), *code("X1", "99HOSPITAL", "VMRVSMITHV"),
    ]))  # fmt: skip
    new = new_of(dataset, "clean_descriptors").AdmittingDiagnosesCodeSequence
    assert [one.CodeMeaning for one in new] == ["Diabetes mellitus", "REMOVED"]
    assert "AdmittingDiagnosesCodeSequence" not in new_of(dataset)


@pytest.mark.parametrize(
    ("option", "keyword", "value"),
    [
        ("retain_device", "DeviceSerialNumber", "SN1"), ("retain_institution", "InstitutionName", "HOSPITAL"),
        ("retain_patient_characteristics", "PatientSex", "F"), ("retain_uids", "SOPInstanceUID", "1.2.3"),
        ("retain_full_dates", "StudyDate", "20200101"),
    ],
)  # fmt: skip
def test_retaining_options_keep_their_column_and_no_other(option: str, keyword: str, value: str) -> None:
    """D2: what one option keeps goes without it and under every other one."""
    dataset = image(**{keyword: value})
    assert new_of(dataset, option)[keyword].value == value
    for other in {"retain_device", "retain_institution", "retain_patient_characteristics", "retain_uids"} - {option}:
        assert new_of(dataset, other).get(keyword) != value


def test_application_entities_go_also_when_the_device_is_kept() -> None:
    """D2: nothing tells a clean AE title from one that names a hospital, so the Basic Profile decides."""
    assert "StationAETitle" not in new_of(image(StationAETitle="VHOSPITALV"), "retain_device")


def test_rules_of_a_profile_come_before_the_table() -> None:
    """D2: a rule removes or replaces what the table keeps, at every depth; a value stands in place of another."""
    inner = item(Manufacturer="VINNERV")
    dataset = image(Manufacturer="VMAKERV", DerivationImageSequence=Sequence([inner]), InstitutionName="VPLACEV")
    raw, applied = transformed(file_of(dataset), rules={0x00080070: "Z"}, values={0x00080080: "SITE A"})
    new = pydicom.dcmread(io.BytesIO(raw))
    assert not [mark for mark in (b"VMAKERV", b"VINNERV", b"VPLACEV") if mark in raw]
    assert new.Manufacturer == ""
    assert new.InstitutionName == "SITE A"
    assert applied.actions["D"] >= 1


def test_one_profile_one_digest() -> None:
    """D1: the digest of a profile tells every difference in what it does, and none in its name."""
    plain = Profile()
    assert plain.sha256 == Profile(name="other", version="2").sha256
    assert plain.sha256 != Profile(options=frozenset({"retain_uids"})).sha256
    assert plain.sha256 != Profile(words=frozenset({"kopf"})).sha256
