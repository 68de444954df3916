"""Which Presentation Contexts are accepted (PS3.8 9.3.2.2): Verification, storage in whatever form, commitment."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode.dicom.sop_classes import STORAGE_COMMITMENT_PUSH, STORAGE_SOP_CLASSES, VERIFICATION
from dicomnode.dicom.transfer_syntaxes import (
    ALL_TRANSFER_SYNTAXES,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    UNCOMPRESSED,
)

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


def accepted_contexts(
    requested: Sequence[PresentationContext], *, storage: bool = True, reports: bool = False
) -> list[PresentationContext]:
    """Return what the node supports of ``requested``, transfer syntaxes in the order it prefers them.

    ``storage``: storage SOP classes; ``reports``: Storage Commitment, where the requestor is the SCP (PS3.4 J.3.4),
    whether or not it negotiates its role.
    """
    offered: dict[str, set[str]] = {}
    for context in requested:
        offered.setdefault(str(context.abstract_syntax), set()).update(map(str, context.transfer_syntax))
    supported = []
    for sop_class_uid, syntaxes in offered.items():
        known = _supported_syntaxes(sop_class_uid, storage=storage, reports=reports)
        if common := [syntax for syntax in known if syntax in syntaxes]:
            context = build_context(sop_class_uid, common)
            if sop_class_uid == STORAGE_COMMITMENT_PUSH:
                context.scu_role = context.scp_role = True
            supported.append(context)
    return supported


def is_not_only_storage(requested: Sequence[PresentationContext]) -> bool:
    """Does the requestor propose Verification or Storage Commitment?"""
    return any(str(context.abstract_syntax) in {VERIFICATION, STORAGE_COMMITMENT_PUSH} for context in requested)


def _supported_syntaxes(sop_class_uid: str, *, storage: bool, reports: bool) -> Sequence[str]:
    if sop_class_uid == VERIFICATION:
        return UNCOMPRESSED
    if sop_class_uid == STORAGE_COMMITMENT_PUSH:
        return (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN) if reports else ()
    return PREFERENCE if storage and is_storage(sop_class_uid) else ()
