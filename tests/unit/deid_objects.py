"""Objects to de-identify, and the engine with a fixed key."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pydicom
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.deid.engine import Applied, Deidentifier
from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.part10 import parse_part10
from dicomnode.deid.pixel_decision import PixelDecision
from dicomnode.deid.profile import Profile
from dicomnode.deid.pseudonyms import Pseudonyms

KEY = ProjectKey(bytes(range(32)))
PSEUDONYMS = Pseudonyms(KEY)
ROOT = "1.2.826.0.1.3680043.10.543."
PIXELS = bytes(range(32))


def image(sop_class: str = CTImageStorage, *, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> FileDataset:
    """A small CT image of a patient who has every usual identifier."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset(
        None, {}, file_meta=meta, preamble=bytes(128), is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=syntax != ExplicitVRBigEndian,
    )  # fmt: skip
    said: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192", "SOPClassUID": sop_class, "SOPInstanceUID": ROOT + "9.1",
        "StudyInstanceUID": ROOT + "7.1", "SeriesInstanceUID": ROOT + "8.1", "FrameOfReferenceUID": ROOT + "6.1",
        "PatientName": "DOE^JANE", "PatientID": "DOE-ID", "PatientBirthDate": "19500615", "PatientSex": "F",
        "PatientAge": "069Y", "StudyDate": "20200110", "StudyTime": "101112", "SeriesDate": "20200110",
        "ContentDate": "20200110", "ContentTime": "101112", "AccessionNumber": "A1", "StudyID": "S1",
        "ReferringPhysicianName": "", "Modality": "CT", "Manufacturer": "ACME", "SeriesNumber": 1, "InstanceNumber": 1,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "BurnedInAnnotation": "NO", "Rows": 4, "Columns": 4,
        "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "PixelData": PIXELS,
    }  # fmt: skip
    for keyword, value in {**said, **elements}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def item(**elements: Any) -> Dataset:
    """A sequence item."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def nested(inner: Dataset) -> Sequence:
    """``inner`` where the profile keeps the sequences around: in the functional groups."""
    return Sequence([item(FrameContentSequence=Sequence([inner]))])


def code(value: str, scheme: str, meaning: str) -> Sequence:
    """A code sequence."""
    return Sequence([item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)])


def file_of(dataset: FileDataset) -> bytes:
    """The Part 10 file."""
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def deidentifier(*options: str, **more: Any) -> Deidentifier:
    """The engine with these options of the profile."""
    return Deidentifier(Profile(options=frozenset(options), **more), PSEUDONYMS)


def transformed(content: bytes, *options: str, **more: Any) -> tuple[bytes, Applied]:
    """The new file of ``content``, and what was done; without the pixel gate."""
    part, applied = deidentifier(*options, **more).transform(parse_part10(content), PixelDecision())
    return part.whole(), applied


def new_of(dataset: FileDataset, *options: str, **more: Any) -> FileDataset:
    """``dataset`` de-identified, as others read it."""
    return pydicom.dcmread(io.BytesIO(transformed(file_of(dataset), *options, **more)[0]))


def elements(dataset: Iterable[DataElement], depth: int = 0) -> Iterator[tuple[int, DataElement]]:
    """Every element at every depth."""
    for element in dataset:
        yield depth, element
        if element.VR == "SQ":
            for inner in element.value:
                yield from elements(inner, depth + 1)
