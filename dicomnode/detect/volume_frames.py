"""Frames: what the header says of each image of an Instance, before its pixels are decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.uid import UID

from dicomnode.detect.geometry import Orientation, is_orientation
from dicomnode.detect.pixels import ModalityLUT, Rescale, first_window, linear_rescale, modality_lut
from dicomnode.detect.pixels_codec import PixelFormat, pixel_format
from dicomnode.detect.source_bytes import SourceHeader
from dicomnode.detect.volume_header import integer, items, number, numbers, text, values
from dicomnode.detect.volume_screen import ENHANCED, PROJECTION
from dicomnode.detect.volume_terms import Limits, NotAnalysable, SourceFile

DISTINGUISHING = (
    "EchoTime",
    "DiffusionBValue",
    "SequenceName",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "AcquisitionNumber",
    "ImageType",
    "StackID",
    "InversionTime",
    "FlipAngle",
    "ConvolutionKernel",
    "KVP",
    "DiffusionGradientOrientation",
    "AcquisitionTime",
)
"""What tells images of one place apart, the most telling first."""

_MACROS = {
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "TriggerTime": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "StackID": ("FrameContentSequence", "StackID"),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "KVP": ("CTXRayDetailsSequence", "KVP"),
    "AcquisitionTime": ("FrameContentSequence", "FrameAcquisitionDateTime"),
}
_FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of a Source Instance, pixels still undecoded. ``index``: 0-based frame in the pixel data.

    ``number``: 1-based frame number, None for a single-frame Instance. ``tags``: value of each DISTINGUISHING
    keyword, as text. Geometry as in ``contract.Plane``.
    """

    source: SourceFile
    image: SourceHeader
    form: PixelFormat
    lut: ModalityLUT
    index: int = 0
    number: int | None = None
    spacing: tuple[float, float] | None = None
    position: tuple[float, float, float] | None = None
    orientation: Orientation | None = None
    window: tuple[float, float] | None = None
    linear_window: bool = True
    image_type: tuple[str, ...] = ()
    thickness: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def header(self) -> Dataset:
        """The Data Set of the Instance without its pixels."""
        return self.image.dataset

    @property
    def order(self) -> tuple[int, str, int]:
        """A place in the Series that does not depend on the order of the files."""
        instance = integer(self.header, "InstanceNumber")
        return (instance if instance is not None else 1 << 31, self.source.reference.SOPInstanceUID, self.index)


def frames_of(source: SourceFile, image: SourceHeader, limits: Limits) -> tuple[Frame, ...]:
    """The frames of an Instance that passed ``volume_screen``.

    Raises NotAnalysable when the Image Pixel Module, the rescale or the functional groups are not usable.
    """
    header = image.dataset
    form = pixel_format(header, limits)
    if source.reference.SOPClassUID in ENHANCED:
        return _enhanced_frames(source, image, form)
    if form.frames > 1:
        raise NotAnalysable(
            f"{UID(source.reference.SOPClassUID).name} holds {form.frames} frames without a geometry of their own"
        )
    lut = modality_lut(header, form)
    _require_hounsfield(header, header, lut)
    is_projection = source.reference.SOPClassUID in PROJECTION
    return (
        Frame(
            source,
            image,
            form,
            lut,
            spacing=_spacing(header),
            position=None if is_projection else _position(header),
            orientation=None if is_projection else _orientation(header),
            window=first_window(header),
            linear_window=text(header, "VOILUTFunction") in ("", "LINEAR"),
            image_type=_upper(header, "ImageType"),
            thickness=number(header, "SliceThickness"),
            tags={keyword: _joined(header, keyword) for keyword in DISTINGUISHING},
        ),
    )


