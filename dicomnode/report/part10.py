"""Result Datasets as DICOM files (PS3.10 section 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from struct import Struct

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomnode.dicom.uids import IMPLEMENTATION_CLASS_UID
from dicomnode.report.context import ReportContext
from dicomnode.report.encode import Encoder, NotPlain, encoded

_PREAMBLE = 128
_LARGE = 65536
"""Bytes of what is not worth a copy."""

_GROUP_LENGTH = Struct("<HH2sHL")
_TYPE_1 = (
    "FileMetaInformationVersion",
    "MediaStorageSOPClassUID",
    "MediaStorageSOPInstanceUID",
    "TransferSyntaxUID",
    "ImplementationClassUID",
    "ImplementationVersionName",
)
"""What pydicom would fill in; the last is of type 3."""


def add_file_meta(dataset: Dataset, context: ReportContext) -> None:
    """Set complete File Meta Information: Explicit VR Little Endian, zero preamble."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = f"DICOMNODE_{context.software_version}"[:16]
    meta.SourceApplicationEntityTitle = context.ae_title
    dataset.file_meta = meta
    dataset.preamble = bytes(_PREAMBLE)


def to_bytes(dataset: Dataset, encoder: Encoder | None = None) -> bytes:
    """The Dataset as a Part 10 file. Nothing but its content enters: same Dataset, same bytes.

    ``encoder``: of the result set that it belongs to.
    """
    return b"".join(to_parts(dataset, encoder))


def to_parts(dataset: Dataset, encoder: Encoder | None = None) -> tuple[bytes, ...]:
    """``to_bytes`` in a few pieces, of which one is the very bytes of the pixels: they are large, and not copied."""
    meta: Dataset = dataset.file_meta
    stated = (
        meta.get("MediaStorageSOPClassUID"),
        meta.get("MediaStorageSOPInstanceUID"),
        meta.get("TransferSyntaxUID"),
    )
    if stated != (dataset.SOPClassUID, dataset.SOPInstanceUID, ExplicitVRLittleEndian):
        return (_by_pydicom(dataset),)
    try:
        return tuple(_gathered([_shell(dataset, meta), *(encoder or Encoder()).parts(dataset)]))
    except NotPlain:
        return (_by_pydicom(dataset),)


def _gathered(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Small ones that follow each other are one."""
    run: list[bytes] = []
    for part in parts:
        if len(part) > _LARGE:
            yield b"".join(run)
            yield part
            run = []
        else:
            run.append(part)
    yield b"".join(run)


def _shell(dataset: Dataset, meta: Dataset) -> bytes:
    """Preamble and File Meta Information (PS3.10 7.1), which begins with its own length. Raises NotPlain."""
    preamble = getattr(dataset, "preamble", None) or b""
    if len(preamble) != _PREAMBLE or not all(meta.get(keyword) for keyword in _TYPE_1):
        raise NotPlain
    content = encoded(meta)
    return b"".join((preamble, b"DICM", _GROUP_LENGTH.pack(2, 0, b"UL", 4, len(content)), content))


def _by_pydicom(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
