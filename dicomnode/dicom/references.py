"""Reference objects: small frozen values that travel between rooms instead of datasets (PS3.3 C.7)."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z")


@functools.lru_cache(maxsize=1024)
def require_uid(value: str) -> str:
    """Return ``value`` when it is a UID: digits and dots, at most 64 characters (PS3.5 section 9.1).

    Leading zeros in a component, which the standard forbids and some devices write, pass: refusing them would lose
    images. Raises ValueError otherwise; the message does not repeat the value.
    """
    if len(value) > 64 or not _UID.match(value):
        raise ValueError("not a valid DICOM UID")
    return value


@dataclass(frozen=True, slots=True, order=True)
class StudyReference:
    """A Study by its Study Instance UID (0020,000D)."""

    StudyInstanceUID: str

    def __post_init__(self) -> None:
        require_uid(self.StudyInstanceUID)


@dataclass(frozen=True, slots=True, order=True)
class SeriesReference:
    """A Series within its Study: Series Instance UID (0020,000E)."""

    StudyInstanceUID: str
    SeriesInstanceUID: str

    def __post_init__(self) -> None:
        require_uid(self.StudyInstanceUID)
        require_uid(self.SeriesInstanceUID)


@dataclass(frozen=True, slots=True, order=True)
class InstanceReference:
    """An Instance by SOP Class and SOP Instance UID, within its Series and Study."""

    StudyInstanceUID: str
    SeriesInstanceUID: str
    SOPClassUID: str
    SOPInstanceUID: str

    def __post_init__(self) -> None:
        for uid in (self.StudyInstanceUID, self.SeriesInstanceUID, self.SOPClassUID, self.SOPInstanceUID):
            require_uid(uid)

    @property
    def series(self) -> SeriesReference:
        return SeriesReference(self.StudyInstanceUID, self.SeriesInstanceUID)
