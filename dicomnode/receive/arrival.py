"""One C-STORE request before anything is written: what it says, and whether it may be kept."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dicomnode.dicom.header import Begun, MalformedHeader, read_whole
from dicomnode.dicom.header_source import MemorySource
from dicomnode.dicom.references import InstanceReference, require_uid
from dicomnode.dicom.status import Status
from dicomnode.dicom.summary import Header
from dicomnode.errors import Refusal


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE-RQ (PS3.7 9.3.1.1): what the command set and the Presentation Context say."""

    SOPClassUID: str
    SOPInstanceUID: str
    abstract_syntax: str
    TransferSyntaxUID: str


@dataclass(frozen=True, slots=True)
class Examined:
    """The identity of an Instance by its own data set, and the header values that the node keeps."""

    reference: InstanceReference
    header: Header

    def text(self, keyword: str) -> str:
        """The first value of ``keyword`` as text, empty when there is none."""
        values = self.header.get(keyword, ())
        return str(values[0]) if values else ""


class RefusedInstance(Refusal):
    """The Instance cannot be kept. ``StudyInstanceUID``: as far as it could be read, else empty."""

    def __init__(self, status: int, reason: str, study: str = "") -> None:
        super().__init__(status, reason)
        self.StudyInstanceUID = study


def require_plausible(request: StoreRequest) -> None:
    """Refuse before a byte of the data set is kept: 0xC000 when the command's UID is none. Raises RefusedInstance."""
    try:
        require_uid(request.SOPInstanceUID)
    except ValueError as error:
        raise RefusedInstance(Status.CANNOT_UNDERSTAND, "the command's SOPInstanceUID is not a valid UID") from error


def examine(
    request: StoreRequest,
    source: MemorySource,
    offset: int,
    keywords: Collection[str],
    inflated_bytes: int,
    begun: Begun | None = None,
) -> Examined:
    """Read the header of the data set that begins at ``offset`` of ``source`` and hold it against the command set.

    ``inflated_bytes``: a deflated data set that is longer is refused. ``begun``: what was read of it while it came, if
    that is so. Raises RefusedInstance: 0xC000
    when the data set cannot be walked to its end or lacks a valid UID, 0xA900 when it is not the Instance, or not of
    the SOP Class, that the command or the Presentation Context says (PS3.4 B.2.3).
    """
    try:
        header = read_whole(
            source, offset, request.TransferSyntaxUID, keywords, inflated_bytes=inflated_bytes, begun=begun
        )
    except MalformedHeader as error:
        raise RefusedInstance(Status.CANNOT_UNDERSTAND, f"malformed data set: {error}") from error
    if "TransferSyntaxUID" in keywords:
        header["TransferSyntaxUID"] = (request.TransferSyntaxUID,)
    study = _uid(header, "StudyInstanceUID", "")
    series, sop_class, instance = (
        _uid(header, keyword, study) for keyword in ("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
    )
    if instance != request.SOPInstanceUID:
        raise RefusedInstance(Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "SOPInstanceUID is not the command's", study)
    if not sop_class == request.SOPClassUID == request.abstract_syntax:
        raise RefusedInstance(Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "SOPClassUID is not the command's", study)
    return Examined(InstanceReference(study, series, sop_class, instance), header)


def _uid(header: Header, keyword: str, study: str) -> str:
    values = header.get(keyword, ())
    if len(values) != 1:
        raise RefusedInstance(Status.CANNOT_UNDERSTAND, f"{keyword} is missing or has several values", study)
    try:
        return require_uid(str(values[0]))
    except ValueError as error:
        raise RefusedInstance(Status.CANNOT_UNDERSTAND, f"{keyword} is not a valid UID", study) from error
