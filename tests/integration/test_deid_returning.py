"""Results that come back are parsed by a child: what it says is held against what the node knows."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import closing
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
from dicomnode.deid.reidentify import Asked, Identified, Reidentifier
from dicomnode.deid.returning import Returner, _returned
from dicomnode.deid.vault import Vault
from dicomnode.sandbox import Answer, SandboxLimits

KEY = ProjectKey(bytes(range(32)))
STUDY, PATIENT, NAME = "1.2.826.0.1.10", "4711", "Müller^Änne"


def original() -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SpecificCharacterSet = "ISO_IR 100"
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, "1.2.826.0.1.40"
    image.StudyInstanceUID, image.SeriesInstanceUID = STUDY, "1.2.826.0.1.20"
    image.PatientName, image.PatientID, image.StudyDate = NAME, PATIENT, "20240229"
    image.Modality = "CT"
    return image


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """A vault that knows one image which has left."""
    ProjectKey.create(tmp_path / "key")
    with closing(Vault(tmp_path / "vault.sqlite3", tmp_path / "key", KEY.project)) as opened:
        source, pseudonyms, profile = tmp_path / "original.dcm", Pseudonyms(KEY), Profile()
        dcmwrite(source, original(), enforce_file_format=True)
        record = recorder(opened, source, pseudonyms, profile)
        deidentify_file(source, tmp_path / "away.dcm", Deidentifier(profile, pseudonyms), before_release=record)
        yield opened


@pytest.fixture
def returner(vault: Vault) -> Iterator[Returner]:
    reidentifier = Reidentifier(vault, lambda study: original() if study == STUDY else None)
    with Returner(reidentifier, SandboxLimits(memory_bytes=200 << 20)) as made:
        yield made


@pytest.fixture
def result(tmp_path: Path, vault: Vault) -> Path:
    """A report about the image, as a peer that has only its pseudonyms makes it."""
    del vault
    away, report = dcmread(tmp_path / "away.dcm"), Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.SOPClassUID, report.SOPInstanceUID, report.SeriesInstanceUID = ComprehensiveSRStorage, "2.25.7", "2.25.8"
    report.StudyInstanceUID, report.PatientID, report.SeriesNumber = away.StudyInstanceUID, away.PatientID, 7
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = away.SOPClassUID, away.SOPInstanceUID
    report.ReferencedInstanceSequence = [item]
    path = tmp_path / "result.dcm"
    dcmwrite(path, report, enforce_file_format=True)
    return path


def ignore(rows: Sequence[int]) -> None:
    assert rows


def test_a_result_comes_back_under_its_patient(returner: Returner, result: Path) -> None:
    """D24: the file that a child makes is the result, with the identity of the stored original."""
    back = returner.give_back(result, ignore)
    read = dcmread(BytesIO(back.content))
    assert (read.PatientName, read.PatientID, read.StudyInstanceUID) == (NAME, PATIENT, STUDY)
    assert read.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == "1.2.826.0.1.40"
    assert (back.SOPInstanceUID, back.SeriesInstanceUID, back.SeriesNumber) == ("2.25.7", "2.25.8", 7)
    assert (back.StudyInstanceUID, back.PatientID, back.SOPClassUID) == (STUDY, PATIENT, ComprehensiveSRStorage)
    assert (back.translated, "1.2.826.0.1.40" in back.originals) == (2, True)


def test_s11_what_breaks_the_reader_breaks_a_child_and_is_held_back(
    returner: Returner, result: Path, tmp_path: Path
) -> None:
    """S11, D24: a file that takes all memory there is ends with a reason, and the next one is given back."""
    bomb = dcmread(result)
    bomb.PixelData = bytes(120 << 20)
    bomb["PixelData"].VR = "OB"
    dcmwrite(tmp_path / "bomb.dcm", bomb, enforce_file_format=True)
    with pytest.raises(Quarantined, match="memory") as held:
        returner.give_back(tmp_path / "bomb.dcm", ignore)
    assert held.value.reason is Reason.READER
    assert returner.give_back(result, ignore).PatientID == PATIENT


@pytest.mark.parametrize("content", [b"", b"no DICOM at all", b"\0" * 128 + b"DICM" + b"\xff" * 64])
def test_what_is_no_dicom_is_held_back(returner: Returner, tmp_path: Path, content: bytes) -> None:
    """D24: with a reason of ours, whatever the parser says of it."""
    (tmp_path / "bad.dcm").write_bytes(content)
    with pytest.raises(Quarantined) as held:
        returner.give_back(tmp_path / "bad.dcm", ignore)
    assert held.value.reason in (Reason.NOT_DICOM, Reason.MALFORMED)


def test_a_file_that_is_exchanged_meanwhile_is_held_back(returner: Returner, result: Path) -> None:
    """D24: what was judged is what is given back."""

    def exchange(rows: Sequence[int]) -> None:
        assert rows
        other = dcmread(result)
        other.SeriesDescription = "another one"
        dcmwrite(result, other, enforce_file_format=True)

    with pytest.raises(Quarantined) as held:
        returner.give_back(result, exchange)
    assert held.value.reason is Reason.CHANGED


@pytest.mark.parametrize(
    "lie",
    [{"PatientID": "4712"}, {"StudyInstanceUID": "1.2.826.0.1.11"}, {"SOPInstanceUID": "2.25.9"}, {}, None],
    ids=["patient", "study", "instance", "truth", "nothing"],
)
def test_a_child_that_lies_is_not_believed(lie: dict[str, str] | None) -> None:
    """S11, D24: the file has the patient, the Study and the instance that were asked for, or it goes nowhere."""
    made = original()
    made.SOPInstanceUID = "2.25.7"
    for keyword, value in (lie or {}).items():
        setattr(made, keyword, value)
    buffer = BytesIO()
    dcmwrite(buffer, made, enforce_file_format=True)
    block = mmap.mmap(-1, len(buffer.getvalue()))
    block.write(buffer.getvalue() if lie is not None else b"\0" * len(block))
    asked = Asked("2.25.1", "ANON-1", "2.25.7", ())
    known = Identified(STUDY, PATIENT, {}, Dataset(), frozenset())
    if lie == {}:
        assert _returned(Answer(b"", (block,)), "0", 0, asked, known).PatientID == PATIENT
        return
    with pytest.raises(Quarantined) as held:
        _returned(Answer(b"", (block,)), "0", 0, asked, known)
    assert held.value.reason is Reason.READER
