"""A PACS for the demo: a Storage SCP on loopback that keeps what it gets as files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.presentation import StoragePresentationContexts

from dicomnode.dicom.requestor import Acceptor

AE_TITLE = "DEMOPACS"


@dataclass(slots=True)
class DemoPacs:
    """The folder of received objects and the port that is listened on."""

    folder: Path
    port: int = 0
    received: list[Path] = field(default_factory=list)

    def keep(self, event: Event) -> int:
        """Store one object as folder/StudyInstanceUID/kind-SOPInstanceUID.dcm; a re-send replaces."""
        dataset = event.dataset
        modality = str(dataset.get("Modality", "OT"))
        path = self.folder / UID(dataset.StudyInstanceUID) / f"{modality}-{UID(dataset.SOPInstanceUID)}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(event.encoded_dataset())
        self.received.append(path)
        return 0x0000


@contextmanager
def demo_pacs(folder: Path, port: int = 0) -> Iterator[DemoPacs]:
    """Run the PACS on a loopback port, a free one unless ``port`` says which."""
    pacs = DemoPacs(folder)
    entity = Acceptor(ae_title=AE_TITLE)
    entity.supported_contexts = StoragePresentationContexts
    entity.maximum_pdu_size = 0
    entity.add_supported_context("1.2.840.10008.1.1")
    server: Any = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, pacs.keep)])
    pacs.port = server.socket.getsockname()[1]
    try:
        yield pacs
    finally:
        server.shutdown()
