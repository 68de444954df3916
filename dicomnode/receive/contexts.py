"""Which Presentation Contexts are accepted (PS3.8 9.3.2.2): Verification, and storage in whatever form it comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.uid import UID
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode.dicom.sop_classes import STORAGE_SOP_CLASSES, VERIFICATION
from dicomnode.dicom.transfer_syntaxes import ALL_TRANSFER_SYNTAXES, UNCOMPRESSED

STORAGE_SERVICE_CLASS = "1.2.840.10008.4.2"
_STORAGE = frozenset(STORAGE_SOP_CLASSES)
_JPEG = "1.2.840.10008.1.2.4."
_LOSSLESS = (
    "1.2.840.10008.1.2.5",
    *(_JPEG + process for process in ("70", "57", "80", "90", "92", "201", "202", "110")),
    "1.2.840.10008.1.2.1.99",
)
PREFERENCE: tuple[str, ...] = tuple(dict.fromkeys((*UNCOMPRESSED, *_LOSSLESS, *ALL_TRANSFER_SYNTAXES)))
"""A peer that offers one SOP Class in several transfer syntaxes is asked for native, else lossless pixels."""


def is_storage(sop_class_uid: str) -> bool:
    """Say whether an abstract syntax is taken as a storage SOP class.

    Private classes, and standard ones younger than our dictionary, are storage too: they are kept, and answered
    with "not analysed" later. A known class of another service is not.
    """
    return sop_class_uid in _STORAGE or not UID(sop_class_uid).type


def accepted_contexts(requested: Sequence[PresentationContext]) -> list[PresentationContext]:
    """Return what the node supports of ``requested``, transfer syntaxes in the order it prefers them."""
    offered: dict[str, set[str]] = {}
    for context in requested:
        offered.setdefault(str(context.abstract_syntax), set()).update(map(str, context.transfer_syntax))
    supported = []
    for sop_class_uid, syntaxes in offered.items():
        known = UNCOMPRESSED if sop_class_uid == VERIFICATION else PREFERENCE if is_storage(sop_class_uid) else ()
        if common := [syntax for syntax in known if syntax in syntaxes]:
            supported.append(build_context(sop_class_uid, common))
    return supported


def storage_services(sop_class_uids: Iterable[str]) -> dict[UID, SOPClassCommonExtendedNegotiation]:
    """Tell pynetdicom that these classes belong to the Storage Service Class (PS3.7 D.3.3.6).

    Nothing of this reaches the peer; without it the library has no service for a class that it does not know.
    """
    items = {}
    for sop_class_uid in filter(is_storage, sop_class_uids):
        item = SOPClassCommonExtendedNegotiation()
        item.sop_class_uid = sop_class_uid
        item.service_class_uid = STORAGE_SERVICE_CLASS
        items[UID(sop_class_uid)] = item
    return items
