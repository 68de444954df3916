"""The C-STORE operation (PS3.4 B.2): durable file, then one transaction, then Success, in this order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy import select

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config
from dicomnode.dicom.header import ROUTING_KEYWORDS
from dicomnode.dicom.status import Status, describe_status
from dicomnode.errors import DicomNodeError, Transient
from dicomnode.receive.arrival import Examined, RefusedInstance, StoreRequest, examine
from dicomnode.receive.part10 import file_head
from dicomnode.receive.records import Kept, Recorded, SpooledInstance, moment, record
from dicomnode.receive.tally import OpenAssociation
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool, digest
from dicomnode.store.tables import InstanceRow

_log = logging.getLogger(__name__)


class StorageScp:
    """Keeps Instances. One object serves every Association; it holds no state of its own."""

    def __init__(self, config: Config, store: Store, spool: Spool, clock: Callable[[], float] = time.time) -> None:
        self._store, self._spool, self._clock = store, spool, clock
        self._min_free = config.receive.min_free_bytes
        self._keywords = ROUTING_KEYWORDS | config.rule_keywords

    def store(self, association: OpenAssociation, request: StoreRequest) -> int:
        """Keep the Instance and return the DIMSE status; never raises.

        0x0000 only after file, folder and rows are durable. 0xA700: disk or database, nothing is kept, send again.
        0xA900 and 0xC000: see ``examine``. 0x0110: an error of ours.
        """
        try:
            return self._store_instance(association, request)
        except RefusedInstance as refusal:
            association.tally(refusal.StudyInstanceUID).refused += 1
            self._alert(association, request, str(refusal), refusal.status)
            return refusal.status
        except Exception as error:  # noqa: BLE001 - process edge: whatever a peer sends, it gets an honest status
            _log.exception("C-STORE failed", extra={"association": association.id})
            association.tally("").refused += 1
            self._alert(association, request, type(error).__name__, Status.PROCESSING_FAILURE)
            return Status.PROCESSING_FAILURE

    def _store_instance(self, association: OpenAssociation, request: StoreRequest) -> int:
        examined = examine(request, self._keywords)
        tally = association.tally(examined.reference.StudyInstanceUID)
        try:
            recorded = self._keep(association, request, examined)
        except Transient as error:
            tally.refused += 1
            _log.warning("instance refused", extra={"association": association.id, "error": str(error)})
            return Status.OUT_OF_RESOURCES
        tally.begun = True
        tally.new += recorded.kept is Kept.NEW
        tally.repeated += recorded.kept is Kept.REPEATED
        tally.conflict += recorded.kept is Kept.CONFLICT
        return Status.SUCCESS

    def _keep(self, association: OpenAssociation, request: StoreRequest, examined: Examined) -> Recorded:
        self._require_space(len(request.data))
        sha256, received_at = digest(request.data), self._clock()
        uid = examined.reference.SOPInstanceUID
        head = file_head(request.SOPClassUID, uid, request.TransferSyntaxUID, association.CallingAETitle)
        name = f"{sha256}-{association.id}-{time.monotonic_ns():x}.dcm"
        path = self._spool.store((head, request.data), "received", name)
        spooled = SpooledInstance(examined, request.TransferSyntaxUID, sha256, len(request.data), path, received_at)
        try:
            with self._store.write() as session:
                recorded = record(session, association, spooled, self._is_there)
        except BaseException:
            self._discard_unless_recorded(path)
            raise
        if not recorded.owns_file:
            self._spool.remove(path)
        return recorded

    def _require_space(self, size: int) -> None:
        """A reserve stops the intake before the disk is full."""
        try:
            free = self._spool.free_bytes()
        except OSError as error:
            raise Transient(f"spool: disk error {error.errno}") from error
        if free < self._min_free + size:
            raise Transient("spool: less than min_free_bytes left")

    def _is_there(self, path: str) -> bool:
        return self._spool.absolute(path).is_file()

    def _discard_unless_recorded(self, path: str) -> None:
        """The commit may have happened although it raised; only a file that no row names is removed."""
        try:
            if self._store.scalar(select(InstanceRow.id).where(InstanceRow.path == path)) is None:
                self._spool.remove(path)
        except (DicomNodeError, OSError):
            _log.warning("a spool file without a row may be left", extra={"path": path})

    def _alert(self, association: OpenAssociation, request: StoreRequest, reason: str, status: int) -> None:
        body = {
            "reason": f"instance refused: {reason}",
            "association": association.id,
            "peer": association.peer,
            "CallingAETitle": association.CallingAETitle,
            "SOPInstanceUID": request.SOPInstanceUID,
            "status": describe_status(status),
        }
        _log.warning("instance refused", extra={key: body[key] for key in ("association", "status", "reason")})
        try:
            with self._store.write() as session:
                append(session, Event.SECURITY_ALERT, body, moment(self._clock()))
        except DicomNodeError as error:
            _log.error("not audited", extra={"error": str(error)})
