"""The proof: no identifying value of the sources in any byte of the results; and the proof put to the test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomnode.cli import cli
from dicomnode.deid.byte_search import ByteSearch
from dicomnode.deid.engine import Deidentifier
from dicomnode.deid.files import deidentify_file
from dicomnode.deid.identifiers import identifiers_of, spellings
from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.profile import load_profile
from dicomnode.deid.pseudonyms import Pseudonyms
from dicomnode.deid.scorecard import ACTIONS, consistency, score_pair
from dicomnode.deid.verify import Verification, Verifier
from dicomnode.errors import Permanent
from tests.deid_pictures import image, smooth_picture

KEY = ProjectKey(bytes(range(32)))


def source(number: int = 0, **values) -> FileDataset:
    """One CT slice of a patient with everything that names one."""
    dataset = image(
        smooth_picture(32, 32), PatientName="Quillfeather^Ottoline", PatientID="QX-88321", AccessionNumber="ACC77123",
        PatientBirthDate="19610704", StudyDate="20210518", StudyTime="101112.123456",
        InstitutionName="Brookvale Clinic",
        ReferringPhysicianName="Marchbanks^Tobias", DeviceSerialNumber="SN-445566", StudyDescription="CT of the chest",
        InstanceNumber=number, SeriesNumber=4, StudyID="S-9001", StudyInstanceUID="1.2.826.0.1.77.1",
        SeriesInstanceUID="1.2.826.0.1.77.2", SliceThickness=2.5, PatientSex="F",
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], ClinicalTrialSubjectID="SUBJ-5512",
    )  # fmt: skip
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.77.3.{number}"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.fixture
def case(tmp_path) -> tuple[Path, Path]:
    """Three sources and what the engine makes of them."""
    before, after = tmp_path / "in", tmp_path / "out"
    before.mkdir()
    after.mkdir()
    worker = Deidentifier(load_profile("basic"), Pseudonyms(KEY))
    for number in range(3):
        source(number).save_as(before / f"{number}.dcm", enforce_file_format=True)
        deidentify_file(before / f"{number}.dcm", after / f"{number}.dcm", worker)
    return before, after


def verified(case: tuple[Path, Path], **options) -> Verification:
    return Verifier(*case, Pseudonyms(KEY)).run(**options)


def change(file: Path, **values) -> None:
    dataset = pydicom.dcmread(file)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file)


def test_what_the_engine_makes_has_no_leak(case):
    """Part 5: nothing of three sources survives in their results; every result is paired with its source."""
    found = verified(case, scorecard=True)
    assert (found.leaks, found.sources, found.results, found.paired, found.unread) == ([], 3, 3, 3, 0)
    assert found.values > 10
    assert {action: score for action, score in found.scores.items() if score[0] != score[1]} == {}
    assert {action for action, score in found.scores.items() if score[1]} == set(ACTIONS) - {"pixels hidden"}


SURVIVORS = (
    ("PatientComments", "seen by Ottoline's sister", "name"), ("PatientName", "QUILLFEATHER", "name"),
    ("ProtocolName", "x QX-88321 y", "id"), ("StudyDate", "20210518", "date"),
    ("ImageComments", "born 04.07.1961", "date"), ("StudyInstanceUID", "1.2.826.0.1.77.1", "uid"),
    ("ImageComments", "(ACC77123)", "id"), ("SeriesDescription", "Brookvale Clinic", "text"),
    ("StudyTime", "101112.123456", "time"), ("ImageComments", "Dr. Marchbanks", "name"),
    ("DeviceSerialNumber", "SN-445566", "id"),
)  # fmt: skip


def test_survivors_are_found_and_not_told(case):
    """Part 5: names by part and in either case, IDs, dates in other spellings, UIDs, institutions; no value is told."""
    for number, (keyword, value, _) in enumerate(SURVIVORS):
        file = case[1] / f"changed{number}.dcm"
        shutil.copy(case[1] / "1.dcm", file)
        change(file, **{keyword: value})
    leaks = verified(case).leaks
    found = {leak.file: leak.kind for leak in leaks}
    assert found == {f"changed{number}.dcm": kind for number, (_, _, kind) in enumerate(SURVIVORS)}
    assert {leak.place for leak in leaks} == {"header"}
    said = " ".join(str(leak) for leak in leaks).lower()
    assert not [word for word in ("quillfeather", "ottoline", "88321", "brookvale", "0518") if word in said]


def put_into_preamble(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[20:32] = b"Quillfeather"
    file.write_bytes(content)


def put_behind_the_pixels(file: Path) -> None:
    change(file, DataSetTrailingPadding=b"..Quillfeather..")


def put_into_pixels(file: Path) -> None:
    dataset = pydicom.dcmread(file)
    dataset.PixelData = dataset.PixelData[:500] + b"\0QX-88321\0" + dataset.PixelData[510:]
    dataset.save_as(file)


def put_into_a_private_sequence(file: Path) -> None:
    dataset = pydicom.dcmread(file)
    inner, outer = Dataset(), Dataset()
    inner.PatientName = "Quillfeather^O"
    outer.private_block(0x0011, "ACME", create=True).add_new(1, "SQ", Sequence([inner]))
    dataset.private_block(0x0009, "ACME", create=True).add_new(1, "SQ", Sequence([outer]))
    dataset.save_as(file)


def put_into_unknown_bytes(file: Path) -> None:
    dataset = pydicom.dcmread(file)
    dataset.add_new(0x00091010, "UN", "Quillfeather".encode("utf-16-le"))
    dataset.save_as(file)


def put_into_a_deflated_data_set(file: Path) -> None:
    dataset = pydicom.dcmread(file)
    dataset.ImageComments = "Quillfeather"
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(file)
    assert b"Quillfeather" not in file.read_bytes()


def put_into_the_name(file: Path) -> None:
    file.rename(file.with_name("quillfeather_1.dcm"))


HIDDEN = (
    (put_into_preamble, "preamble"), (put_behind_the_pixels, "header"), (put_into_pixels, "pixels"),
    (put_into_a_private_sequence, "header"), (put_into_unknown_bytes, "header"),
    (put_into_a_deflated_data_set, "header"), (put_into_the_name, "path"),
)  # fmt: skip


def test_every_byte_of_a_result_is_looked_at(case):
    """Part 5: preamble, pixels, padding, nested, private, UN, UTF-16, deflated data sets and file names."""
    for number, (hide, _) in enumerate(HIDDEN):
        file = case[1] / f"{number}" / "changed.dcm"
        file.parent.mkdir()
        shutil.copy(case[1] / "1.dcm", file)
        hide(file)
    found = {leak.file.split("/")[0]: leak.place for leak in verified(case).leaks}
    assert found == {str(number): place for number, (_, place) in enumerate(HIDDEN)}


def test_options_that_keep_values_are_no_leaks(tmp_path):
    """Part 5: what a result says it retained (UIDs, device, modified dates) is not a leak, and no more than that."""
    before, after = tmp_path / "in", tmp_path / "out"
    before.mkdir()
    source(1).save_as(before / "1.dcm", enforce_file_format=True)
    options = frozenset({"retain_uids", "retain_device", "retain_modified_dates"})
    worker = Deidentifier(load_profile("basic").with_options(options), Pseudonyms(KEY))
    deidentify_file(before / "1.dcm", after / "1.dcm", worker)
    result = pydicom.dcmread(after / "1.dcm")
    assert (result.StudyInstanceUID, result.DeviceSerialNumber) == ("1.2.826.0.1.77.1", "SN-445566")
    assert verified((before, after)).leaks == []
    change(after / "1.dcm", StudyDate="20210518")
    assert {leak.kind for leak in verified((before, after)).leaks} == {"date"}


def test_short_and_common_values_are_no_identifiers():
    """Rules of the search: nothing under three letters, no lone year or number, no word of codes or of the device."""
    dataset = source(PatientName="Wu^A", StudyID="1", AccessionNumber="77", PatientID="0000", StudyDescription="Thorax")
    dataset.add_new(0x00101040, "LO", "7 Mill Lane, Brookvale")
    texts = {one.text for one in identifiers_of(dataset).identifiers}
    assert {"7 Mill Lane, Brookvale", "19610704"} <= texts
    assert not texts & {"Wu", "A", "1", "77", "0000", "1961", "Acme Medical", "CT", "ORIGINAL"}
    assert "original" in identifiers_of(dataset).vocabulary


@pytest.mark.parametrize(("charset", "name", "part", "codec"), [
    ("ISO_IR 100", "Müßiggang^Jörg", "Müßiggang", "latin-1"), ("ISO_IR 192", "Wang^XiaoDong=王^小東", "小東", "utf-8"),
    ("GB18030", "Zhang^San=张^三丰", "三丰", "gb18030"), ("ISO_IR 144", "Люкceмбypг^Ирина", "Ирина", "iso8859-5"),
])  # fmt: skip
def test_names_are_found_in_every_character_set(charset, name, part, codec):
    """Part 5: each component of a name in the bytes of its own character set and of the others."""
    found = identifiers_of(source(SpecificCharacterSet=charset, PatientName=name)).identifiers
    assert part in {one.text for one in found}
    search = ByteSearch(spellings(part))
    assert list(search.hits(b"\x00\x12 " + part.encode(codec) + b" \x00"))


def test_the_search_finds_whole_values_anywhere():
    """Every place at every alignment and across pieces; parts of longer words, numbers and UIDs are not values."""
    search = ByteSearch([b"Smith", b"4711", b"1.2.34", b"lee"])
    assert [hit.offset for hit in search.hits(b"smith SMITH,4711;lee")] == [0, 6, 12, 17]
    assert not list(search.hits(b"smithson blacksmith 14711 47110 1.2.345 1.2.34.5 fleet x4711"))
    for offset in (0, 1, 2, 3, (16 << 20) - 3, (16 << 20) - 1, 16 << 20):
        data = bytes(offset) + b"Smith" + bytes(5)
        assert [hit.offset for hit in search.hits(data)] == [offset]
    longer = ByteSearch([b"abcdef", b"abc"], 6)
    assert [hit.value for hit in longer.hits(b"abc abcdef")] == [b"abcdef"]


def test_the_scorecard_counts_what_is_wrong(case):
    """Part 5: each of the ten actions falls below 100 % for its own fault, and the attribute is named."""
    change(
        case[1] / "1.dcm", SliceThickness=3, AccessionNumber="ACC77123", StudyDate="20210518", PatientID="other",
        SeriesInstanceUID="1.2.3.4.5.6", PixelData=bytes(1024),
    )  # fmt: skip
    found = verified(case, scorecard=True)
    lost = {action for action, (right, every) in found.scores.items() if right < every}
    assert lost >= {"text retained", "text removed", "date shifted", "pixels retained"}
    assert lost >= {"uid consistent", "patid consistent"}
    assert ("text retained", "SliceThickness") in found.wrong
    dataset = source(1)
    scored = score_pair(dataset, dataset, frozenset(), changed=True)
    assert scored["scores"]["pixels hidden"] == [0, 1]
    assert scored["scores"]["uid changed"][0] == 0
    assert consistency([("a", "x"), ("a", "y"), ("b", "z")], {"b": "q"}) == (1, 3)


def test_the_command_says_what_leaks_where(case, tmp_path):
    """`dicomnode deid verify`: exit status 0 and 1, JSON and table, the scorecard; no value in any output."""
    key = tmp_path / "key"
    key.write_text(KEY.secret.hex())
    key.chmod(0o600)
    command = [
        "deid",
        "verify",
        str(case[1]),
        "--against",
        str(case[0]),
        "--key",
        str(key),
        "--scorecard",
        "--jobs",
        "1",
    ]
    clean = CliRunner().invoke(cli, [*command, "--json"], standalone_mode=False)
    assert clean.return_value == 0, clean.output
    said = json.loads(clean.output)
    assert (said["leaks"], said["paired"], len(said["scorecard"])) == (0, 3, len(ACTIONS))
    change(case[1] / "1.dcm", ImageComments="for Ottoline")
    shown = CliRunner().invoke(cli, command, standalone_mode=False)
    assert shown.return_value == 1, shown.output
    assert "PatientName" in shown.output
    assert "ottoline" not in shown.output.lower()


def test_nothing_to_compare_is_no_proof(tmp_path):
    """An empty folder is refused instead of being called free of leaks."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    with pytest.raises(Permanent):
        Verifier(tmp_path / "in", tmp_path / "out").run()


@pytest.mark.parametrize(("text", "stays"), [
    ("AxialSpiral", True), ("of quillfeather", False), ("QX-88321", False), ("head first", True),
])  # fmt: skip
def test_a_kept_text_does_not_keep_the_patient(text, stays):
    """Part 5: an attribute that the profile keeps is replaced when it holds a name or identifier of its own object."""
    dataset = source(1, SequenceName=text)
    result = Deidentifier(load_profile("basic"), Pseudonyms(KEY)).apply(dataset).dataset
    assert (result.SequenceName == text) == stays
    assert result.SequenceName
