"""One Instance on its way in: small ones stay in memory until they are whole, large ones go to their file at once."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dicomnode.dicom.header import Begun, begin_whole
from dicomnode.dicom.header_source import FileSource, MemorySource
from dicomnode.dicom.status import Status
from dicomnode.errors import Transient, place
from dicomnode.receive.arrival import Examined, RefusedInstance, StoreRequest, examine, require_plausible
from dicomnode.receive.part10 import file_head
from dicomnode.receive.records import Kept, Recorded, SpooledInstance
from dicomnode.receive.tally import OpenAssociation
from dicomnode.store.spool import SpoolFile, digest

if TYPE_CHECKING:
    from dicomnode.receive.scp import StorageScp

SPACE_CHECK_BYTES = 16 * 1024 * 1024
JOURNALED_BYTES = 1024 * 1024
"""A file up to about this size is kept in memory until it is whole, and made durable by the intake journal."""
EARLY_BYTES = 256 * 1024
"""From this size on a file goes to the disk at once: many that the journal alone holds would stall it together."""
LOOK_BYTES = (16 * 1024, 128 * 1024)
"""With so much of a data set its header is tried: most end before, and the peer sends the rest meanwhile."""
_log = logging.getLogger(__name__)


class Incoming:
    """One Instance on its way in. What fails is remembered, the rest of its fragments is passed over.

    ``write`` and ``finish`` never raise; ``drop`` leaves nothing of it. ``size``: bytes of the data set so far.
    """

    def __init__(self, scp: StorageScp, association: OpenAssociation, request: StoreRequest) -> None:
        self._scp, self._association, self._request = scp, association, request
        self._hash = hashlib.sha256()
        self._file: SpoolFile | None = None
        self._error: BaseException | None = None
        self._name = _name(association.id)
        self._path = scp.spool.path("received", self._name)
        self._block = association.memory(JOURNALED_BYTES)
        self._memory = self._block.content(self._path)
        self._head_bytes = self._filled = 0
        self._study = ""
        self._stays = False
        self._begun: Begun | None = None
        self._looks = list(LOOK_BYTES)
        self._next_check = SPACE_CHECK_BYTES
        self.size = 0
        try:
            self._begin()
        except Exception as error:  # noqa: BLE001 - process edge: whatever a peer sends, it gets an honest status
            self._fail(error)

    def write(self, fragment: memoryview) -> None:
        """Append a fragment as it came from the peer."""
        self.size += len(fragment)
        if self._error is not None:
            return
        try:
            self._append(fragment)
        except Exception as error:  # noqa: BLE001 - process edge: an honest status for whatever was sent
            self._fail(error)

    def finish(self) -> int:
        """The data set is complete: make it durable and return the DIMSE status.

        0x0000 only after file, folder and rows are durable. 0xA700: too large, disk or database; nothing is kept,
        send again. 0xA900 and 0xC000: see ``examine``. 0x0110: an error of ours.
        """
        if self._error is None:
            try:
                self._keep()
            except Exception as error:  # noqa: BLE001 - process edge: an honest status for whatever was sent
                self._fail(error)
        if self._error is not None:
            return self._refuse(self._error)
        if self._file is not None and self._stays and self.size >= EARLY_BYTES:
            self._file.keep()
            self._scp.write_soon(self._file)
        else:
            self.drop()
        return Status.SUCCESS

    def drop(self) -> None:
        """Remove what is unfinished."""
        if self._file is not None:
            if self._stays:
                self._file.keep()
            self._file.close()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self.drop()

    def _begin(self) -> None:
        require_plausible(self._request)
        self._scp.require_space()
        request, title = self._request, self._association.CallingAETitle
        head = file_head(request.SOPClassUID, request.SOPInstanceUID, request.TransferSyntaxUID, title)
        self._head_bytes = self._filled = len(head)
        self._memory[: len(head)] = head

    def _append(self, fragment: memoryview) -> None:
        if self.size > self._scp.max_bytes:
            raise RefusedInstance(Status.OUT_OF_RESOURCES, "larger than max_instance_bytes")
        if self.size > self._next_check:
            self._next_check = self.size + SPACE_CHECK_BYTES
            self._scp.require_space()
        self._hash.update(fragment)
        end = self._filled + len(fragment)
        if self._file is None and end <= len(self._memory):
            self._memory[self._filled : end] = fragment
            self._filled = end
            if self._looks and end >= self._looks[0]:
                self._look(end)
        else:
            self._to_file().write(fragment)

    def _look(self, end: int) -> None:
        """Read the header, if it is all there."""
        syntax = self._request.TransferSyntaxUID
        self._begun = begin_whole(MemorySource(self._memory[:end]), self._head_bytes, syntax, self._scp.keywords)
        self._looks = [] if self._begun is not None else [size for size in self._looks if size > end]

    def _to_file(self) -> SpoolFile:
        """The file, with what was in memory."""
        if self._file is None:
            self._file = self._scp.spool.begin("received", f"a{self._association.id}")
            self._file.write(self._memory[: self._filled])
        return self._file

    def _keep(self) -> None:
        if self._file is None:
            self._keep_small()
        else:
            self._keep_large(self._file)

    def _keep_small(self) -> None:
        """The journal saves it, and its file is written, while the header is read and the rows are added."""
        journal = self._scp.journal
        saving = None if journal is None else journal.begin(self._path, self._block, self._filled)
        if saving is None:
            self._keep_large(self._to_file())
            return
        placing = self._scp.disk.submit(self._place_small)

        def durable() -> None:
            saving.wait()
            placing.result()

        with saving:
            try:
                self._record(self._examine(MemorySource(self._memory[: self._filled])), durable)
            finally:
                placing.exception()  # the memory is in use until then

    def _place_small(self) -> None:
        self._file = self._scp.spool.create("received", self._name)
        self._file.write(self._memory[: self._filled])

    def _keep_large(self, file: SpoolFile) -> None:
        """The header is read while the file is made durable."""
        file.place(self._name)
        syncing = self._scp.disk.submit(file.sync)
        try:
            with io.FileIO(file.descriptor, closefd=False) as stream:
                examined = self._examine(FileSource(stream))
        finally:
            syncing.result()
        self._record(examined, _at_once)

    def _examine(self, source: MemorySource) -> Examined:
        about = self._request, source, self._head_bytes, self._scp.keywords, self._scp.max_bytes
        examined = examine(*about, self._begun)
        self._study = examined.reference.StudyInstanceUID
        return examined

    def _record(self, examined: Examined, durable: Callable[[], None]) -> None:
        about = self._request.TransferSyntaxUID, self._hash.hexdigest(), self.size, self._path, self._scp.clock()
        try:
            recorded = self._scp.ledger.record(SpooledInstance(self._association, examined, *about), durable)
        except BaseException:
            self._stays = self._scp.may_be_recorded(self._path)
            raise
        self._stays = recorded.owns_file
        self._count(recorded, about[-1])

    def _count(self, recorded: Recorded, received_at: float) -> None:
        tally = self._association.tally(self._study)
        tally.begun = True
        tally.new += recorded.kept is Kept.NEW
        tally.repeated += recorded.kept is Kept.REPEATED
        tally.conflict += recorded.kept is Kept.CONFLICT
        if recorded.series_id is not None:
            self._association.touch(recorded.series_id, received_at, written=recorded.touched)

    def _refuse(self, error: BaseException) -> int:
        if isinstance(error, RefusedInstance):
            study, reason, status = error.StudyInstanceUID, str(error), error.status
        elif isinstance(error, Transient):
            self._association.tally(self._study).refused += 1
            _log.warning("instance refused", extra={"association": self._association.id, "error": str(error)})
            return Status.OUT_OF_RESOURCES
        else:
            _log.error("C-STORE failed", extra={"exception": type(error).__name__, "at": place(error)})
            study, reason, status = "", type(error).__name__, int(Status.PROCESSING_FAILURE)
        self._association.tally(study).refused += 1
        self._scp.alert(self._association, self._request, reason, status)
        return status


def _at_once() -> None:
    """The file is durable already."""


def _name(association: int) -> str:
    """A fresh spool name: a digest of nothing that a peer chose, and the Association that a recovery asks for."""
    moment_ns = time.monotonic_ns()
    return f"{digest(os.urandom(16))}-{association}-{moment_ns:x}.dcm"
