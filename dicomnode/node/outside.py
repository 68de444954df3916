"""Everything that goes outside and comes back, put together."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from dicomnode.config import Config
from dicomnode.deid.errands import EXPORT_JOB, REMOTE_JOB, RETURN_JOB
from dicomnode.deid.leaving import Gate
from dicomnode.deliver.export import ExportErrand
from dicomnode.deliver.leaving import FOLDER
from dicomnode.deliver.outside import Errand, OutsideWorker
from dicomnode.detect.reader import Reader
from dicomnode.node.remote import RemoteErrand
from dicomnode.node.returned import ReturnErrand
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool


def outside_workers(
    config: Config, store: Store, spool: Spool, gate: Gate, owner: str, clock: Callable[[], float]
) -> dict[str, OutsideWorker]:
    """A worker for exports and, where there is a vault, one for detectors outside: those must not wait for research.

    Files that an earlier process left on their way out are removed.
    """
    shutil.rmtree(spool.root / FOLDER, ignore_errors=True)
    exports: dict[str, Errand] = {EXPORT_JOB: ExportErrand(config, store, spool, gate, clock)}
    workers = {"export": OutsideWorker(store, exports, owner, clock)}
    if gate.vault is not None:
        reader = Reader(config.detect)
        remotes: dict[str, Errand] = {
            REMOTE_JOB: RemoteErrand(config, store, spool, gate, clock),
            RETURN_JOB: ReturnErrand(config, store, spool, gate.vault, reader, clock),
        }
        workers["remote"] = OutsideWorker(store, remotes, owner, clock)
    return workers
