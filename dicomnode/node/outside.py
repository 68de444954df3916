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


def outside_worker(
    config: Config, store: Store, spool: Spool, gate: Gate, owner: str, clock: Callable[[], float]
) -> OutsideWorker:
    """The worker for exports, and for detectors outside where there is a vault to come back by.

    Files that an earlier process left on their way out are removed.
    """
    shutil.rmtree(spool.root / FOLDER, ignore_errors=True)
    errands: dict[str, Errand] = {EXPORT_JOB: ExportErrand(config, store, spool, gate, clock)}
    if gate.vault is not None:
        errands[REMOTE_JOB] = RemoteErrand(config, store, spool, gate, clock)
        errands[RETURN_JOB] = ReturnErrand(config, store, spool, gate.vault, Reader(config.detect), clock)
    return OutsideWorker(store, errands, owner, clock)
