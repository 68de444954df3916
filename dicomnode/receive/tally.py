"""What one open Association has brought so far, per Study."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from dicomnode.receive.admission import Request

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


@dataclass(slots=True, eq=False)
class OpenAssociation:
    """An accepted Association. Its C-STOREs run one after the other, in its own thread.

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
    _memory: bytearray = field(default_factory=bytearray)

    def memory(self, size: int) -> bytearray:
        """``size`` bytes for the C-STORE that runs, the same each time: fresh ones cost more than all that is done."""
        if not self._memory:
            self._memory = bytearray(size)
        return self._memory

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
        return self.studies.setdefault(study, Tally())

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
