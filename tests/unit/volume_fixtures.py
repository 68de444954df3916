"""Synthetic CT, MR, DX and Enhanced MR Instances, written as Part 10 files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from dicomnode.detect.reader import Reader
from dicomnode.detect.volume import Limits, LoadedVolume, NotAnalysable, SourceFile
from dicomnode.dicom.references import InstanceReference, SeriesReference
from dicomnode.dicom.summary import SeriesSummary

STUDY, SERIES = "1.2.826.0.1.1", "1.2.826.0.1.2"
TRANSVERSE = [1, 0, 0, 0, 1, 0]


def picture(seed: int = 0, shape: tuple[int, int] = (8, 10), low: int = 0, high: int = 4096) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape)


def set_pixels(ds: Dataset, array: np.ndarray, *, stored: int = 16, allocated: int = 16, signed: bool = False) -> None:
    ds.Rows, ds.Columns = array.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, stored, stored - 1
    ds.PixelRepresentation = int(signed)
    ds.PixelData = array.astype(f"<{'i' if signed else 'u'}{allocated // 8}").tobytes()
    ds["PixelData"].VR = "OB" if allocated == 8 else "OW"


def image(sop_class: str, modality: str, number: int = 1, **elements: Any) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, generate_uid(entropy_srcs=[sop_class, modality, str(number)])
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, SERIES
    ds.PatientName, ds.PatientID = "TEST^VOLUME", "TEST-VOLUME"
    ds.Modality, ds.InstanceNumber = modality, number
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    set_pixels(ds, picture(number))
    return put(ds, **elements)


def put(ds: Dataset, **elements: Any) -> Dataset:
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def slice_at(z: float, number: int, sop_class: str = CTImageStorage, **elements: Any) -> Dataset:
    """A transverse slice at height ``z`` mm."""
    ds = image(sop_class, "MR" if sop_class == MRImageStorage else "CT", number)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-10, -20, z], TRANSVERSE
    ds.PixelSpacing, ds.SliceThickness = [0.5, 0.75], 5
    if sop_class == CTImageStorage:
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    return put(ds, **elements)


def stack(count: int, spacing: float = 5.0, sop_class: str = CTImageStorage, **elements: Any) -> list[Dataset]:
    return [slice_at(spacing * i, i + 1, sop_class, **elements) for i in range(count)]


def radiograph(number: int = 1, **elements: Any) -> Dataset:
    return image(DigitalXRayImageStorageForPresentation, "DX", number, **elements)


def item(**elements: Any) -> Dataset:
    return put(Dataset(), **elements)


def enhanced_mr(heights: Sequence[float], echoes: Sequence[float] | None = None) -> Dataset:
    """An Enhanced MR Instance with one frame for each height; orientation and spacing are shared groups."""
    ds = image(EnhancedMRImageStorage, "MR")
    set_pixels(ds, picture(1, (len(heights), 8, 10)))
    ds.NumberOfFrames = len(heights)
    ds.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=[item(ImageOrientationPatient=TRANSVERSE)],
            PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.75], SliceThickness=4)],
        )
    ]
    ds.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])],
            PixelValueTransformationSequence=[item(RescaleSlope=i + 1, RescaleIntercept=i, RescaleType="US")],
            FrameVOILUTSequence=[item(WindowCenter=100 + i, WindowWidth=50)],
            MREchoSequence=[item(EffectiveEchoTime=echoes[i] if echoes else 90.0)],
        )
        for i, z in enumerate(heights)
    ]
    return ds


def encapsulated(ds: Dataset, frames: Sequence[bytes], syntax: str) -> Dataset:
    """``ds`` with compressed pixel data; ``write`` gives the file that transfer syntax."""
    ds.PixelData = encapsulate(list(frames))
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    return ds


def write(ds: Dataset, folder: Path) -> SourceFile:
    if not hasattr(ds, "file_meta"):
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return source(ds, path)


def source(ds: Dataset, path: Path) -> SourceFile:
    return SourceFile(InstanceReference(STUDY, SERIES, ds.SOPClassUID, ds.SOPInstanceUID), path)


@cache
def reader() -> Reader:
    """One warm child for all tests of a process."""
    return Reader()


def load_files(sources: Sequence[SourceFile], limits: Limits | None = None) -> LoadedVolume:
    return reader().load(SeriesSummary(SeriesReference(STUDY, SERIES), len(sources)), sources, limits)


def load(folder: Path, datasets: Sequence[Dataset], limits: Limits | None = None) -> LoadedVolume:
    return load_files([write(ds, folder) for ds in datasets], limits)


def refusal(folder: Path, datasets: Sequence[Dataset], limits: Limits | None = None) -> str:
    """The reason why the series is not analysed; fails when it is."""
    try:
        load(folder, datasets, limits)
    except NotAnalysable as error:
        return error.reason
    raise AssertionError("the series was analysed")
