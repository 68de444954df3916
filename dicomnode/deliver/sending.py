"""What is sent, and what came of it: the same words for every channel."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from dicomnode.dicom.status import Disposition, Status

REFUSED_CLASS = frozenset({Status.SOP_CLASS_NOT_SUPPORTED, Status.NO_SUCH_SOP_CLASS})
"""Answers that mean every Instance of the SOP Class (PS3.7 C.5.6 and C.5.8, PS3.18 I.2.2)."""
_LASTING = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
)


@dataclass(frozen=True, slots=True)
class OutboundFile:
    """A DICOM file (PS3.10) to send. ``meta_agrees``: its file meta information names the same Instance and class."""

    path: Path
    SOPClassUID: str
    SOPInstanceUID: str
    TransferSyntaxUID: str
    meta_agrees: bool = True


@dataclass(frozen=True, slots=True)
class SentStatus:
    """How it went with one file.

    ``status``: the peer's answer about this Instance, a status of PS3.4 B.2.3, which PS3.18 I.2.2 shares; None without
    one. ``tried``: its sending was begun. ``refused``: the peer takes no Instance of its SOP Class.
    ``retry_after_s``: when the peer wants to be asked again, in seconds. ``ours``: the fault is on our side, the
    connection stands.
    """

    file: OutboundFile
    disposition: Disposition
    status: int | None
    reason: str
    tried: bool
    refused: bool = False
    retry_after_s: float = 0.0
    ours: bool = False

    @property
    def lost(self) -> bool:
        """True when the connection failed before this file had a response."""
        return self.status is None and self.disposition is Disposition.TRANSIENT and not self.ours

    @property
    def accepted(self) -> bool:
        """True when the peer holds the Instance now."""
        return self.disposition.accepted


def stored(file: OutboundFile) -> SentStatus:
    """The peer holds it."""
    return SentStatus(file, Disposition.STORED, Status.SUCCESS, "0x0000 success", tried=True)


def failed(file: OutboundFile, reason: str) -> SentStatus:
    """No sending helps."""
    return SentStatus(file, Disposition.PERMANENT, None, reason, tried=False)


def not_sent(file: OutboundFile, reason: str) -> SentStatus:
    """It was not begun; a later attempt may succeed."""
    return SentStatus(file, Disposition.TRANSIENT, None, reason, tried=False)


def unreadable(file: OutboundFile, error: OSError) -> SentStatus:
    """It could not be read. No file, or no right to it: no sending helps; a disk or want of handles may recover."""
    if error.errno in _LASTING:
        return failed(file, "the file cannot be read")
    reason = f"the file cannot be read: disk error {error.errno}"
    return SentStatus(file, Disposition.TRANSIENT, None, reason, tried=False, ours=True)
