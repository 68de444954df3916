"""From phantom pixels to a valid DICOM study of a patient who does not exist."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomnode.dicom.uids import derived_uid

Mask = npt.NDArray[np.bool_]
Stored = npt.NDArray[np.uint16]
_IMPLEMENTATION = derived_uid("dicomnode", "demo")


@dataclass(frozen=True, slots=True)
class PhantomStudy:
    """A synthetic study. ``truth``: SOP Instance UID -> where the planted lesion is (rows, columns)."""

    datasets: list[Dataset]
    truth: dict[str, Mask]
    description: str

    def write(self, folder: Path) -> list[Path]:
        """Write the instances as DICOM files (PS3.10) into ``folder`` and return their paths in order."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number, dataset in enumerate(self.datasets, start=1):
            path = folder / f"{dataset.Modality}{number:04d}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            paths.append(path)
        return paths


def stored(values: npt.NDArray[np.float32], low: int, high: int) -> Stored:
    """Round to stored pixel values, clipped to ``low``..``high``."""
    return np.clip(np.rint(values), low, high).astype(np.uint16)


class StudyBuilder:
    """Collects the instances of one single-series study; UIDs follow from modality and seed alone."""

    def __init__(self, modality: str, seed: int, sop_class: str, study: str, series: str) -> None:
        self._modality = modality
        self._seed = seed
        self._sop_class = sop_class
        self._descriptions = (study, series)
        self._datasets: list[Dataset] = []
        self._truth: dict[str, Mask] = {}

    def add(self, pixels: Stored, truth: Mask) -> Dataset:
        """Add one instance with ``pixels`` (rows, columns) and return its dataset to be completed."""
        number = len(self._datasets) + 1
        dataset = self._new_dataset(self._uid("instance", str(number)))
        self._describe_patient_and_study(dataset)
        self._describe_series(dataset, number)
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.PixelData = pixels.astype("<u2").tobytes()
        self._datasets.append(dataset)
        self._truth[dataset.SOPInstanceUID] = truth
        return dataset

    def place(self, dataset: Dataset, spacing: float, thickness: float, z: float) -> None:
        """Place an axial slice (PS3.3 C.7.6.2): pixel ``spacing``, ``thickness`` and height ``z`` in mm."""
        corner = -(dataset.Columns - 1) / 2 * spacing
        dataset.FrameOfReferenceUID = self._uid("frame of reference")
        dataset.PositionReferenceIndicator = ""
        dataset.PatientPosition = "HFS"
        dataset.PixelSpacing = [spacing, spacing]
        dataset.SliceThickness = thickness
        dataset.SliceLocation = z
        dataset.ImagePositionPatient = [corner, corner, z]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]

    def finish(self, description: str) -> PhantomStudy:
        """Close the study: every instance states how many belong to its acquisition."""
        for dataset in self._datasets:
            dataset.ImagesInAcquisition = len(self._datasets)
        return PhantomStudy(self._datasets, self._truth, description)

    def _uid(self, *parts: str) -> str:
        return derived_uid("dicomnode phantom", self._modality, str(self._seed), *parts)

    def _new_dataset(self, sop_instance_uid: str) -> Dataset:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID(self._sop_class)
        meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = UID(_IMPLEMENTATION)
        dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID = self._sop_class
        dataset.SOPInstanceUID = sop_instance_uid
        return dataset

    def _describe_patient_and_study(self, dataset: Dataset) -> None:
        dataset.PatientName = f"PHANTOM^{self._modality}"
        dataset.PatientID = f"PHANTOM-{self._modality}-{self._seed}"
        dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19600101", "O", "065Y"
        dataset.StudyInstanceUID = self._uid("study")
        dataset.StudyID = f"P{self._seed}"
        dataset.AccessionNumber = f"PH{self._modality}{self._seed}"
        dataset.ReferringPhysicianName = ""
        dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20250102"
        dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "101500"
        dataset.StudyDescription = self._descriptions[0]

    def _describe_series(self, dataset: Dataset, number: int) -> None:
        dataset.Modality = self._modality
        dataset.SeriesInstanceUID = self._uid("series")
        dataset.SeriesNumber = 1
        dataset.SeriesDescription = dataset.ProtocolName = self._descriptions[1]
        dataset.BodyPartExamined = "HEAD"
        dataset.Manufacturer = "dicomnode phantom"
        dataset.ManufacturerModelName = f"Synthetic {self._modality}"
        dataset.DeviceSerialNumber = "0"
        dataset.SoftwareVersions = "1"
        dataset.StationName = f"PHANTOM{self._modality}"
        dataset.InstitutionName = "Synthetic data, no patient"
        dataset.InstanceNumber = number
        dataset.BurnedInAnnotation = "NO"


def code_item(code: Code) -> Dataset:
    """Return ``code`` as the item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
