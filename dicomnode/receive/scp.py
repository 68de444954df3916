"""What the C-STOREs of all Associations share: limits, ledger, journal, threads; see ``receive.incoming``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dicomnode.config import Config
from dicomnode.dicom.header import ROUTING_KEYWORDS
from dicomnode.dicom.status import describe_status
from dicomnode.errors import DicomNodeError, Transient
from dicomnode.receive.alerts import Alerts
from dicomnode.receive.arrival import StoreRequest
from dicomnode.receive.incoming import Incoming
from dicomnode.receive.ledger import Ledger
from dicomnode.receive.replay import row_of
from dicomnode.receive.tally import OpenAssociation
from dicomnode.store.engine import Store
from dicomnode.store.journal import SEGMENTS, IntakeJournal
from dicomnode.store.spool import Spool, SpoolFile

AMPLE_BYTES = 8 * 2**30
LOOK_S = 0.2
"""How much more than the reserve is ample, and how long it stays so at least: nothing here writes that fast."""
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
        self._ample_until = 0.0
        self.disk = ThreadPoolExecutor(config.receive.max_associations, "disk")

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
        self.disk.shutdown()
        if self.journal is not None:
            self.journal.close()

    def write_soon(self, file: SpoolFile) -> None:
        """Close a kept file, and hand it to the disk; where the node stops already, its journal syncs it anyway."""
        try:
            self.disk.submit(file.write_soon)
        except RuntimeError:
            file.close()

    def begin(self, association: OpenAssociation, request: StoreRequest) -> Incoming:
        """Take the data set of ``request``, which follows in fragments."""
        return Incoming(self, association, request)

    def require_space(self) -> None:
        """A reserve stops the intake before the disk is full. Raises Transient.

        Far from full, it is looked at a few times a second.
        """
        now = time.monotonic()
        if now < self._ample_until:
            return
        free = self.spool.free_bytes() - self.min_free
        if free < 0:
            raise Transient("spool: less than min_free_bytes left")
        self._ample_until = now + LOOK_S if free > AMPLE_BYTES else 0.0

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
