"""What is sent: synthetic CT, MR and DX Instances of a real size, made once and given new UIDs for every run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomnode.dicom.sop_classes import CT_IMAGE, DIGITAL_X_RAY_FOR_PRESENTATION, MR_IMAGE
from tests.raw_scu import EXPLICIT, Context, Message, store_message

PER_SERIES = 500
_ROOT = "2.25.1"
INSTANCE, SERIES, STUDY = (f"{_ROOT}{mark:020d}" for mark in (1, 2, 3))
"""Stand in the template, and are written over: a UID of the same length, so that nothing else moves."""


@dataclass(frozen=True, slots=True)
class Load:
    """``count`` Instances of ``rows`` x ``columns`` pixels of 16 bits."""

    name: str
    modality: str
    sop_class: str
    count: int
    rows: int
    columns: int

    @property
    def context(self) -> Context:
        return Context(self.sop_class, EXPLICIT)


LOADS = {
    load.name: load
    for load in (
        Load("ct", "CT", CT_IMAGE, 400, 512, 512),
        Load("mr", "MR", MR_IMAGE, 5000, 140, 140),
        Load("dx", "DX", DIGITAL_X_RAY_FOR_PRESENTATION, 20, 3840, 3908),
    )
}


class Objects:
    """The files of one load. ``renew`` makes new Instances of them in place, without writing the pixels again."""

    def __init__(self, folder: Path, load: Load) -> None:
        """Write ``load.count`` files below ``folder``; that takes the disk space of all of them."""
        folder.mkdir(parents=True)
        self.load = load
        template = template_file(folder, load)
        content = template.read_bytes()
        template.unlink()
        self._spots = {uid: _all(content, uid.encode()) for uid in (INSTANCE, SERIES, STUDY)}
        self.files = [folder / f"{number:05d}.dcm" for number in range(load.count)]
        for path in self.files:
            path.write_bytes(content)
        self.size, self.template = len(content), content

    def renew(self, run: int, associations: int) -> list[list[Path]]:
        """Give every file new UIDs; returns the files of each association, each a study of its own."""
        parts: list[list[Path]] = [[] for _ in range(associations)]
        for number, path in enumerate(self.files):
            part = number % associations
            self._patch(path, run, part, number)
            parts[part].append(path)
        return parts

    def _patch(self, path: Path, run: int, part: int, number: int) -> None:
        uids = uids_of(run, part, number)
        descriptor = os.open(path, os.O_WRONLY)
        try:
            for name, spots in self._spots.items():
                for spot in spots:
                    os.pwrite(descriptor, uids[name].encode(), spot)
        finally:
            os.close(descriptor)


def uids_of(run: int, part: int, number: int) -> dict[str, str]:
    """Study, Series and Instance UIDs: a study for each association of a run, a series for every 500 Instances."""
    return {
        INSTANCE: f"{_ROOT}{run:09d}{1:02d}{number:09d}",
        SERIES: f"{_ROOT}{run:09d}{2:02d}{part:04d}{number // PER_SERIES:05d}",
        STUDY: f"{_ROOT}{run:09d}{3:02d}{part:09d}",
    }


def message(template: bytes, load: Load, context_id: int, max_pdu: int) -> Message:
    """A C-STORE request of ``load``; its UIDs are put in later."""
    return store_message(load.context, context_id, INSTANCE, template, max_pdu, (INSTANCE, SERIES, STUDY))


def data_set_of(content: bytes) -> bytes:
    """What follows the file meta information, by its group length (PS3.10 7.1)."""
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]


def template_file(folder: Path, load: Load) -> Path:
    """Write the one Instance that all of a load are made from."""
    path = folder / "template.dcm"
    _dataset(load).save_as(path, enforce_file_format=True)
    return path


def _all(content: bytes, text: bytes) -> list[int]:
    spots, at = [], content.find(text)
    while at >= 0:
        spots.append(at)
        at = content.find(text, at + 1)
    return spots


def _dataset(load: Load) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = UID(load.sop_class), ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = UID(INSTANCE)
    meta.ImplementationClassUID = UID("2.25.338273945551836")
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = load.sop_class, INSTANCE, load.modality
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "BENCH^SYNTHETIC", "BENCH", "19600101"
    dataset.PatientSex, dataset.AccessionNumber, dataset.StudyID = "O", "BENCH", "1"
    dataset.StudyDate, dataset.StudyTime, dataset.ReferringPhysicianName = "20250102", "101500", ""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.ImageType, dataset.BodyPartExamined = ["ORIGINAL", "PRIMARY", "AXIAL"], "HEAD"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Synthetic", "Bench"
    dataset.ProtocolName, dataset.SeriesDescription, dataset.StudyDescription = "Bench", "Bench", "Bench"
    if load.modality != "DX":
        dataset.FrameOfReferenceUID = UID("2.25.7")
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0.0, 0.0, 0.0]
        dataset.PixelSpacing, dataset.SliceThickness, dataset.SliceLocation = [0.5, 0.5], 1, 0.0
    dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.Rows, dataset.Columns = load.rows, load.columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    pixels = np.random.default_rng(1).integers(0, 4096, (load.rows, load.columns), dtype=np.uint16)
    dataset.PixelData = pixels.astype("<u2").tobytes()
    return dataset
