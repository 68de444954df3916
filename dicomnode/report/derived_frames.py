"""Multi-frame objects on the pixel grid of their source: which planes share one, and what their groups say.

Written here, not by ``highdicom.seg.Segmentation`` and ``highdicom.pm.ParametricMap``: those take neither several
images without Frame of Reference nor several multi-frame Instances, and stamp the time and chance UIDs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag

from dicomnode.detectors.contract import Plane, Volume
from dicomnode.dicom.uids import derived_uid
from dicomnode.report import codes
from dicomnode.report.context import ReportContext, ResultUIDs
from dicomnode.report.envelope import add_examined_part, envelope, series_description
from dicomnode.report.evidence import referenced_series, sources
from dicomnode.report.geometry import aspect_ratio, decimal, patient_orientation, slice_thickness
from dicomnode.report.secondary_capture import add_lossy_history, source_image
from dicomnode.report.transcribe import copied

MATRIX = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Orientation of a projection, along its rows and columns: it is not known in the patient, but OHIF 3.13 opens no
derived object without one and takes this for images that state none."""
MATRIX_COMMENT = "Orientation and position are those of the pixel matrix, not of the patient"
_SHAREABLE = ("PixelMeasuresSequence", "PlaneOrientationSequence", "FrameAnatomySequence")


@dataclass(frozen=True, slots=True)
class Batch:
    """Planes that one multi-frame object can hold, in the order of its frames.

    ``number``: position among the objects of its kind, from 0. ``planes``: indices into the Volume.
    ``stacked``: the planes have a position in space; else they are projections.
    """

    number: int
    planes: tuple[int, ...]
    stacked: bool

    @property
    def suffix(self) -> str:
        """What tells the Series of this object from those of its kind; the first has the plain name."""
        return "" if self.number == 0 else f"-{self.number + 1}"


