"""Storage SCU and Verification SCU (PS3.4 annexes B and A)."""

from __future__ import annotations

import itertools
import os
import struct
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicomnode.config.peers import Peer
from dicomnode.deliver.association import NothingAccepted, SendLimits, association
from dicomnode.deliver.contexts import accepted_pairs, batches, contexts_for, is_convertible
from dicomnode.deliver.line import Line, NothingSent, Shipment
from dicomnode.deliver.sending import REFUSED_CLASS, OutboundFile, SentStatus, failed, not_sent, unreadable
from dicomnode.dicom.faults import PYDICOM_FAULTS
from dicomnode.dicom.header import part10_offset
from dicomnode.dicom.header_source import MalformedHeader
from dicomnode.dicom.sop_classes import VERIFICATION, sop_class_name
from dicomnode.dicom.status import Disposition, describe_status, storage_disposition
from dicomnode.dicom.transfer_syntaxes import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from dicomnode.errors import Permanent, Transient

_UNDEFINED_LENGTH = 0xFFFFFFFF
_META_BYTES = 256 * 1024
_META_AT, _META = 128, b"DICM\x02\x00"
_ABORTED = "the peer aborted the association"
# What pydicom raises on damaged file meta information; pynetdicom reads it. The last one is a RuntimeError too.
_DAMAGED_META = (*PYDICOM_FAULTS, EOFError, AttributeError, KeyError, TypeError, struct.error, NotImplementedError)
_UNREADABLE = (
    *PYDICOM_FAULTS,
    OSError,
    EOFError,
    ValueError,
    AttributeError,
    KeyError,
    TypeError,
    NotImplementedError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class EchoResult:
    """Answer to C-ECHO; ``seconds`` from the Association request to the response."""

    ok: bool
    reason: str
    seconds: float


def echo(peer: Peer, calling_ae: str, limits: SendLimits | None = None) -> EchoResult:
    """Ask ``peer`` by C-ECHO whether it is there and knows us (PS3.4 annex A); network failures are answers."""
    limits, started = limits or SendLimits(dimse_s=10.0, acse_s=10.0), time.monotonic()
    try:
        with association(peer, calling_ae, [build_context(VERIFICATION)], limits) as opened:
            status = opened.send_c_echo().get("Status")
    except (Transient, NothingAccepted) as error:
        return EchoResult(False, str(error), time.monotonic() - started)  # noqa: FBT003 - a field
    return EchoResult(status == 0, describe_status(status), time.monotonic() - started)


def send_files(
    peer: Peer, calling_ae: str, files: Sequence[OutboundFile], limits: SendLimits | None = None
) -> Generator[SentStatus, None, None]:
    """Send ``files`` by C-STORE and yield one SentStatus for each, in order.

    One Association, more only when the files need over 128 Presentation Contexts. Every SOP Class is proposed in the
    file's own Transfer Syntax, by itself, and in Explicit and Implicit VR Little Endian. Where its own is accepted
    the data set leaves byte for byte; otherwise an uncompressed one is converted and a compressed one refused.
    Network failures raise nothing: the files that got no response come as transient, with the reason. Closing the
    iterator releases the Association.
    """
    limits = limits or SendLimits()
    remaining = list(batches(files))
    while remaining:
        batch = remaining.pop(0)
        with closing(_send_batch(peer, calling_ae, batch, limits)) as answers:
            lost = ""
            for answer in answers:
                lost = answer.reason if answer.lost else ""
                yield answer
        if lost:
            yield from (not_sent(file, lost) for file in itertools.chain.from_iterable(remaining))
            return


def _send_batch(
    peer: Peer, calling_ae: str, files: Sequence[OutboundFile], limits: SendLimits
) -> Generator[SentStatus, None, None]:
    position = 0
    try:
        with (
            association(peer, calling_ae, contexts_for(files), limits) as opened,
            closing(Line(opened, limits)) as line,
        ):
            accepted, reason = accepted_pairs(opened), ""
            for file in files:
                if reason or not opened.is_established:
                    answer = not_sent(file, reason or _ABORTED)
                else:
                    answer = _send_one(opened, line, accepted, file, position % 0xFFFF + 1, limits)
                    reason = answer.reason if answer.lost else ""
                position += 1
                yield answer
    except NothingAccepted:
        yield from (_not_accepted((), file) for file in files[position:])
    except Transient as error:
        yield from (not_sent(file, str(error)) for file in files[position:])


def _send_one(
    opened: Association,
    line: Line,
    accepted: Mapping[tuple[str, str], int],
    file: OutboundFile,
    message_id: int,
    limits: SendLimits,
) -> SentStatus:
    exact = accepted.get((file.SOPClassUID, file.TransferSyntaxUID))
    if exact is None and not _is_acceptable_converted(accepted, file):
        return _not_accepted(accepted, file)
    started = time.monotonic()
    try:
        opened.dimse_timeout = limits.dimse_s + file.path.stat().st_size / limits.slowest_bytes_s
        if exact is not None and file.meta_agrees:
            status = _send_exact(line, exact, file, message_id, opened.dimse_timeout)
        else:
            status = _send_converted(opened, line, file, message_id)
    except OSError as error:
        return unreadable(file, error)
    except Permanent as error:
        return failed(file, str(error))
    except (NothingSent, RuntimeError):
        return not_sent(file, _ABORTED)
    if status is None:
        return SentStatus(file, Disposition.TRANSIENT, None, _silence(opened, time.monotonic() - started), tried=True)
    refused = status in REFUSED_CLASS
    return SentStatus(file, storage_disposition(status), status, describe_status(status), tried=True, refused=refused)


def _send_exact(line: Line, context_id: int, file: OutboundFile, message_id: int, within_s: float) -> int | None:
    """The file's data set, byte for byte.

    Raises OSError when the file cannot be opened, Permanent and NothingSent for this file, Transient for all behind.
    """
    with file.path.open("rb", buffering=0) as stream:
        begin = stream.read(_META_BYTES)
        try:
            syntax, offset = part10_offset(begin)
        except MalformedHeader as error:
            raise Permanent("the file meta information is damaged") from error
        if syntax != file.TransferSyntaxUID or begin[_META_AT : _META_AT + len(_META)] != _META:
            raise Permanent("the file meta information is damaged")
        size = os.fstat(stream.fileno()).st_size - stream.seek(offset)
        if size < 0:
            raise Transient("the file became shorter while it was read")
        shipment = Shipment(stream, size, context_id, message_id, file.SOPClassUID, file.SOPInstanceUID)
        try:
            return line.store(shipment, within_s)
        except (OSError, EOFError) as error:
            raise Transient("the file could not be read while it was sent") from error


def _send_converted(opened: Association, line: Line, file: OutboundFile, message_id: int) -> int | None:
    """The file's data set as pynetdicom encodes it anew. Raises Permanent, and RuntimeError without an Association."""
    dataset = _whole(file)
    line.close()
    try:
        status = opened.send_c_store(dataset, msg_id=message_id).get("Status")
    except ValueError as error:
        raise Permanent("the data set cannot be encoded") from error
    except _DAMAGED_META as error:
        raise Permanent("the file meta information is damaged") from error
    return None if status is None else int(status)


def _is_acceptable_converted(accepted: Collection[tuple[str, str]], file: OutboundFile) -> bool:
    plain = {(file.SOPClassUID, syntax) for syntax in (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)}
    return is_convertible(file.TransferSyntaxUID) and not plain.isdisjoint(accepted)


def _whole(file: OutboundFile) -> Dataset:
    try:
        dataset = dcmread(file.path)
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:  # without: pydicom's own word for nonsense
            raise
        raise Permanent("the file is no readable DICOM file") from error
    if any(_is_cut(dataset.get_item(tag)) for tag in dataset.keys()):  # noqa: SIM118 - no decoding
        raise Permanent("the file is cut off")
    return dataset


def _is_cut(element: Any) -> bool:
    """pydicom reads a value that ends with the file too early without a word."""
    if not isinstance(element, RawDataElement) or element.value is None:
        return False
    return element.length != _UNDEFINED_LENGTH and len(element.value) != element.length


def _silence(opened: Association, seconds: float) -> str:
    if seconds >= (opened.dimse_timeout or 0):
        return f"no response to C-STORE within {seconds:.0f} s"
    return "the peer aborted the association or closed the connection"


def _not_accepted(accepted: Collection[tuple[str, str]], file: OutboundFile) -> SentStatus:
    """A class of which another Transfer Syntax is accepted is not refused."""
    wanted = f"{sop_class_name(file.SOPClassUID)} in {UID(file.TransferSyntaxUID).name}"
    refused = file.SOPClassUID not in {sop_class for sop_class, _ in accepted}
    return replace(failed(file, f"the peer does not accept {wanted}"), refused=refused)
