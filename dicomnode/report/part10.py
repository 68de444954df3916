"""Result Datasets as DICOM files (PS3.10 section 7)."""

from __future__ import annotations

from io import BytesIO

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomnode.dicom.uids import IMPLEMENTATION_CLASS_UID
from dicomnode.report.context import ReportContext
from dicomnode.report.encode import NotPlain, encoded


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
    dataset.preamble = bytes(128)


def to_bytes(dataset: Dataset) -> bytes:
    """The Dataset as a Part 10 file. Nothing but its content enters: same Dataset, same bytes."""
    meta = dataset.file_meta
    stated = (
        meta.get("MediaStorageSOPClassUID"),
        meta.get("MediaStorageSOPInstanceUID"),
        meta.get("TransferSyntaxUID"),
    )
    if stated != (dataset.SOPClassUID, dataset.SOPInstanceUID, ExplicitVRLittleEndian):
        return _by_pydicom(dataset)
    try:
        content = encoded(dataset)
    except NotPlain:
        return _by_pydicom(dataset)
    shell = Dataset()
    shell.file_meta, shell.preamble = meta, dataset.preamble
    return _by_pydicom(shell) + content


def _by_pydicom(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