def _enhanced_frames(source: SourceFile, image: SourceHeader, form: PixelFormat) -> tuple[Frame, ...]:
    """Frames of the Multi-frame Functional Groups Module (PS3.3 C.7.6.16)."""
    header = image.dataset
    shared = items(header, "SharedFunctionalGroupsSequence")
    each = items(header, "PerFrameFunctionalGroupsSequence")
    if len(each) != form.frames:
        raise NotAnalysable(f"a multi-frame image has {form.frames} frames and {len(each)} per-frame functional groups")
    base = shared[0] if shared else Dataset()
    return tuple(_enhanced_frame(source, image, form, _Groups(group, base), i) for i, group in enumerate(each))


@dataclass(frozen=True, slots=True)
class _Groups:
    """Functional group macros of one frame: its own, else the shared one."""

    own: Dataset
    shared: Dataset

    def macro(self, *keywords: str) -> Dataset:
        for keyword in keywords:
            for group in (self.own, self.shared):
                if found := items(group, keyword):
                    return found[0]
        return Dataset()


def _enhanced_frame(source: SourceFile, image: SourceHeader, form: PixelFormat, groups: _Groups, index: int) -> Frame:
    header = image.dataset
    transformation = groups.macro("PixelValueTransformationSequence")
    lut = linear_rescale(transformation) or Rescale()
    _require_hounsfield(header, transformation, lut)
    measures, voi = groups.macro("PixelMeasuresSequence"), groups.macro("FrameVOILUTSequence")
    image_type = _upper(groups.macro(*_FRAME_TYPES), "FrameType") or _upper(header, "ImageType")
    return Frame(
        source,
        image,
        form,
        lut,
        index,
        index + 1,
        spacing=_spacing(measures),
        position=_position(groups.macro("PlanePositionSequence")),
        orientation=_orientation(groups.macro("PlaneOrientationSequence")),
        window=first_window(voi),
        linear_window=text(voi, "VOILUTFunction") in ("", "LINEAR"),
        image_type=image_type,
        thickness=number(measures, "SliceThickness"),
        tags=_enhanced_tags(groups, image_type),
    )


def _enhanced_tags(groups: _Groups, image_type: tuple[str, ...]) -> dict[str, str]:
    tags = {keyword: _joined(groups.macro(macro), attribute) for keyword, (macro, attribute) in _MACROS.items()}
    diffusion = groups.macro("MRDiffusionSequence")
    gradients = items(diffusion, "DiffusionGradientDirectionSequence")
    if gradients:
        tags["DiffusionGradientOrientation"] = _joined(gradients[0], "DiffusionGradientOrientation")
    return tags | {"ImageType": "\\".join(image_type)}


def _require_hounsfield(header: Dataset, rescale: Dataset, lut: ModalityLUT) -> None:
    """CT values are HU only through Rescale Slope and Intercept, with Rescale Type HU or none (PS3.3 C.8.2.1)."""
    if text(header, "Modality") != "CT":
        return
    if not isinstance(lut, Rescale) or linear_rescale(rescale) is None:
        raise NotAnalysable("a CT image has no Rescale Slope and Intercept, so its values are not Hounsfield units")
    if text(rescale, "RescaleType") not in ("", "HU", "HU_MOD", "US"):
        raise NotAnalysable("the values of a CT image are not Hounsfield units (Rescale Type)")


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    found = numbers(dataset, "PixelSpacing", 2)
    return (found[0], found[1]) if found and min(found) > 0 else None


def _position(dataset: Dataset) -> tuple[float, float, float] | None:
    found = numbers(dataset, "ImagePositionPatient", 3)
    return (found[0], found[1], found[2]) if found else None


def _orientation(dataset: Dataset) -> Orientation | None:
    found = numbers(dataset, "ImageOrientationPatient", 6)
    if not found or not is_orientation(found):
        return None
    return (found[0], found[1], found[2], found[3], found[4], found[5])


def _upper(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(str(value).strip().upper() for value in values(dataset, keyword))


def _joined(dataset: Dataset, keyword: str) -> str:
    return "\\".join(str(value).strip() for value in values(dataset, keyword))
