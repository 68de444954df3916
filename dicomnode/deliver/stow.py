"""Results to a DICOMweb origin server: the Studies Store transaction, STOW-RS (PS3.18 10.5)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence

from dicomnode.config.peers import StowPeer
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.multipart import MultipartFiles
from dicomnode.deliver.sending import OutboundFile, SentStatus, not_sent, unreadable
from dicomnode.deliver.stow_answer import judge, told, unexplained
from dicomnode.deliver.web import post
from dicomnode.errors import Transient

MAX_INSTANCES = 50
MAX_BYTES = 100 * 1024 * 1024

_STUDIES = "/studies"


def store_instances(
    peer: StowPeer, files: Sequence[OutboundFile], limits: SendLimits | None = None
) -> Generator[SentStatus, None, None]:
    """Send ``files`` by STOW-RS and yield one SentStatus for each, in order of sending.

    Each leaves byte for byte. A request holds at most MAX_INSTANCES of them and, unless it is a single one, MAX_BYTES.
    Instances that a failed request leaves unexplained, since another one may be at fault, are sent again alone.
    Network failures and refusals that an operator or time can mend raise nothing: they come as transient, with the
    reason, and so do the files behind.
    """
    limits = limits or SendLimits()
    readable: list[tuple[OutboundFile, int]] = []
    for file in files:
        try:
            readable.append((file, file.path.stat().st_size))
        except OSError as error:
            yield unreadable(file, error)
    yield from _store_all(peer, _batches(readable), limits)


def _batches(files: Sequence[tuple[OutboundFile, int]]) -> Iterator[list[OutboundFile]]:
    batch: list[OutboundFile] = []
    n_bytes = 0
    for file, size in files:
        if batch and (len(batch) == MAX_INSTANCES or n_bytes + size > MAX_BYTES):
            yield batch
            batch, n_bytes = [], 0
        batch.append(file)
        n_bytes += size
    if batch:
        yield batch


def _store_all(
    peer: StowPeer, batches: Iterable[Sequence[OutboundFile]], limits: SendLimits
) -> Generator[SentStatus, None, None]:
    """One request for each batch, until one is lost."""
    lost = ""
    for batch in batches:
        for answer in (not_sent(file, lost) for file in batch) if lost else _store(peer, batch, limits):
            lost = lost or (answer.reason if answer.lost else "")
            yield answer


def _store(peer: StowPeer, files: Sequence[OutboundFile], limits: SendLimits) -> Iterator[SentStatus]:
    try:
        answer = post(peer, _STUDIES, MultipartFiles([file.path for file in files]), limits)
    except (Transient, OSError) as error:
        reason = str(error) if isinstance(error, Transient) else "the file could not be read while it was sent"
        yield from (not_sent(file, reason) for file in files)
        return
    named = told(answer)
    again = unexplained(answer, named, files)
    yield from (judge(answer, named, file) for file in files if file not in again)
    yield from _store_all(peer, ([file] for file in again), limits)
