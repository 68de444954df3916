"""Which Instances of a Series are images that a detector may see, and why the others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydicom import Dataset, uid
from pydicom.uid import UID

from dicomnode.detect.volume_header import text, values
from dicomnode.detect.volume_terms import NotAnalysable, SourceFile

_SECONDARY_CAPTURE = frozenset({uid.SecondaryCaptureImageStorage})
PROJECTION = _SECONDARY_CAPTURE | {
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.DigitalIntraOralXRayImageStorageForPresentation,
}
"""SOP Classes of projection radiographs; Secondary Capture counts only with a Modality of those."""
SLICE = frozenset({uid.CTImageStorage, uid.MRImageStorage, uid.PositronEmissionTomographyImageStorage})
ENHANCED = frozenset(
    {
        uid.EnhancedCTImageStorage,
        uid.EnhancedMRImageStorage,
        uid.EnhancedPETImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
        uid.LegacyConvertedEnhancedPETImageStorage,
    }
)
_FOR_PROCESSING = frozenset(
    {
        uid.DigitalXRayImageStorageForProcessing,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.DigitalIntraOralXRayImageStorageForProcessing,
    }
)
_PROJECTION_MODALITIES = frozenset({"CR", "DX", "MG", "IO", "PX", "RG"})
_CINE = frozenset(
    {uid.XRayAngiographicImageStorage, uid.XRayRadiofluoroscopicImageStorage, uid.NuclearMedicineImageStorage}
)

_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})

LOCALISER = "localiser images"
_COLOUR = "colour images (screenshots or colour maps)"
_NO_IMAGE = "objects without a Photometric Interpretation"
_RAW = "raw detector images (FOR PROCESSING: not comparable with images prepared for reading)"
_MOSAIC = "mosaic images (many slices in one picture)"
_CAPTURE = "secondary captures without slice geometry"


def unsuitable(source: SourceFile, header: Dataset) -> str | None:
    """Why this Instance is no image for a detector, as a plural noun; None when it may be one."""
    sop_class = source.reference.SOPClassUID
    if sop_class in _FOR_PROCESSING or text(header, "PresentationIntentType") == "FOR PROCESSING":
        return _RAW
    if sop_class not in PROJECTION | SLICE | ENHANCED:
        return _other_object(sop_class)
    if not text(header, "PhotometricInterpretation"):
        return _NO_IMAGE
    if text(header, "PhotometricInterpretation") not in _GREY or text(header, "SamplesPerPixel") not in ("", "1"):
        return _COLOUR
    if sop_class in _SECONDARY_CAPTURE and text(header, "Modality") not in _PROJECTION_MODALITIES:
        return _CAPTURE
    image_type = [str(value).strip().upper() for value in values(header, "ImageType")]
    if sop_class not in PROJECTION and "LOCALIZER" in image_type:
        return LOCALISER
    return _MOSAIC if "MOSAIC" in image_type else None


def _other_object(sop_class: str) -> str:
    name = UID(sop_class).name if UID(sop_class).type == "SOP Class" else "unknown kind of object"
    if sop_class in _CINE:
        return f"objects without slice geometry ({name})"
    return f"objects that are no CT, MR, PET or projection images ({name})"


def only_unsuitable(reasons: Sequence[str]) -> NotAnalysable:
    """The refusal for a Series in which every Instance is unsuitable."""
    return NotAnalysable(f"the series holds only {_listed(reasons)}")


def left_out(reasons: Sequence[str]) -> tuple[str, ...]:
    """The note that some Instances were left out; none when nothing was."""
    return (f"left out: {_listed(reasons, counted=True)}",) if reasons else ()


def _listed(reasons: Sequence[str], *, counted: bool = False) -> str:
    counts = sorted(Counter(reasons).items())
    return ", ".join(f"{count} {reason}" if counted else reason for reason, count in counts)
