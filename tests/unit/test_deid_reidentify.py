"""Results that come back: under the patient's own identity again, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage, ExplicitVRLittleEndian

from dicomnode.deid.engine import Deidentifier
from dicomnode.deid.files import deidentify_file
from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.leaving import recorder
from dicomnode.deid.profile import Profile
from dicomnode.deid.pseudonyms import Pseudonyms
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.reidentify import Reidentifier, asked_of, put_back
from dicomnode.deid.vault import Vault
from dicomnode.errors import Permanent

KEY = ProjectKey(bytes(range(32)))
PSEUDONYMS, PROFILE = Pseudonyms(KEY), Profile(options=frozenset({"retain_modified_dates"}))
STUDY, SERIES, FRAME = "1.2.826.0.1.10", "1.2.826.0.1.20", "1.2.826.0.1.30"
SLICES = tuple(f"1.2.826.0.1.40.{number}" for number in range(3))


def _source(index: int = 0) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SpecificCharacterSet = "ISO_IR 100"
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, SLICES[index]
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = STUDY, SERIES, FRAME
    image.PatientName, image.PatientID, image.IssuerOfPatientID = "Müller^Änne", "4711", "HOSPITAL"
    image.PatientBirthDate, image.PatientSex, image.OtherPatientNames = "19500101", "F", "Schmidt^Änne"
    image.StudyDate, image.StudyTime, image.AccessionNumber, image.StudyID = "20240229", "101500", "A-1", "S1"
    image.AcquisitionDateTime = "20240301001500.25+0100"
    image.StudyDescription, image.ReferringPhysicianName = "Schädel", "Doktor^Über"
    image.Modality, image.SeriesNumber, image.InstanceNumber = "CT", 1, index
    return image


def _sent(image: Dataset, folder: Path, vault: Vault) -> Dataset:
    """``image`` as it leaves under a profile that shifts dates, its way back in the vault."""
    source = folder / f"{image.SOPInstanceUID}.dcm"
    dcmwrite(source, image, enforce_file_format=True)
    record = recorder(vault, source, PSEUDONYMS, PROFILE)
    deidentify_file(source, folder / "away.dcm", Deidentifier(PROFILE, PSEUDONYMS), before_release=record)
    return dcmread(folder / "away.dcm")


def _result(sent: Sequence[Dataset]) -> Dataset:
    """A structured report about ``sent``, as a peer that has only those would make it."""
    first = sent[0]
    result = Dataset()
    result.file_meta = FileMetaDataset()
    result.SOPClassUID, result.SOPInstanceUID, result.SeriesInstanceUID = ComprehensiveSRStorage, "2.25.777", "2.25.888"
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "AccessionNumber", "StudyID"):
        setattr(result, keyword, first[keyword].value)
    result.PatientIdentityRemoved, result.DeidentificationMethod = "YES", "test"
    result.LongitudinalTemporalInformationModified = "MODIFIED"
    result.PatientBirthDate = "19000101"
    result.ContentDate, result.ContentTime = "20260501", "120000"
    evidence, series, request, group = Dataset(), Dataset(), Dataset(), Dataset()
    evidence.StudyInstanceUID, series.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
    series.ReferencedSOPSequence = []
    for image in sent:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        series.ReferencedSOPSequence.append(item)
    evidence.ReferencedSeriesSequence = [series]
    result.CurrentRequestedProcedureEvidenceSequence = [evidence]
    request.AccessionNumber, request.StudyInstanceUID = first.AccessionNumber, first.StudyInstanceUID
    result.ReferencedRequestSequence = [request]
    group.FrameOfReferenceUID, group.AcquisitionDateTime = first.FrameOfReferenceUID, first.AcquisitionDateTime
    outer = Dataset()
    outer.ContentSequence = [group]
    result.ContentSequence = [outer]
    return result


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """An empty vault."""
    ProjectKey.create(tmp_path / "key")
    with contextlib.closing(Vault(tmp_path / "vault.sqlite3", tmp_path / "key", KEY.project)) as opened:
        yield opened


@pytest.fixture
def sent(vault: Vault, tmp_path: Path) -> list[Dataset]:
    """Three images of one patient, de-identified and on their way."""
    return [_sent(_source(index), tmp_path, vault) for index in range(3)]


def _ignore(rows: Sequence[int]) -> None:
    assert rows


@dataclass
class Back:
    """A result that was given back."""

    dataset: Dataset
    translated: int


def _back(vault: Vault, result: Dataset, source: Dataset | None = None) -> Back:
    asked = asked_of(result)
    reidentifier = Reidentifier(vault, lambda study: (source or _source()) if study == STUDY else None)
    identified = reidentifier.identify(asked, _ignore)
    return Back(*put_back(result, identified.found, asked.StudyInstanceUID, identified.identity))


def test_patient_is_there_again(vault: Vault, sent: list[Dataset]) -> None:
    """D24: Patient and General Study are those of the stored source, what it lacks included."""
    back = _back(vault, _result(sent)).dataset
    for keyword in (
        "PatientID",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyDate",
    ):
        assert back[keyword].value == _source()[keyword].value
    assert (back.PatientName, back.OtherPatientNames) == ("Müller^Änne", "Schmidt^Änne")
    assert (back.StudyDescription, back.ReferringPhysicianName) == ("Schädel", "Doktor^Über")
    assert (back.AccessionNumber, back.StudyID, back.StudyTime) == ("A-1", "S1", "101500")


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 192", "Ünal^🙂"),
    ],
)
def test_name_in_any_character_set(
    vault: Vault, sent: list[Dataset], tmp_path: Path, charset: str | list[str], name: str
) -> None:
    """D11, D24: a name comes back as it was, whatever set the source and the result are written in (PS3.5 6.1)."""
    source = _source()
    source.SpecificCharacterSet, source.PatientName = charset, name
    source.OtherPatientNames = source.ReferringPhysicianName = source.StudyDescription = ""
    dcmwrite(tmp_path / "source.dcm", source, enforce_file_format=True)
    result = _result(sent)
    result.SpecificCharacterSet, result.ContentCreatorName = "ISO_IR 100", "Prüfer^Ö"
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(tmp_path / "result.dcm", result, enforce_file_format=True)
    back = _back(vault, dcmread(tmp_path / "result.dcm"), dcmread(tmp_path / "source.dcm")).dataset
    back.file_meta = result.file_meta
    dcmwrite(tmp_path / "back.dcm", back, enforce_file_format=True)
    again = dcmread(tmp_path / "back.dcm")
    assert again.SpecificCharacterSet == "ISO_IR 192"
    assert (str(again.PatientName), str(again.ContentCreatorName)) == (name, "Prüfer^Ö")


def test_every_reference_resolves(vault: Vault, sent: list[Dataset]) -> None:
    """D24: mapped UIDs are translated at every depth, and the object keeps its own Series and SOP Instance UID."""
    answer = _back(vault, _result(sent))
    back, evidence = answer.dataset, answer.dataset.CurrentRequestedProcedureEvidenceSequence[0]
    series = evidence.ReferencedSeriesSequence[0]
    assert (evidence.StudyInstanceUID, series.SeriesInstanceUID) == (STUDY, SERIES)
    assert tuple(item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence) == SLICES
    assert {item.ReferencedSOPClassUID for item in series.ReferencedSOPSequence} == {CTImageStorage}
    assert back.ContentSequence[0].ContentSequence[0].FrameOfReferenceUID == FRAME
    assert back.ReferencedRequestSequence[0].StudyInstanceUID == STUDY
    assert back.ReferencedRequestSequence[0].AccessionNumber == "A-1"
    assert (back.SOPInstanceUID, back.SeriesInstanceUID) == ("2.25.777", "2.25.888")
    assert answer.translated == 8


def test_no_pseudonym_is_left(vault: Vault, sent: list[Dataset]) -> None:
    """D24: in the bytes of the result stands no pseudonym that was sent, and nothing says that it is de-identified."""
    back = _back(vault, _result(sent)).dataset
    buffer = BytesIO()
    back.file_meta = FileMetaDataset()
    back.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(buffer, back, enforce_file_format=True)
    content = buffer.getvalue()
    for image in sent:
        for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "AccessionNumber"):
            assert str(image[keyword].value).encode() not in content
    for keyword in ("PatientIdentityRemoved", "DeidentificationMethod", "LongitudinalTemporalInformationModified"):
        assert keyword not in back
    assert dcmread(BytesIO(content)).PatientName == "Müller^Änne"


def test_dates_of_the_study(vault: Vault, sent: list[Dataset]) -> None:
    """D24: a date that the Study was sent with is put back, one that the result made itself stays."""
    back = _back(vault, _result(sent)).dataset
    assert back.ContentSequence[0].ContentSequence[0].AcquisitionDateTime == "20240301001500.25+0100"
    assert back.ContentDate == "20260501"


def test_result_stays_as_it_came(vault: Vault, sent: list[Dataset]) -> None:
    """D24: what arrived is not changed: it is kept as evidence of what the peer said."""
    result = _result(sent)
    before = deepcopy(result)
    _back(vault, result)
    assert result == before


def test_unknown_study(vault: Vault, sent: list[Dataset]) -> None:
    """D24: a Study that was never sent is held back."""
    result = _result(sent)
    result.StudyInstanceUID = "2.25.123"
    with pytest.raises(Quarantined) as held:
        _back(vault, result)
    assert held.value.reason is Reason.UNKNOWN_PSEUDONYM


@pytest.mark.parametrize("patient", ["", None, "ANON-0123456789abcdef", "4711"])
def test_unknown_patient(vault: Vault, sent: list[Dataset], patient: str | None) -> None:
    """D24: the Study alone is not enough: the patient's pseudonym has to be the one that it was sent with."""
    result = _result(sent)
    result.PatientID = patient
    with pytest.raises(Quarantined, match="not the one of its Study"):
        _back(vault, result)


