"""Synthetic CT Instances of half a megabyte to send."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomnode.dicom.sop_classes import CT_IMAGE
from dicomnode.dicom.uids import derived_uid

SIZE = 512


def write_objects(folder: Path, count: int, run: str, parts: int) -> tuple[list[Path], int]:
    """Write ``count`` CT Instances, dealt out to ``parts`` folders; returns these and the bytes of all files.

    Other ``run``, other UIDs: no receiver has seen them. The pixels are noise, the same in all of them.
    """
    folders = [folder / f"{part}" for part in range(parts)]
    for one in folders:
        one.mkdir(parents=True)
    dataset, size = _dataset(run), 0
    for number in range(1, count + 1):
        dataset.InstanceNumber, dataset.SliceLocation = number, float(number)
        dataset.ImagePositionPatient = [0.0, 0.0, float(number)]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(_uid(run, str(number)))
        path = folders[number % parts] / f"{number:05d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        size += path.stat().st_size
    return folders, size


def _uid(*parts: str) -> str:
    return derived_uid("dicomnode bench", *parts)


def _dataset(run: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = UID(CT_IMAGE), ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_uid("implementation"))
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.Modality = CT_IMAGE, "CT"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "BENCH^SYNTHETIC", "BENCH", "19600101"
    dataset.PatientSex, dataset.AccessionNumber, dataset.StudyID = "O", "BENCH", "1"
    dataset.StudyDate, dataset.StudyTime, dataset.ReferringPhysicianName = "20250102", "101500", ""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid(run, "study"), _uid(run, "series")
    dataset.FrameOfReferenceUID, dataset.SeriesNumber = _uid(run, "frame of reference"), 1
    dataset.ImageType, dataset.BodyPartExamined = ["ORIGINAL", "PRIMARY", "AXIAL"], "HEAD"
    dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.5, 0.5]
    dataset.SliceThickness, dataset.RescaleIntercept, dataset.RescaleSlope = 1, -1024, 1
    dataset.Rows = dataset.Columns = SIZE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    pixels = np.random.default_rng(1).integers(0, 4096, (SIZE, SIZE), dtype=np.uint16)
    dataset.PixelData = pixels.astype("<u2").tobytes()
    return dataset
