"""The C-STORE operation: fragments of a data set into a spool file, then file, rows and audit record made durable."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dicomnode.config import Config
from dicomnode.dicom.header import ROUTING_KEYWORDS
from dicomnode.dicom.header_source import FileSource, MemorySource
from dicomnode.dicom.status import Status, describe_status
from dicomnode.errors import DicomNodeError, Transient, place
from dicomnode.receive.alerts import Alerts
from dicomnode.receive.arrival import Examined, RefusedInstance, StoreRequest, examine, require_plausible
from dicomnode.receive.ledger import Ledger
from dicomnode.receive.part10 import file_head
from dicomnode.receive.records import Kept, SpooledInstance
from dicomnode.receive.replay import row_of
from dicomnode.receive.tally import OpenAssociation
from dicomnode.store.engine import Store
from dicomnode.store.journal import SEGMENTS, IntakeJournal
from dicomnode.store.spool import Spool, SpoolFile, digest

SPACE_CHECK_BYTES = 16 * 1024 * 1024
JOURNALED_BYTES = 1024 * 1024
_log = logging.getLogger(__name__)


class StorageScp:
    """Keeps Instances. One object serves every Association; it holds what they share: ledger, journal, threads."""

    def __init__(self, config: Config, store: Store, spool: Spool, clock: Callable[[], float] = time.time) -> None:
        self.store, self.spool, self.clock = store, spool, clock
        self.alerts = Alerts(store, clock)
        self.min_free = config.receive.min_free_bytes
        self.max_bytes = config.receive.max_instance_bytes
        self.keywords = ROUTING_KEYWORDS | config.rule_keywords
        self.ledger = Ledger(store, self._is_there)
        self.journal: IntakeJournal | None = None
        self.syncing = ThreadPoolExecutor(config.receive.max_associations, "sync")

    def open_journal(self, owner: str, size: int) -> None:
        """Take a journal of ``size`` bytes for the process ``owner``, whose earlier ones were replayed.

        There is none where it would take what ``min_free_bytes`` reserves.
        """
        if self.spool.free_bytes() < self.min_free + size:
            _log.warning("no room for an intake journal, every file is synced by itself")
            return
        self.journal = IntakeJournal(self.spool, owner or "single", size // SEGMENTS)

    def close(self) -> None:
        """Nothing is on its way any more: files that only the journal holds are synced."""
        self.syncing.shutdown()
        if self.journal is not None:
            self.journal.close()

    def begin(self, association: OpenAssociation, request: StoreRequest) -> Incoming:
        """Take the data set of ``request``, which follows in fragments."""
        return Incoming(self, association, request)

    def require_space(self) -> None:
        """A reserve stops the intake before the disk is full. Raises Transient."""
        if self.spool.free_bytes() < self.min_free:
            raise Transient("spool: less than min_free_bytes left")

    def may_be_recorded(self, path: str) -> bool:
        """The commit may have happened although it raised; only a file that no row names may be removed."""
        try:
            return row_of(self.store, path) is not None
        except DicomNodeError:
            _log.warning("a spool file without a row may be left", extra={"path": path})
            return True

    def alert(self, association: OpenAssociation, request: StoreRequest, reason: str, status: int) -> None:
        """Record a refused Instance as a Security Alert (PS3.15 A.5.3.11)."""
        body = {
            "reason": f"instance refused: {reason}",
            "association": association.id,
            "peer": association.peer,
            "CallingAETitle": association.CallingAETitle,
            "SOPInstanceUID": request.SOPInstanceUID[:64],
            "status": describe_status(status),
        }
        _log.warning("instance refused", extra={key: body[key] for key in ("association", "status", "reason")})
        self.alerts.tell(body)

    def _is_there(self, path: str) -> bool:
        return self.spool.absolute(path).is_file()


class Incoming:
    """One Instance on its way in. What fails is remembered, the rest of its fragments is passed over.

    ``write`` and ``finish`` never raise; ``drop`` leaves nothing of it. ``size``: bytes of the data set so far.
    """

    def __init__(self, scp: StorageScp, association: OpenAssociation, request: StoreRequest) -> None:
        self._scp, self._association, self._request = scp, association, request
        self._hash = hashlib.sha256()
        self._file: SpoolFile | None = None
        self._error: BaseException | None = None
        self._head_bytes = 0
        self._content = bytearray()
        self._study = ""
        self._next_check = SPACE_CHECK_BYTES
        self.size = 0
        self._try(self._begin)

    def write(self, fragment: memoryview) -> None:
        """Append a fragment as it came from the peer."""
        self.size += len(fragment)
        if self._error is None:
            self._try(lambda: self._append(fragment))

    def finish(self) -> int:
        """The data set is complete: make it durable and return the DIMSE status.

        0x0000 only after file, folder and rows are durable. 0xA700: too large, disk or database; nothing is kept,
        send again. 0xA900 and 0xC000: see ``examine``. 0x0110: an error of ours.
        """
        if self._error is None:
            self._try(self._keep)
        self.drop()
        return Status.SUCCESS if self._error is None else self._refuse(self._error)

    def drop(self) -> None:
        """Remove what is unfinished."""
        if self._file is not None:
            self._file.close()

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - process edge: whatever a peer sends, it gets an honest status
            self._error = error
            self.drop()

    def _begin(self) -> None:
        require_plausible(self._request)
        self._scp.require_space()
        request, title = self._request, self._association.CallingAETitle
        head = file_head(request.SOPClassUID, request.SOPInstanceUID, request.TransferSyntaxUID, title)
        self._file = self._scp.spool.begin("received", f"a{self._association.id}")
        self._file.write(head)
        self._head_bytes = len(head)
        self._content = bytearray(head)

    def _append(self, fragment: memoryview) -> None:
        if self.size > self._scp.max_bytes:
            raise RefusedInstance(Status.OUT_OF_RESOURCES, "larger than max_instance_bytes")
        if self.size > self._next_check:
            self._next_check = self.size + SPACE_CHECK_BYTES
            self._scp.require_space()
        self._open_file.write(fragment)
        if self.size <= JOURNALED_BYTES:
            self._content += fragment
            return
        if self._content:
            self._hash.update(memoryview(self._content)[self._head_bytes :])
            self._content = bytearray()
        self._hash.update(fragment)

    def _keep(self) -> None:
        """Digest and header are computed while the file is made durable; the rows follow when both are done."""
        path = self._open_file.place(_name(self._association.id))
        syncing = self._scp.syncing.submit(self._make_durable, path)
        try:
            sha256, examined = self._digest(), self._examine()
        finally:
            syncing.result()
        self._study = examined.reference.StudyInstanceUID
        about = self._request.TransferSyntaxUID, sha256, self.size, path, self._scp.clock()
        self._record(SpooledInstance(self._association, examined, *about))

    def _digest(self) -> str:
        """SHA-256 of the data set: a long one was hashed as it came, a short one is in memory."""
        if self._content:
            self._hash.update(memoryview(self._content)[self._head_bytes :])
        return self._hash.hexdigest()

    def _make_durable(self, path: str) -> None:
        journal = self._scp.journal
        if self._content and journal is not None and journal.save(path, self._content):
            return
        self._open_file.sync()

    def _examine(self) -> Examined:
        limits = self._scp.keywords, self._scp.max_bytes
        if self._content:
            return examine(self._request, MemorySource(memoryview(self._content)), self._head_bytes, *limits)
        with io.FileIO(self._open_file.descriptor, closefd=False) as stream:
            return examine(self._request, FileSource(stream), self._head_bytes, *limits)

    def _record(self, spooled: SpooledInstance) -> None:
        try:
            recorded = self._scp.ledger.record(spooled)
        except BaseException:
            if self._scp.may_be_recorded(spooled.path):
                self._open_file.keep()
            raise
        if recorded.owns_file:
            self._open_file.keep()
        tally = self._association.tally(self._study)
        tally.begun = True
        tally.new += recorded.kept is Kept.NEW
        tally.repeated += recorded.kept is Kept.REPEATED
        tally.conflict += recorded.kept is Kept.CONFLICT

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

    @property
    def _open_file(self) -> SpoolFile:
        if self._file is None:
            raise Transient("spool: no file")
        return self._file


def _name(association: int) -> str:
    """A fresh spool name: a digest of nothing that a peer chose, and the Association that a recovery asks for."""
    moment_ns = time.monotonic_ns()
    return f"{digest(os.urandom(16))}-{association}-{moment_ns:x}.dcm"
