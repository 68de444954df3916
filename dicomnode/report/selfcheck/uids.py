"""Every UID is a registered one, one of the source, or one of ours that follows from it: never a random one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import partial

from pydicom.dataelem import DataElement
from pydicom.uid import UID
from pydicom.valuerep import VR

from dicomnode.report.selfcheck.case import Case
from dicomnode.report.selfcheck.level import Level
from dicomnode.report.selfcheck.tables import PARAMETRIC_MAP

_UUID_ROOT = "2.25"
_NAME_BASED = 5


def uid_fault(element: DataElement, case: Case) -> str:
    """That a UID is of unknown origin; "" for any other element."""
    if element.VR != VR.UI or not element.value:
        return ""
    values = [element.value] if isinstance(element.value, str) else element.value
    sound = all(case.judged_once(("uid", str(value)), partial(_known, str(value), case)) for value in values)
    return "" if sound else "neither of the source, nor registered, nor derived (a random UID?)"


def frame_of_reference_faults(level: Level, case: Case) -> Iterator[str]:
    """A Frame of Reference is the source's own where the source has one.

    A map needs one even where its images lie nowhere (PS3.3 A.75.3): then one of its own, and it is no volume."""
    stated = case.frames_of_reference
    own = level.elements.get("FrameOfReferenceUID")
    if own is None or not own.value or str(own.value) in stated:
        return
    image_type = level.elements.get("ImageType")
    volume = image_type is None or "VOLUME" in image_type.value
    sop_class = level.elements.get("SOPClassUID")
    if (stated and volume) or sop_class is None or sop_class.value != PARAMETRIC_MAP:
        yield "FrameOfReferenceUID: not that of the source (PS3.3 C.7.4.1)"


def _known(uid: str, case: Case) -> bool:
    return UID(uid).name != uid or is_derived(uid, case.context.uid_root) or case.has_uid(uid)


def is_derived(uid: str, root: str) -> bool:
    """Say whether ``uid`` can come from ``derived_uid``: a name-based UUID under 2.25, a number under another root."""
    stem, _, number = uid.rpartition(".")
    if stem != root or not number.isdigit():
        return False
    if root != _UUID_ROOT:
        return True
    return int(number) < 1 << 128 and uuid.UUID(int=int(number)).version == _NAME_BASED
