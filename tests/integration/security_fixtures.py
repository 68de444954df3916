"""A receiving node of one process, and data sets to send to it by raw PDUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import select

from dicomnode.config import Config
from dicomnode.receive import StorageServer
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AuditRow, InstanceRow
from tests.fuzz.wire import ACCEPTED, CT_IMAGE, IMPLICIT, VERIFICATION, Peer, element, message, store_request

CONTEXTS = ((VERIFICATION, (IMPLICIT,)), (CT_IMAGE, (IMPLICIT,)))
STORE = 3


class Node:
    """A receiving node in ``folder``/data; beside it nothing may appear."""

    def __init__(self, folder: Path, **receive: Any) -> None:
        self.honest = 0
        self.outside = folder
        self.data = folder / "data"
        self.data.mkdir()
        node = {"ae_title": "NODE", "host": "127.0.0.1", "port": 0, "data_dir": str(self.data)}
        peer = {"name": "ct", "ae_title": "FUZZ", "host": "127.0.0.1", "port": 104, "may_send": True}
        config = Config.model_validate({"node": node, "receive": {"min_free_bytes": 0} | receive, "peer": [peer]})
        self.store = Store(f"sqlite:///{self.data / 'node.sqlite3'}")
        migrate(self.store)
        self.spool = Spool(self.data / "spool")
        self.server = StorageServer(config, self.store, self.spool)
        self.port = self.server.start()

    def close(self) -> None:
        self.server.stop(1.0)
        self.store.close()

    def status_of(self, data: bytes, uid: bytes, calling: bytes = b"FUZZ") -> int | None:
        """The answer to one C-STORE; None when the association was ended instead."""
        with Peer(self.port) as peer:
            assert peer.associate(CONTEXTS, calling=calling) == ACCEPTED
            peer.send(message(STORE, store_request(uid), data))
            status = peer.status()
            if status is not None:
                peer.release()
        return status

    def kept(self) -> list[Path]:
        """What lies in the spool, but for the journal, which is reserved space under names of its own."""
        found = (path for path in self.spool.root.rglob("*") if path.is_file())
        return sorted(path for path in found if "journal" not in path.parts)

    def still_stores(self) -> bool:
        """A new Instance of an honest peer is stored."""
        self.honest += 1
        uid = f"1.2.3.1000.{self.honest}".encode()
        return self.status_of(data_set(uid), uid) == 0

    def rows(self) -> list[InstanceRow]:
        with self.store.read() as session:
            return list(session.scalars(select(InstanceRow)))

    def alerts(self) -> list[str]:
        with self.store.read() as session:
            found = session.scalars(select(AuditRow.body).where(AuditRow.kind == "security alert"))
            return [json.loads(body)["reason"] for body in found]


def data_set(uid: bytes, study: bytes = b"1.2.3", series: bytes = b"1.2.3.1", begin: bytes = b"") -> bytes:
    data = begin + element(0x00080016, CT_IMAGE) + element(0x00080018, uid) + element(0x00080060, b"CT")
    return data + element(0x0020000D, study) + element(0x0020000E, series) + element(0x7FE00010, bytes(64))
