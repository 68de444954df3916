"""Valid inputs: data sets of many kinds, made small."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from tests.fuzz.wire import BIG, CT_IMAGE, DEFLATED, EXPLICIT, IMPLICIT

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
_FILES = (
    "CT_small.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "JPEG2000.dcm",
)
_JPEG_BASELINE = b"1.2.840.10008.1.2.4.50"
_MAX_VALUE = 1024


@dataclass(frozen=True)
class Seed:
    """A bare data set and what its C-STORE says of it."""

    sop_class: bytes
    instance: bytes
    transfer_syntax: bytes
    data: bytes


@cache
def data_sets() -> tuple[Seed, ...]:
    """Of each encoding at least one; sequences in all forms, several character sets, compressed pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [_small(dcmread(FOLDER / name, force=True)) for name in _FILES]
        made = _made()
        found += [_seed(made, syntax) for syntax in (IMPLICIT, EXPLICIT, BIG, DEFLATED, _JPEG_BASELINE)]
    return tuple(found)


@cache
def files() -> tuple[bytes, ...]:
    """The same as DICOM files, and one without preamble and file meta."""
    found = []
    for seed in data_sets():
        head = element_explicit(0x0002, 0x0010, b"UI", seed.transfer_syntax)
        length = element_explicit(0x0002, 0x0000, b"UL", len(head).to_bytes(4, "little"))
        found.append(bytes(128) + b"DICM" + length + head + seed.data)
    return (*found, data_sets()[0].data)


@cache
def whole_images() -> tuple[bytes, ...]:
    """Small image files with all their pixels."""
    names = ("CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "image_dfl.dcm")
    found = [(FOLDER / name).read_bytes() for name in names if (FOLDER / name).is_file()]
    return tuple(data for data in found if len(data) < 256 * 1024)


def element_explicit(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """Explicit VR Little Endian with a short length."""
    value += b"\0" * (len(value) % 2)
    length = len(value).to_bytes(2, "little")
    return group.to_bytes(2, "little") + number.to_bytes(2, "little") + vr + length + value


def _small(dataset: Dataset) -> Seed:
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    for element in list(dataset):
        value = element.value
        if isinstance(value, bytes) and len(value) > _MAX_VALUE and element.keyword != "PixelData":
            del dataset[element.tag]
        elif element.VR == "SQ" and len(value) > 2:
            element.value = Sequence(list(value)[:2])
    if "PixelData" in dataset:
        compressed = UID(syntax).is_compressed
        dataset["PixelData"].value = encapsulate([b"\xff\x4f" + bytes(62)]) if compressed else bytes(128)
        dataset["PixelData"].is_undefined_length = compressed
    return _seed(dataset, syntax.encode())


def _seed(dataset: Dataset, syntax: bytes) -> Seed:
    buffer, uid = BytesIO(), UID(syntax.decode())
    target = DicomIO(buffer)
    target.is_implicit_VR, target.is_little_endian = uid.is_implicit_VR, uid.is_little_endian
    dataset = Dataset({tag: dataset[tag] for tag in dataset.keys() if tag.group != 2})  # noqa: SIM118
    if uid.is_compressed and not uid.is_deflated and "PixelData" in dataset:
        dataset["PixelData"].value = encapsulate([b"\xff\xd8" + bytes(62)])
        dataset["PixelData"].is_undefined_length = True
    write_dataset(target, dataset)
    data = buffer.getvalue()
    return Seed(
        str(dataset.SOPClassUID).encode(), str(dataset.SOPInstanceUID).encode(), syntax, _deflated(data, syntax)
    )


def _deflated(data: bytes, syntax: bytes) -> bytes:
    if syntax != DEFLATED:
        return data
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(data) + packer.flush()
    return packed + b"\0" * (len(packed) % 2)


def _made() -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT_IMAGE.decode(), "1.2.3.4.5"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Fuzz^Patient", "F-1", "CT"
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelSpacing, dataset.ImagePositionPatient = [1.5, 1.5], [0.0, 0.0, -12.5]
    dataset.ImageOrientationPatient, dataset.InstanceNumber = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], 7
    inner, middle = Dataset(), Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator = "T-1", "99FUZZ"
    middle.ConceptCodeSequence = Sequence([inner, inner])
    middle.is_undefined_length_sequence_item = True
    dataset.ProcedureCodeSequence = Sequence([middle, inner])
    dataset["ProcedureCodeSequence"].is_undefined_length = True
    dataset.add_new(0x7FE00010, "OW", bytes(128))
    return dataset
