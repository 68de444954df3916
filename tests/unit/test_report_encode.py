"""Our encoder writes what pydicom writes, byte for byte, and leaves to pydicom what it does not know."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.report.encode import NotPlain, encoded
from dicomnode.report.part10 import to_bytes
from tests.selfcheck_cases import results

SC = "1.2.840.10008.5.1.4.1.1.7"


def by_pydicom(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def file_of(**values: object) -> Dataset:
    """A Secondary Capture without pixels, with ``values``."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SpecificCharacterSet = SC, "1.2.3.4", "ISO_IR 192"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = SC, "1.2.3.4"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.preamble = bytes(128)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize("what", ["CT", "no findings", "DX", "MR", "frames"])
def test_report_every_kind_of_result_is_written_as_pydicom_writes_it(what: str) -> None:
    """Outputs stay the same bytes, whoever encodes them."""
    objects, _ = results(what)
    assert objects
    for one in objects:
        assert to_bytes(one.dataset) == by_pydicom(one.dataset), one.kind


@pytest.mark.parametrize(
    "values",
    [
        {"PatientName": "Müller^Jörg", "StudyDescription": "Schädel", "ImageComments": "x" * 10_001},
        {"PatientName": "", "PatientID": None, "OtherPatientIDsSequence": []},
        {"ImagePositionPatient": [1.5, -0.25, 3e-7], "SliceThickness": "0.60", "InstanceNumber": 7},
        {"PixelSpacing": ["0.5", "0.50"], "ImageType": ["DERIVED", "SECONDARY", ""], "SoftwareVersions": ["a", "b"]},
        {"Rows": 512, "SmallestImagePixelValue": 3, "PixelAspectRatio": [4, 3], "SelectorATValue": [0x00100010]},
        {"RecommendedDisplayFrameRateInFloat": 1.5, "FloatingPointValue": 0.1, "GraphicData": [1.0, 2.5]},
        {"EncapsulatedDocument": b"%PDF-1", "PixelData": b"\1\2\3", "BitsAllocated": 8, "StudyDate": "20260101"},
        {"ReferencedImageSequence": [Dataset(), Dataset()]},
    ],
)
def test_report_odd_values_are_written_as_pydicom_writes_them(values: dict[str, object]) -> None:
    """Empty, many, padded, not ASCII, binary, nested."""
    dataset = file_of(**values)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OB"
    for item in dataset.get("ReferencedImageSequence", ()):
        item.ReferencedSOPInstanceUID, item.ReferencedFrameNumber = "1.2.3", [1, 2]
    assert to_bytes(dataset) == by_pydicom(dataset)


@settings(max_examples=60, deadline=None)
@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="\\\0\x1b^="), max_size=20),
    text=st.text(st.characters(codec="utf-8", exclude_characters="\\\0\x1b"), max_size=40),
    numbers=st.lists(st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3)), max_size=4),
    counts=st.lists(st.integers(0, 65535), max_size=3),
)
def test_report_any_plain_value_is_written_as_pydicom_writes_it(
    name: str, text: str, numbers: list[float], counts: list[int]
) -> None:
    """No value that we may copy from a source or make is encoded otherwise."""
    dataset = file_of(PatientName=name, SeriesDescription=text, ImageComments=text, WindowCenter=numbers)
    dataset.add_new(0x00280009, "AT", counts and [0x00540010])
    dataset.add_new(0x00283002, "US", counts)
    item = Dataset()
    item.add_new(0x0040A160, "UT", text)
    dataset.ContentSequence = [item]
    assert to_bytes(dataset) == by_pydicom(dataset)


def test_report_what_is_not_decoded_or_not_resolved_is_left_to_pydicom() -> None:
    """Elements of a file as they were read, and VRs that depend on others."""
    read = dcmread(BytesIO(by_pydicom(file_of(PatientID="ID"))), force=True)
    with pytest.raises(NotPlain):
        encoded(read)
    assert to_bytes(read) == by_pydicom(read)
    ambiguous = file_of(BitsAllocated=16, PixelRepresentation=0)
    ambiguous.add(DataElement(0x00280106, "US or SS", 5))
    with pytest.raises(NotPlain):
        encoded(ambiguous)
    assert to_bytes(ambiguous) == by_pydicom(ambiguous)


def test_report_file_meta_that_names_another_object_is_corrected_as_before() -> None:
    """PS3.10 7.1: the file meta information names the object that is in the file."""
    dataset = file_of()
    dataset.SOPInstanceUID = "1.2.3.5"
    assert to_bytes(dataset) == by_pydicom(dataset)
    assert dcmread(BytesIO(to_bytes(dataset))).file_meta.MediaStorageSOPInstanceUID == "1.2.3.5"


def test_report_a_file_of_incomplete_meta_information_is_completed_by_pydicom() -> None:
    """Preamble and file meta information are ours only where nothing has to be filled in."""
    whole = next(iter(results("CT")[0])).dataset
    assert to_bytes(whole) == by_pydicom(whole)
    bare = file_of(PatientID="1")
    del bare.preamble
    assert to_bytes(bare) == by_pydicom(bare)
