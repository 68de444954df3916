"""Which Presentation Contexts are accepted (PS3.8 9.3.2.2): Verification, storage in whatever form, commitment."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from pydicom import config
from pydicom.uid import UID

from dicomnode.dicom.references import require_uid
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


@functools.lru_cache(maxsize=1024)
def is_storage(sop_class_uid: str) -> bool:
    """Say whether an abstract syntax is taken as a storage SOP class.

    Private classes, and standard ones younger than our dictionary, are storage too: they are kept, and answered
    with "not analysed" later. A known class of another service is not, nor is what is no UID.
    """
    try:
        known = UID(require_uid(sop_class_uid), config.IGNORE).type
    except ValueError:
        return False
    return sop_class_uid in _STORAGE or not known


def supported_syntaxes(sop_class_uid: str, *, storage: bool = True, reports: bool = False) -> Sequence[str]:
    """The transfer syntaxes that the node takes for an abstract syntax, in the order it prefers them; empty: none.

    ``storage``: storage SOP classes are taken; ``reports``: Storage Commitment is, where the requestor is the SCP
    (PS3.4 J.3.4), whether or not it negotiates its role.
    """
    if sop_class_uid == VERIFICATION:
        return UNCOMPRESSED
    if sop_class_uid == STORAGE_COMMITMENT_PUSH:
        return (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN) if reports else ()
    return PREFERENCE if storage and is_storage(sop_class_uid) else ()