def test_patient_of_another_study(vault: Vault, sent: list[Dataset], tmp_path: Path) -> None:
    """D24: a known patient in the Study of another one is a mix-up, and held back."""
    other = _source()
    other.PatientID, other.StudyInstanceUID, other.SOPInstanceUID = "4712", "1.2.826.0.1.11", "1.2.826.0.1.49"
    result = _result(sent)
    result.PatientID = _sent(other, tmp_path, vault).PatientID
    with pytest.raises(Quarantined, match="not the one of its Study"):
        _back(vault, result)


def test_stored_study_has_another_patient(vault: Vault, sent: list[Dataset]) -> None:
    """D24: when the archive has moved the Study to another patient since, nobody guesses."""
    moved = _source()
    moved.PatientID = "9999"
    with pytest.raises(Quarantined, match="another patient"):
        _back(vault, _result(sent), moved)


def test_source_is_gone(vault: Vault, sent: list[Dataset]) -> None:
    """D24: without a stored Instance of the Study there is no identity to copy, and nothing is made up."""
    with pytest.raises(Quarantined) as held:
        Reidentifier(vault, lambda _: None).identify(asked_of(_result(sent)), _ignore)
    assert held.value.reason is Reason.NO_SOURCE


def test_our_own_object(vault: Vault, sent: list[Dataset]) -> None:
    """D24: an image that is sent back as it was is no result; it must not replace the original."""
    with pytest.raises(Quarantined) as held:
        _back(vault, sent[1])
    assert held.value.reason is Reason.OWN_INSTANCE


