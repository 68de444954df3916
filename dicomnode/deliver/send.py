"""Files and folders to a peer: the engine of ``dicomnode send``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicomnode.config.peers import Peer
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.scu import send_files
from dicomnode.deliver.sending import OutboundFile, SentStatus
from dicomnode.dicom.aetitle import ae_title
from dicomnode.dicom.header import read_header
from dicomnode.dicom.header_source import MalformedHeader
from dicomnode.dicom.references import require_uid
from dicomnode.errors import Permanent

MAX_LOST = 3
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_PREFIX = 132
_DESTINATION = re.compile(r"(?P<title>[^@]+)@(?P<host>\[[^\]]+\]|[^:\[\]@\s]+):(?P<port>[0-9]{1,5})\Z")


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """DICOM files in the order they will be sent, and how many other files were passed over."""

    files: tuple[Path, ...]
    skipped: int


@dataclass(frozen=True, slots=True)
class SendAnswer:
    """How it went with one file. ``ok``: the peer holds it; ``text``: the DIMSE status or the reason, in words."""

    path: Path
    SOPInstanceUID: str
    ok: bool
    status: int | None
    text: str


def parse_destination(text: str) -> Peer:
    """Read ``AET@HOST:PORT``; an IPv6 address stands in brackets. Raises Permanent saying what is wrong."""
    match = _DESTINATION.match(text.strip())
    if match is None:
        raise Permanent("the destination has to look like AET@HOST:PORT, for example PACS@192.0.2.7:104")
    port = int(match["port"])
    if not 1 <= port <= 65535:
        raise Permanent("the destination's port has to be from 1 to 65535")
    try:
        title = ae_title(match["title"])
    except ValueError as error:
        raise Permanent(f"the destination's AE title: {error}") from error
    return Peer(name="destination", ae_title=title, host=match["host"].strip("[]"), port=port)


def find_dicom(paths: Iterable[Path]) -> FoundFiles:
    """Walk files and folders in the order of their names and tell DICOM files (PS3.10 7.1) by content.

    A DICOMDIR is passed over. Raises Permanent when a path does not exist.
    """
    files: dict[Path, None] = {}
    skipped = 0
    for path in paths:
        if not path.exists():
            raise Permanent(f"{path} does not exist")
        for candidate in _walk(path):
            if _is_dicom(candidate):
                files[candidate] = None
            else:
                skipped += 1
    return FoundFiles(tuple(files), skipped)


def send_paths(
    paths: Sequence[Path], target: Peer, calling: str, limits: SendLimits | None = None
) -> Iterator[SendAnswer]:
    """Send the DICOM files in ``paths`` (files or folders), see ``send_found``. Raises Permanent if one is missing."""
    yield from send_found(find_dicom(paths).files, target, calling, limits)


def send_found(
    files: Sequence[Path], target: Peer, calling: str, limits: SendLimits | None = None
) -> Iterator[SendAnswer]:
    """Send ``files``, which ``find_dicom`` found, in order, and yield an answer for each.

    Each file is tried once. When the Association is lost, the files behind go over a new one, unless it was lost
    MAX_LOST times in a row without a response. Raises Permanent when ``calling`` is no AE title.
    """
    try:
        calling = ae_title(calling)
    except ValueError as error:
        raise Permanent(f"our AE title: {error}") from error
    outbound: list[OutboundFile] = []
    for path in files:
        file = read_outbound(path)
        if isinstance(file, SendAnswer):
            yield file
        else:
            outbound.append(file)
    yield from _send_all(outbound, target, calling, limits)


def read_outbound(path: Path) -> OutboundFile | SendAnswer:
    """What has to be known to send ``path``, or the answer that it cannot be sent."""
    wanted = ("SOPClassUID", "SOPInstanceUID", "MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID")
    try:
        header = read_header(path, {*wanted, "TransferSyntaxUID"})
    except (MalformedHeader, OSError):
        return SendAnswer(path, "", ok=False, status=None, text="the file is no readable DICOM file")
    uids = [str(header[keyword][0]) if keyword in header else "" for keyword in (*wanted, "TransferSyntaxUID")]
    sop_class, instance, meta_class, meta_instance, syntax = uids
    try:
        for uid in (sop_class, instance, syntax):
            require_uid(uid)
    except ValueError:
        text = "SOP Class, SOP Instance or Transfer Syntax UID is missing or not valid"
        return SendAnswer(path, instance, ok=False, status=None, text=text)
    return OutboundFile(path, sop_class, instance, syntax, (meta_class, meta_instance) == (sop_class, instance))


def _send_all(files: list[OutboundFile], target: Peer, calling: str, limits: SendLimits | None) -> Iterator[SendAnswer]:
    losses = 0
    while files:
        behind: list[SentStatus] = []
        for sent in send_files(target, calling, files, limits):
            if sent.lost and not sent.tried:
                behind.append(sent)
                continue
            losses = losses + 1 if sent.lost else 0
            yield _answer(sent)
        if len(behind) == len(files) or losses >= MAX_LOST:
            yield from map(_answer, behind)
            return
        files = [sent.file for sent in behind]


def _answer(sent: SentStatus) -> SendAnswer:
    return SendAnswer(sent.file.path, sent.file.SOPInstanceUID, sent.accepted, sent.status, sent.reason)


def _walk(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def _is_dicom(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            if file.read(_PREFIX)[-4:] != b"DICM":
                return False
        header = read_header(path, {"MediaStorageSOPClassUID"})
    except OSError:
        return False
    except MalformedHeader:
        return True
    return header.get("MediaStorageSOPClassUID") != (_MEDIA_DIRECTORY,)