def batches(volume: Volume, wanted: Iterable[int]) -> tuple[Batch, ...]:
    """The ``wanted`` planes, shared out so that each batch has one matrix and is either a stack or one projection.

    A stack runs along the normal of its planes (cross product of row and column direction): viewers that put frames
    on a volume by their number alone then put them where they belong.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for index in sorted(set(wanted)):
        plane = volume.planes[index]
        projection = "" if _is_placed(plane) else plane.source.SOPInstanceUID
        groups.setdefault((projection, plane.shape), []).append(index)
    return tuple(
        Batch(number, _in_order(volume, group), all(_is_placed(volume.planes[index]) for index in group))
        for number, group in enumerate(groups.values())
    )


def _is_placed(plane: Plane) -> bool:
    return plane.position is not None and plane.orientation is not None


def _in_order(volume: Volume, indices: Sequence[int]) -> tuple[int, ...]:
    orientation = volume.planes[indices[0]].orientation
    if orientation is None:
        return tuple(indices)
    normal = np.cross(orientation[:3], orientation[3:])
    return tuple(sorted(indices, key=lambda index: float(np.dot(normal, volume.planes[index].position or (0, 0, 0)))))


def derived_envelope(
    document: str, what: str, batch: Batch, volume: Volume, headers: Sequence[Dataset], context: ReportContext
) -> Dataset:
    """The envelope of object ``batch.number`` of its kind, with what an image Series derived from images adds.

    Each object has a Series of its own: viewers open one derived object of a Series (PS3.3 C.7.3.1, C.7.6.1).
    """
    first = headers[batch.planes[0]]
    source = volume.planes[0].source.series
    dataset = envelope(document, headers, source, context, batch.number)
    dataset.InstanceNumber = 1
    dataset.SeriesInstanceUID = ResultUIDs.of(source, context).series(document + batch.suffix)
    dataset.SeriesDescription = series_description(what + batch.suffix, first, context)
    add_examined_part(dataset, first, [headers[index] for index in batch.planes])
    dataset.NumberOfFrames = 0
    dataset.Rows, dataset.Columns = volume.planes[batch.planes[0]].shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BurnedInAnnotation = "NO"
    dataset.PresentationLUTShape = "IDENTITY"
    add_lossy_history(dataset, *(headers[index] for index in batch.planes))
    dataset.ReferencedSeriesSequence = referenced_series(
        sources(volume.planes[index] for index in batch.planes), headers
    )
    if not batch.stacked:
        dataset.PatientOrientation = patient_orientation(volume.planes[batch.planes[0]], first)
    elif first.get("FrameOfReferenceUID"):
        dataset.FrameOfReferenceUID = first.FrameOfReferenceUID
        dataset.PositionReferenceIndicator = first.get("PositionReferenceIndicator")
    return dataset


def frame_groups(plane: Plane, header: Dataset, spacing: float | None, derivation: Code) -> Dataset:
    """Functional groups of a frame: where it lies and which image it was made from (PS3.3 C.7.6.16.2).

    ``spacing``: distance of neighbouring planes in mm. A projection has the orientation of its own pixel matrix, see
    ``MATRIX``, and says so in a comment; each of its pixels belongs to a pixel of the source (PS3.3 A.51.5.1).
    """
    item, content, orientation = Dataset(), Dataset(), Dataset()
    item.FrameContentSequence = [content]
    item.PixelMeasuresSequence = [_pixel_measures(plane, header, spacing)]
    item.PlaneOrientationSequence = [orientation]
    orientation.ImageOrientationPatient = [decimal(value) for value in plane.orientation or MATRIX]
    if plane.position is not None:
        position = Dataset()
        position.ImagePositionPatient = [decimal(value) for value in plane.position]
        item.PlanePositionSequence = [position]
    if not _is_placed(plane):
        content.FrameComments = MATRIX_COMMENT
    item.DerivationImageSequence = [_derivation(plane, derivation)]
    return item


def _pixel_measures(plane: Plane, header: Dataset, spacing: float | None) -> Dataset:
    """Pixel Spacing is the plane's own. What is known at the detector only stays Imager Pixel Spacing. Slices whose
    thickness the source does not tell count as contiguous: the attribute is required (PS3.3 C.7.6.16.2.1).

    The attributes of an image without Pixel Spacing are an extension of the macro (PS3.2 3.11.3); OHIF 3.13 opens no
    object whose item is empty.
    """
    measures = Dataset()
    if plane.spacing is None:
        measures.update(copied(header, ("ImagerPixelSpacing",)))
        measures.PixelAspectRatio = aspect_ratio(plane, header) or [1, 1]
        return measures
    measures.PixelSpacing = [decimal(value) for value in plane.spacing]
    thickness = slice_thickness(plane, header)
    if thickness is not None or spacing is not None:
        measures.SliceThickness = decimal(thickness or spacing or 0)
    if spacing is not None:
        measures.SpacingBetweenSlices = decimal(spacing)
    return measures


def _derivation(plane: Plane, derivation: Code) -> Dataset:
    frames = () if plane.frame is None else (plane.frame,)
    item = Dataset()
    item.DerivationCodeSequence = [codes.code_item(derivation)]
    item.SourceImageSequence = [source_image(plane.source, frames, in_place=True)]
    return item


def add_frames(dataset: Dataset, frames: list[Dataset], shared: Dataset) -> None:
    """Set both functional group sequences; what all ``frames`` say alike moves to ``shared`` (PS3.3 C.7.6.16.1)."""
    for keyword in _SHAREABLE:
        said = [frame.get(keyword) for frame in frames]
        if said[0] is not None and all(one == said[0] for one in said):
            shared[keyword] = frames[0][keyword]
            for frame in frames:
                del frame[keyword]
    dataset.NumberOfFrames = len(frames)
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = frames


def place_pointer(batch: Batch) -> tuple[str, str]:
    """The dimension along the images of ``batch``, for ``add_dimensions``."""
    if batch.stacked:
        return "ImagePositionPatient", "PlanePositionSequence"
    return "FrameLabel", "FrameContentSequence"


def add_dimensions(dataset: Dataset, pointers: Sequence[tuple[str, str]], context: ReportContext) -> None:
    """Multi-frame Dimension Module (PS3.3 C.7.6.17): ``pointers`` are pairs of attribute and its functional group."""
    uid = derived_uid(dataset.SOPInstanceUID, "dimensions", uid_root=context.uid_root)
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    dataset.DimensionOrganizationSequence = [organization]
    dataset.DimensionIndexSequence = []
    for attribute, group in pointers:
        item = Dataset()
        item.DimensionOrganizationUID = uid
        item.DimensionIndexPointer = Tag(tag_for_keyword(attribute) or 0)
        item.FunctionalGroupPointer = Tag(tag_for_keyword(group) or 0)
        item.DimensionDescriptionLabel = attribute
        dataset.DimensionIndexSequence.append(item)
