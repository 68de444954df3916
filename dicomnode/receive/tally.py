"""What one open Association has brought so far, per Study."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from dicomnode.receive.admission import Request
from dicomnode.store.journal_record import RecordMemory

End = Literal["released", "aborted", "lost"]


@dataclass(slots=True)
class Tally:
    """Counts of one Study over one Association. ``begun``: its "begin transferring" record is committed."""

    PatientID: str = ""
    AccessionNumber: str = ""
    begun: bool = False
    new: int = 0
    repeated: int = 0
    conflict: int = 0
    refused: int = 0


@dataclass(slots=True)
class Touched:
    """When an Instance of a Series last came over an Association, and what of that its row says; as ``received_at``."""

    last: float
    written: float


@dataclass(slots=True, eq=False)
class OpenAssociation:
    """An accepted Association. Its C-STOREs run one after the other, in its own thread.

    ``touched``: the open Series that it brings, by the number of their rows.
    ``request``: by what it was opened. ``may_store``, ``may_report``: see ``admission.Admitted``.
    """

    id: int
    request: Request
    peer: str | None = None
    studies: dict[str, Tally] = field(default_factory=dict)
    may_store: bool = True
    may_report: bool = False
    ended: End | None = None
    running: bool = False
    last_used: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)
    touched: dict[int, Touched] = field(default_factory=dict)
    _memory: RecordMemory | None = None

    def memory(self, size: int) -> RecordMemory:
        """``size`` bytes for the C-STORE that runs, the same each time: fresh ones cost more than all that is done."""
        if self._memory is None:
            self._memory = RecordMemory(size)
        return self._memory

    @property
    def n_stored(self) -> int:
        """Instances that were not held before."""
        return sum(tally.new + tally.conflict for tally in self.studies.values())

    def touch(self, series_id: int, at: float, *, written: bool) -> None:
        """An Instance of that Series has come; ``written``: its row says so."""
        known = self.touched.get(series_id)
        if known is None or written:
            self.touched[series_id] = Touched(at, at)
        else:
            known.last = max(known.last, at)

    @property
    def CallingAETitle(self) -> str:
        """As the peer sent it, without outer spaces."""
        return self.request.CallingAETitle

    @property
    def address(self) -> str:
        """The peer's IP address."""
        return self.request.address

    def tally(self, study: str) -> Tally:
        """The counts of ``study``, an empty name for Instances whose Study could not be read."""
        found = self.studies.get(study)
        return found if found is not None else self.studies.setdefault(study, Tally())

    @contextmanager
    def storing(self) -> Iterator[None]:
        """While one C-STORE runs."""
        self.running = True
        try:
            yield
        finally:
            self.last_used = time.monotonic()
            self.running = False

    def quiet_for(self, seconds: float) -> bool:
        """No C-STORE runs, and none has for so long."""
        return not self.running and time.monotonic() - self.last_used >= seconds
