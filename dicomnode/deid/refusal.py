"""Why an object is held back. The reasons are for programs and hold no patient data."""

from __future__ import annotations

from enum import StrEnum

from dicomnode.errors import Permanent


class Reason(StrEnum):
    """What a report, a journal and an audit row say of an object that is held back."""

    NOT_DICOM = "not-dicom"
    MALFORMED = "malformed"
    TOO_DEEP = "nested-too-deep"
    LIMIT = "reader-limit"
    READER = "reader-failed"
    DIRECTORY = "media-directory"
    NO_INSTANCE = "no-sop-instance"
    NO_PATIENT_ID = "no-patient-id"
    BURNED_IN = "burned-in-text"
    PIXELS = "pixels-not-cleaned"
    SAME_UID = "same-sop-instance-uid"
    CHANGED = "changed-while-read"
    UNKNOWN_PSEUDONYM = "unknown-pseudonym"
    OWN_INSTANCE = "own-instance"
    NO_SOURCE = "no-stored-source"


class Quarantined(Permanent):
    """This object is not de-identified and must not leave. ``detail``: more on the reason, without patient data."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason, self.detail = reason, detail
