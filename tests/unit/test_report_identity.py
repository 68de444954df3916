"""Patient, Study and order data reach every result unchanged; nothing else of the source does."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import config, dcmread, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.report import build_results, to_bytes
from dicomnode.report.build import BUILDERS
from tests.report_fixtures import context, findings, header, no_findings, source


def stored(dataset: Dataset) -> Dataset:
    """The Dataset after a way through a file, as a received source comes."""
    buffer = BytesIO()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(buffer, dataset, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer)


def results_of(**changes: object) -> list[Dataset]:
    """One object of every kind, in the order of sending; of "sr" the root and the regions."""
    volume, _ = source("CT", 1)
    headers = [stored(header("CT", 0, **changes))]
    built = build_results(volume, headers, findings(volume, ((0,),)), context())
    return [dcmread(BytesIO(to_bytes(one.dataset))) for one in built]


def content_time(one: Dataset) -> tuple[str, str]:
    """Content Date and Time; a presentation state has none and says when it was created."""
    event = "PresentationCreation" if one.Modality == "PR" else "Content"
    return one[f"{event}Date"].value, one[f"{event}Time"].value


def test_report_identity_is_checked_on_every_kind():
    classes = [str(one.SOPClassUID) for one in results_of()]
    assert len(classes) == len(BUILDERS) + 1
    assert len(set(classes)) == 8  # single- and multi-frame SC, SEG, PM, GSPS, KO, SR, PDF


COPIED = [
    "StudyInstanceUID PatientName PatientID PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime",
    "StudyDescription ReferringPhysicianName InstitutionName",
]


@pytest.mark.parametrize("keyword", " ".join(COPIED).split())
def test_report_copies_identity_to_every_object(keyword):
    expected = header("CT")[keyword].value
    assert [one[keyword].value for one in results_of()] == [expected] * (len(BUILDERS) + 1)


@pytest.mark.parametrize(
    ("charset", "name", "description"),
    [
        ("ISO_IR 100", "Müller^Jörg", "Schädel nativ"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "頭部"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", "Head"),
        ("GB18030", "Wang^XiaoDong=王^小东", "头部"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東", "頭"),
    ],
)
def test_report_rewrites_text_of_any_character_set_as_unicode(charset, name, description):
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "RP", "SPS"
    request.RequestedProcedureDescription = description
    built = results_of(
        SpecificCharacterSet=charset,
        PatientName=name,
        StudyDescription=description,
        RequestAttributesSequence=[request],
    )
    for one in built:
        assert one.SpecificCharacterSet == "ISO_IR 192"
        assert str(one.PatientName) == name
        assert one.StudyDescription == description
    requested = [one.get("RequestAttributesSequence") or one.get("ReferencedRequestSequence") for one in built]
    assert [items[0].RequestedProcedureDescription for items in requested if items] == [description] * len(built)


def test_report_fills_absent_type_2_attributes_with_nothing():
    absent = (
        "StudyDate StudyTime AccessionNumber ReferringPhysicianName PatientName PatientID PatientBirthDate PatientSex"
    )
    changes = dict.fromkeys([*absent.split(), "StudyID"])
    for one in results_of(**changes):
        for keyword in changes:
            assert keyword in one
            assert not one[keyword].value


def test_report_passes_broken_identity_values_on_unchanged():
    volume, headers = source("CT", 1)
    headers[0].add(DataElement("PatientBirthDate", "DA", "1950-1-1", validation_mode=config.IGNORE))
    for one in build_results(volume, headers, no_findings(volume), context()):
        assert one.dataset.PatientBirthDate == "1950-1-1"
        assert b"1950-1-1" in to_bytes(one.dataset)


def test_report_copies_issuers_and_qualifiers():
    issuer, other = Dataset(), Dataset()
    issuer.LocalNamespaceEntityID = "RIS"
    other.PatientID, other.IssuerOfPatientID = "OLD-1", "OLD"
    for one in results_of(
        IssuerOfPatientID="SITE", IssuerOfAccessionNumberSequence=[issuer], OtherPatientIDsSequence=[other]
    ):
        assert one.IssuerOfPatientID == "SITE"
        assert one.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "RIS"
        assert one.OtherPatientIDsSequence[0].PatientID == "OLD-1"


def test_report_drops_an_empty_referenced_study_sequence_from_request_items():
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID, request.ReferencedStudySequence = "RP", "SPS", []
    for one in results_of(RequestAttributesSequence=[request]):
        for item in one.get("RequestAttributesSequence", []):
            assert "ReferencedStudySequence" not in item


def test_report_takes_private_and_technical_attributes_of_the_source_nowhere():
    for one in results_of(ProtocolName="Head routine", OperatorsName="Roe^R", DeviceSerialNumber="S1", KVP="120"):
        assert "ProtocolName" not in one
        assert "OperatorsName" not in one
        assert one.DeviceSerialNumber != "S1"
        assert "KVP" not in one


def test_report_states_its_times_in_the_time_zone_of_the_source():
    for one in results_of(TimezoneOffsetFromUTC="-0730"):
        assert one.TimezoneOffsetFromUTC == "-0730"
        assert content_time(one) == ("20261120", "230001.000250")


def test_report_stamps_only_the_time_of_the_analysis():
    for one in results_of():
        assert content_time(one) == ("20261121", "063001.000250")
        for name in ("InstanceCreation", "Series"):
            assert (one[f"{name}Date"].value, one[f"{name}Time"].value) == ("20261121", "063001.000250")


def test_report_says_research_within_64_characters_of_series_description():
    for one in results_of(SeriesDescription="x" * 64):
        assert len(one.SeriesDescription) <= 64
        assert one.SeriesDescription.endswith("(RESEARCH)")


def test_report_series_numbers_are_fixed_and_step_aside():
    assert sorted(one.SeriesNumber for one in results_of()) == list(range(9001, 9012))
    assert sorted(one.SeriesNumber for one in results_of(SeriesNumber=9002)) == list(range(9101, 9112))
    volume, headers = source("CT", 1)
    taken = context(taken_series_numbers=frozenset({9001, 9103}))
    assert build_results(volume, headers, no_findings(volume), taken)[0].dataset.SeriesNumber == 9201


def test_report_every_series_holds_one_kind_of_object():
    built = results_of()
    assert len({one.SeriesInstanceUID for one in built}) == len({one.SOPInstanceUID for one in built}) == len(built)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"BodyPartExamined": "CHEST", "Laterality": "R"}, None),
        ({"BodyPartExamined": "KNEE", "Laterality": "R"}, "R"),
        ({"BodyPartExamined": "KNEE", "ImageLaterality": "L"}, "L"),
        ({"BodyPartExamined": "KNEE"}, ""),
        ({"BodyPartExamined": None}, ""),
    ],
)
def test_report_laterality_follows_the_body_part_and_never_enters_a_document(changes, expected):
    built = results_of(**changes)
    captures = [one for one in built if one.Modality == "OT" and "PixelData" in one]
    assert [one.get("Laterality") for one in captures] == [expected] * 3
    assert all("Laterality" not in one for one in built if one.Modality in {"SR", "KO", "DOC"})


def test_report_contributing_equipment_names_the_algorithm_and_its_device():
    from dicomnode.report import device_uid

    for one in results_of():
        item = one.ContributingEquipmentSequence[0]
        assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert item.DeviceUID == device_uid(context())
        assert item.Manufacturer == "dicomnode"
        assert item.ManufacturerModelName == "ct-head"
        assert "ct-head-aeu 1.2.0" in item.SoftwareVersions