def test_own_series_is_kept(vault: Vault, sent: list[Dataset]) -> None:
    """D24: the result keeps its Series UID also when that is one that was sent: it is not moved into another Series."""
    result = _result(sent)
    result.SeriesInstanceUID = sent[0].SeriesInstanceUID
    back = _back(vault, result).dataset
    assert back.SeriesInstanceUID == sent[0].SeriesInstanceUID
    assert back.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES


def test_reasons_tell_nothing(vault: Vault, sent: list[Dataset]) -> None:
    """D24: why something is held back is told without the patient."""
    for patient, study in (("4711", sent[0].StudyInstanceUID), (sent[0].PatientID, STUDY)):
        result = _result(sent)
        result.PatientID, result.StudyInstanceUID = patient, study
        with pytest.raises(Quarantined) as held:
            _back(vault, result)
        assert not [told for told in ("4711", STUDY, "ANON-", "Müller") if told in str(held.value)]


def test_read_rows_are_told_first(vault: Vault, sent: list[Dataset]) -> None:
    """D24, D19: who reads the vault has to be able to write that down first."""

    def refuses(rows: Sequence[int]) -> None:
        assert len(rows) > 5
        raise Permanent("the audit log is not writable")

    with pytest.raises(Permanent, match="audit log"):
        Reidentifier(vault, lambda _: _source()).identify(asked_of(_result(sent)), refuses)


def test_another_patient_inside_is_a_mix_up(vault: Vault, sent: list[Dataset], tmp_path: Path) -> None:
    """D24: a result that names a second known patient at any depth is held back: nobody's identity lands in his."""
    other = _source()
    other.PatientID, other.StudyInstanceUID, other.SOPInstanceUID = "4712", "1.2.826.0.1.11", "1.2.826.0.1.49"
    item = Dataset()
    item.PatientID = _sent(other, tmp_path, vault).PatientID
    result = _result(sent)
    result.ContentSequence[0].ReferencedPatientSequence = [item]
    with pytest.raises(Quarantined, match="another patient too"):
        _back(vault, result)
    item.PatientID = result.PatientID
    assert _back(vault, result).dataset.ContentSequence[0].ReferencedPatientSequence[0].PatientID == "4711"
