"""Synthetic sources and answers for the result objects: no file, no network, no chance."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    MRImageStorage,
)

from dicomnode.detectors.contract import (
    Calibration,
    DetectionResult,
    Finding,
    ModelIdentity,
    Outcome,
    Plane,
    PlaneResult,
    Region,
    Volume,
)
from dicomnode.dicom.references import InstanceReference, SeriesReference
from dicomnode.dicom.summary import summarise
from dicomnode.report import ReportContext

SERIES = SeriesReference("1.2.3.4", "1.2.3.4.5")
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "CR": ComputedRadiographyImageStorage,
}
CALIBRATION = Calibration("share of healthy patients below, 0 to 1", "empirical distribution", 120, 0.95, 0.05)


def header(modality: str = "CT", index: int = 0, **changes: object) -> Dataset:
    """The header of one source Instance; ``changes``: keyword to value, None deletes."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CLASSES[modality], f"1.2.3.4.5.{index + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = SERIES.StudyInstanceUID, SERIES.SeriesInstanceUID
    ds.Modality, ds.PatientName, ds.PatientID = modality, "Phantom^Synthetic", "PHANTOM-1"
    ds.PatientBirthDate, ds.PatientSex = "19500101", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260105", "101500", "7", "ACC1"
    ds.ReferringPhysicianName, ds.StudyDescription, ds.InstitutionName = "Doe^Jane", "Synthetic study", "Test site"
    ds.SeriesNumber, ds.InstanceNumber, ds.SeriesDescription = 2, index + 11, "Axial"
    ds.BodyPartExamined = "HEAD" if modality in ("CT", "MR") else "CHEST"
    if modality in ("CT", "MR"):
        ds.FrameOfReferenceUID, ds.PixelSpacing, ds.SliceThickness = "1.2.3.4.6", ["0.5", "0.5"], "5"
    else:
        ds.ImagerPixelSpacing, ds.PatientOrientation = ["0.2", "0.2"], ["L", "F"]
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def source(modality: str = "CT", n: int = 3, shape: tuple[int, int] = (64, 64), **changes: object):
    """A Volume of ``n`` planes and its headers. Every plane is a ramp of greys."""
    headers = [header(modality, index, **changes) for index in range(n)]
    planes = tuple(plane_of(own, index, shape) for index, own in enumerate(headers))
    for own, plane in zip(headers, planes, strict=True):
        own.Rows, own.Columns = shape
        if plane.position and plane.orientation:
            own.ImagePositionPatient, own.ImageOrientationPatient = list(plane.position), list(plane.orientation)
    facts = {"Modality": (modality,), "BodyPartExamined": (str(headers[0].get("BodyPartExamined", "")),)}
    summary = summarise(SERIES, [facts] * n)
    return Volume(summary, planes, 5.0 if modality in ("CT", "MR") and n > 1 else None), headers


def plane_of(own: Dataset, index: int, shape: tuple[int, int]) -> Plane:
    tomographic = own.Modality in ("CT", "MR")
    ramp = np.linspace(0.0, 80.0, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    return Plane(
        pixels=ramp,
        source=InstanceReference(
            *(str(uid) for uid in (own.StudyInstanceUID, own.SeriesInstanceUID)), own.SOPClassUID, own.SOPInstanceUID
        ),
        spacing=(0.5, 0.5) if tomographic else None,
        position=(-16.0, -16.0, 5.0 * index) if tomographic else None,
        orientation=AXIAL if tomographic else None,
        window=(40.0, 80.0),
    )


def multiframe(n: int = 3, shape: tuple[int, int] = (64, 64)):
    """The same planes as frames of one Enhanced CT Instance."""
    volume, headers = source("CT", n, shape, PixelSpacing=None, SliceThickness=None)
    own = headers[0]
    own.SOPClassUID, own.NumberOfFrames = EnhancedCTImageStorage, n
    del own.ImagePositionPatient, own.ImageOrientationPatient
    one = replace(volume.planes[0].source, SOPClassUID=str(EnhancedCTImageStorage))
    planes = tuple(replace(plane, source=one, frame=index + 1) for index, plane in enumerate(volume.planes))
    return replace(volume, planes=planes), [own] * n


def region(plane: int, volume: Volume, score: float = 0.97) -> Region:
    rows, columns = volume.planes[plane].shape
    mask = np.zeros((rows, columns), bool)
    top, left, bottom, right = rows // 4, columns // 4, rows // 2, columns // 2
    mask[top:bottom, left:right] = True
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    spacing = volume.planes[plane].spacing
    area = None if spacing is None else float(mask.sum()) * spacing[0] * spacing[1]
    return Region(plane, mask, np.array(corners, np.float32), (left, top, right, bottom), score, area)


def findings(volume: Volume, planes: tuple[tuple[int, ...], ...] = ((1, 2),)) -> DetectionResult:
    """One finding per tuple of plane indices, hot exactly inside its regions."""
    heats = [np.full(plane.shape, 0.2, np.float32) for plane in volume.planes]
    found = []
    for n, indices in enumerate(planes):
        regions = tuple(region(index, volume, 0.97 - 0.01 * place) for place, index in enumerate(indices))
        for one in regions:
            heats[one.plane][one.mask] = one.score
        found.append(Finding(f"finding-{n + 1}", regions, max(one.score for one in regions)))
    results = tuple(PlaneResult(float(heat.max()), heat) for heat in heats)
    return DetectionResult(
        Outcome.FINDINGS,
        0.98,
        0.0123,
        "mean residual",
        CALIBRATION,
        results,
        tuple(found),
        parameters={"region heat": "0.9"},
    )


def no_findings(volume: Volume) -> DetectionResult:
    results = tuple(PlaneResult(0.4, np.full(plane.shape, 0.2, np.float32)) for plane in volume.planes)
    return DetectionResult(Outcome.NO_FINDINGS, 0.4, 0.001, "mean residual", CALIBRATION, results)


def context(**changes: object) -> ReportContext:
    values: dict[str, object] = {
        "detector": "ct-head",
        "detector_version": "1.0.0",
        "model": ModelIdentity("ct-head-aeu", "1.2.0", "ab12cd34" * 8, "CC-BY-4.0"),
        "software_version": "0.1.0",
        "ae_title": "DICOMNODE",
        "generation": 1,
        "analysed_at": datetime(2026, 11, 21, 6, 30, 1, 250, tzinfo=UTC),
        "accelerator": "cpu",
    }
    return ReportContext(**(values | changes))  # type: ignore[arg-type]


def content(dataset: Dataset):
    """All content items of an SR, depth first, as (concept code value, item)."""
    for item in dataset.get("ContentSequence", []):
        names = item.get("ConceptNameCodeSequence")
        yield (names[0].CodeValue if names else ""), item
        yield from content(item)


def texts(dataset: Dataset, code: str) -> list[str]:
    return [item.TextValue for name, item in content(dataset) if name == code and item.ValueType == "TEXT"]
