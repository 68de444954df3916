"""A Volume as DICOM files without a patient, and a Segmentation of them back (PS3.3 A.3, A.4, A.51)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    generate_uid,
)

from dicomnode.detectors.contract import Mask, Plane, Volume
from dicomnode.detectors.hosted.exchange import Unreadable
from dicomnode.dicom.faults import PYDICOM_FAULTS

_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}


def write_dicom(volume: Volume, folder: Path) -> dict[str, int]:
    """Write each plane as a single-frame file; SOP Instance UID to plane.

    All UIDs are new and mean nothing elsewhere; name, ID and dates are empty. Values are those of the planes: 16 bits,
    for CT in whole HU, otherwise with a rescale slope over the range of the stack.
    """
    shared = Dataset()
    shared.StudyInstanceUID, shared.SeriesInstanceUID = generate_uid(), generate_uid()
    shared.FrameOfReferenceUID = generate_uid()
    modality = volume.summary.Modality
    low = min(float(np.nanmin(plane.pixels)) for plane in volume.planes)
    high = max(float(np.nanmax(plane.pixels)) for plane in volume.planes)
    slope = 1.0 if modality == "CT" else max((high - low) / 65535.0, 1e-9)
    known: dict[str, int] = {}
    for index, plane in enumerate(volume.planes):
        dataset = _file(plane, index, modality, shared, volume.slice_spacing)
        _add_pixels(dataset, plane, modality, (low, slope))
        dataset.save_as(folder / f"{index + 1:05d}.dcm", enforce_file_format=True)
        known[str(dataset.SOPInstanceUID)] = index
    return known


def _file(plane: Plane, index: int, modality: str, shared: Dataset, slice_spacing: float | None) -> Dataset:
    dataset = Dataset()
    dataset.update(shared)
    dataset.SOPClassUID = _CLASSES.get(modality, SecondaryCaptureImageStorage)
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = modality or "OT"
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
        "AccessionNumber", "ReferringPhysicianName", "Manufacturer", "PositionReferenceIndicator",
    ):  # fmt: skip
        setattr(dataset, keyword, "")
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "pixels and geometry only"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.SeriesNumber, dataset.InstanceNumber = 1, index + 1
    if plane.spacing is not None:
        dataset.PixelSpacing = [f"{value:.10g}" for value in plane.spacing]
    if plane.position is not None and plane.orientation is not None:
        dataset.ImagePositionPatient = [f"{value:.10g}" for value in plane.position]
        dataset.ImageOrientationPatient = [f"{value:.10g}" for value in plane.orientation]
    if slice_spacing is not None:
        dataset.SliceThickness = dataset.SpacingBetweenSlices = f"{slice_spacing:.10g}"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _add_pixels(dataset: Dataset, plane: Plane, modality: str, scale: tuple[float, float]) -> None:
    low, slope = scale
    values = np.nan_to_num(plane.pixels, nan=low)
    signed = modality == "CT"
    if signed:
        stored = np.clip(np.rint(values), -32768, 32767).astype("<i2")
    else:
        stored = np.clip(np.rint((values - low) / slope), 0, 65535).astype("<u2")
    dataset.Rows, dataset.Columns = plane.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(signed)
    dataset.RescaleIntercept, dataset.RescaleSlope = f"{0.0 if signed else low:.10g}", f"{slope:.10g}"
    dataset.RescaleType = "HU" if signed else "US"
    dataset.PixelData = stored.tobytes()


def read_dicom_segmentation(
    path: Path, volume: Volume, written: Mapping[str, int], indices: Sequence[int]
) -> dict[int, Mask]:
    """Masks by Segment Number, shape (planes, rows, columns), of a BINARY Segmentation on the pixels of the source.

    A frame belongs to the plane of the image that it names as its source, else to the plane at its position. Raises
    Unreadable.
    """
    try:
        dataset = dcmread(path)
        if dataset.SOPClassUID != SegmentationStorage or dataset.SegmentationType != "BINARY":
            raise Unreadable("the DICOM file is no binary Segmentation")
        frames = np.reshape(dataset.pixel_array, (-1, dataset.Rows, dataset.Columns)) > 0
        groups = list(dataset.PerFrameFunctionalGroupsSequence)
        numbers = [int(_of(one, dataset, "SegmentIdentificationSequence").ReferencedSegmentNumber) for one in groups]
        places = [_plane_of(one, dataset, volume, written) for one in groups]
    except (OSError, *PYDICOM_FAULTS, AttributeError, KeyError, IndexError, ValueError, TypeError) as error:
        raise Unreadable("the DICOM file is no Segmentation that can be read") from error
    if frames.shape[1:] != volume.planes[0].shape or len(frames) != len(groups):
        raise Unreadable("the Segmentation does not lie on the pixels that were given")
    masks = {index: np.zeros((len(volume.planes), *frames.shape[1:]), bool) for index in indices}
    for frame, number, place in zip(frames, numbers, places, strict=True):
        if number in masks:
            masks[number][place] |= frame
    return masks


def _of(group: Dataset, dataset: Dataset, keyword: str) -> Dataset:
    """The first item of a functional group, per frame or shared."""
    if keyword in group:
        return Dataset(group[keyword].value[0])
    return Dataset(dataset.SharedFunctionalGroupsSequence[0][keyword].value[0])


def _plane_of(group: Dataset, dataset: Dataset, volume: Volume, written: Mapping[str, int]) -> int:
    for derivation in group.get("DerivationImageSequence") or ():
        for source in derivation.get("SourceImageSequence") or ():
            if str(source.ReferencedSOPInstanceUID) in written:
                return written[str(source.ReferencedSOPInstanceUID)]
    orientation = np.array(_of(group, dataset, "PlaneOrientationSequence").ImageOrientationPatient, float)
    position = np.array(_of(group, dataset, "PlanePositionSequence").ImagePositionPatient, float)
    if not np.allclose(orientation, volume.planes[0].orientation or (), atol=1e-3):
        raise Unreadable("the Segmentation is turned against the images that were given")
    distances = [float(np.linalg.norm(position - np.array(plane.position))) for plane in volume.planes]
    nearest = int(np.argmin(distances))
    if distances[nearest] > 0.5 * (volume.slice_spacing or 1.0):
        raise Unreadable("a frame of the Segmentation lies on none of the images that were given")
    return nearest
