"""A PACS that is sometimes away, sometimes slow, sometimes in a bad mood."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.presentation import StoragePresentationContexts

from dicomnode.dicom.requestor import Acceptor
from tests.ports import free_port


class Archive:
    """A Storage SCP on a port that stays the same. ``received``: SOP Instance UID to how often it came."""

    def __init__(self) -> None:
        self.port = free_port()
        self.received: Counter[str] = Counter()
        self.delay_s = 0.0
        self.status = 0x0000
        self._lock = threading.Lock()
        self._server: Any = None

    def start(self) -> None:
        """Be there; does nothing when it is."""
        if self._server is None:
            entity = Acceptor(ae_title="ARCHIVE")
            entity.supported_contexts = StoragePresentationContexts
            entity.add_supported_context("1.2.840.10008.1.1")
            handlers = [(evt.EVT_C_STORE, self._keep)]
            self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        """Be away."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _keep(self, event: Event) -> int:
        threading.Event().wait(self.delay_s)
        if self.status == 0x0000:
            with self._lock:
                self.received[str(event.request.AffectedSOPInstanceUID)] += 1
        return self.status
