"""Parametric Map Storage, the heat as float32 (PS3.3 A.75, C.8.32)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from highdicom.pm import RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage

from dicomnode.detectors.contract import DetectionResult, PlaneResult, Volume
from dicomnode.dicom.uids import derived_uid
from dicomnode.report import codes
from dicomnode.report.anatomy import finding_site, recognisable
from dicomnode.report.context import MANUFACTURER, ReportContext
from dicomnode.report.derived_frames import (
    Batch,
    add_dimensions,
    add_frames,
    batches,
    derived_envelope,
    frame_groups,
    place_pointer,
)
from dicomnode.report.envelope import shortened

NOT_ANALYSED = -1 / 64
"""Float Pixel Padding Value (0028,0122): a pixel without heat. Exact in float32, outside of the mapped 0..1, and so
near to 0 that viewers which scale to the range of the pixels still show heat as it is."""


def parametric_maps(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Iterator[Dataset]:
    """One Parametric Map for all slices, or one for each projection image; with or without findings.

    Images that the detector left out and pixels without a number are padding, not heat 0. Left-out frames stay in
    a stack all the same: OHIF 3.13 puts frames on slices by their number. A map with nothing but padding is not made.
    """
    for batch in batches(volume, range(len(volume.planes))):
        if any(not result.planes[index].left_out for index in batch.planes):
            yield _parametric_map(batch, volume, headers, result, context)


def _parametric_map(
    batch: Batch, volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Dataset:
    dataset = derived_envelope("pm", "heat map", batch, volume, headers, context)
    dataset.SOPClassUID = ParametricMapStorage
    dataset.Modality = "OT"
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME" if batch.stacked else "STATIC", "QUANTITY"]
    dataset.ContentQualification = "RESEARCH"
    dataset.ContentLabel = "AI_HEAT"
    dataset.ContentDescription = shortened(f"{context.banner}: anomaly heat", 64)
    dataset.ContentCreatorName = f"{MANUFACTURER}^{context.detector}"[:64]
    dataset.PixelPresentation = "MONOCHROME"
    dataset.RecognizableVisualFeatures = recognisable(headers[batch.planes[0]])
    dataset.AcquisitionContextSequence = []
    dataset.CodingSchemeIdentificationSequence = [codes.coding_scheme_identification()]
    _add_frames(dataset, batch, volume, headers, result, context)
    if "FrameOfReferenceUID" not in dataset:
        _add_own_frame_of_reference(dataset, context)
    _add_heat(dataset, [result.planes[index] for index in batch.planes])
    return dataset


def _add_own_frame_of_reference(dataset: Dataset, context: ReportContext) -> None:
    """The module and a position are mandatory (PS3.3 A.75.3). A new UID: nothing can be registered with it."""
    dataset.FrameOfReferenceUID = derived_uid(dataset.SOPInstanceUID, "frame of reference", uid_root=context.uid_root)
    dataset.PositionReferenceIndicator = None
    if not any("PlanePositionSequence" in frame for frame in dataset.PerFrameFunctionalGroupsSequence):
        corner = Dataset()
        corner.ImagePositionPatient = [0, 0, 0]
        dataset.SharedFunctionalGroupsSequence[0].PlanePositionSequence = [corner]


def _add_frames(
    dataset: Dataset,
    batch: Batch,
    volume: Volume,
    headers: Sequence[Dataset],
    result: DetectionResult,
    context: ReportContext,
) -> None:
    frames = []
    for place, index in enumerate(batch.planes, start=1):
        plane, header = volume.planes[index], headers[index]
        frame = frame_groups(plane, header, volume.slice_spacing, codes.UNSPECIFIED_CALCULATION)
        content = frame.FrameContentSequence[0]
        content.DimensionIndexValues = [place]
        content.FrameLabel = f"image {index + 1}"
        if result.planes[index].left_out:
            told = (f"NOT ANALYSED: {result.planes[index].left_out}", content.get("FrameComments"))
            content.FrameComments = "; ".join(text for text in told if text)
        frames.append(frame)
    add_frames(dataset, frames, _shared(dataset, headers[batch.planes[0]]))
    add_dimensions(dataset, (place_pointer(batch),), context)


def _shared(dataset: Dataset, header: Dataset) -> Dataset:
    """Groups that all frames share: identity transform, window 0..1, what the values mean, frame type, anatomy."""
    shared = Dataset()
    transform, window, frame_type = Dataset(), Dataset(), Dataset()
    transform.RescaleIntercept, transform.RescaleSlope, transform.RescaleType = 0, 1, "US"
    # LINEAR, the default, would turn a window of width 1 into a threshold (PS3.3 C.11.2.1.3)
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = 0.5, 1, "LINEAR_EXACT"
    frame_type.FrameType = list(dataset.ImageType)
    shared.PixelValueTransformationSequence = [transform]
    shared.FrameVOILUTSequence = [window]
    shared.RealWorldValueMappingSequence = [_mapping()]
    shared.ParametricMapFrameTypeSequence = [frame_type]
    if anatomy := _frame_anatomy(dataset, header):
        shared.FrameAnatomySequence = anatomy
        dataset.pop("Laterality", None)  # not beside Frame Laterality (PS3.3 C.7.3.1)
    return shared


def _frame_anatomy(dataset: Dataset, header: Dataset) -> list[Dataset]:
    """Frame Anatomy item of all frames (PS3.3 C.7.6.16.2.8); none for an unknown region, or a paired one of no side.

    Frame Laterality has no value for "not known"; U says that the body part exists once.
    """
    site, side = finding_site(header), dataset.get("Laterality")
    if site is None or side == "":
        return []
    anatomy = Dataset()
    anatomy.FrameLaterality = side or "U"
    anatomy.AnatomicRegionSequence = [codes.code_item(site)]
    return [anatomy]


def _mapping() -> RealWorldValueMapping:
    return RealWorldValueMapping(
        lut_label="HEAT",
        lut_explanation="Anomaly heat 0 to 1, not calibrated as the series score",
        unit=codes.SCORE_UNIT,
        value_range=(0.0, 1.0),
        quantity_definition=codes.ANOMALY_HEAT,
    )


def _add_heat(dataset: Dataset, planes: Sequence[PlaneResult]) -> None:
    """Floating Point Image Pixel Module (PS3.3 C.7.6.24)."""
    dataset.BitsAllocated = 32
    frames = [_heat(plane) for plane in planes]
    if any(bool((frame == NOT_ANALYSED).any()) for frame in frames):
        dataset.FloatPixelPaddingValue = NOT_ANALYSED
        dataset.FloatPixelPaddingRangeLimit = NOT_ANALYSED  # a range of one value: validators ask for it
    dataset.FloatPixelData = b"".join(frame.tobytes() for frame in frames)


def _heat(plane: PlaneResult) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    if plane.left_out:
        return np.full(plane.heat.shape, NOT_ANALYSED, "<f4")
    clipped = np.clip(plane.heat, 0.0, 1.0)
    return np.where(np.isnan(clipped), NOT_ANALYSED, clipped).astype("<f4")
