"""SOP classes: all that can be stored, those that hold images, and the service classes (PS3.4 B.5, PS3.6 A)."""

from __future__ import annotations

from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT_PUSH = "1.2.840.10008.1.20.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.1"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4.1"
COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
DIGITAL_X_RAY_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DIGITAL_X_RAY_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
GRAYSCALE_SOFTCOPY_PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"

_ROOT = "1.2.840.10008.5.1.4.1.1."
_RETIRED_IMAGES = tuple(_ROOT + suffix for suffix in ("3", "5", "6", "12.3", "77.1", "77.2"))
_RETIRED_OTHER = tuple(
    _ROOT + suffix for suffix in ("8", "9", "9.1", "10", "11", "88.1", "88.2", "88.3", "88.4", "129")
)

STORAGE_SOP_CLASSES: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            *(str(context.abstract_syntax) for context in AllStoragePresentationContexts),
            *_RETIRED_IMAGES,
            *_RETIRED_OTHER,
        )
    )
)
"""All composite SOP classes with a patient, the retired ones of PS3.6 included: old scanners still send them."""

_ENHANCED_US_VOLUME = _ROOT + "6.2"
IMAGE_SOP_CLASSES: frozenset[str] = frozenset(
    (
        *(uid for uid in STORAGE_SOP_CLASSES if "Image Storage" in UID(uid).name),
        *_RETIRED_IMAGES,
        _ENHANCED_US_VOLUME,
    )
)
"""Those whose information object is an image of the patient; segmentations, maps and RT doses are not."""


def is_image(sop_class_uid: str) -> bool:
    """Say whether instances of the class hold image pixels that a detector could look at."""
    return sop_class_uid in IMAGE_SOP_CLASSES


def sop_class_name(sop_class_uid: str) -> str:
    """Return the name of PS3.6 table A-1, or the UID itself when it is unknown."""
    return str(UID(sop_class_uid).name)
