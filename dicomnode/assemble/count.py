"""The work of a ``count`` job: how many Instances does the sender say that the Series has?"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from dicomnode.assemble.finding import Counted, count_by_find
from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.config import Config, Peer
from dicomnode.errors import Permanent
from dicomnode.jobs import Job, finish
from dicomnode.store.engine import Store
from dicomnode.store.tables import SeriesRow, StudyRow

_log = logging.getLogger(__name__)


def count_at_sender(store: Store, config: Config, job: Job, *, clock: Callable[[], float] = time.time) -> int | None:
    """Ask the sender by C-FIND, write the answer to the Series and finish ``job``, in one transaction.

    Returns the count, None when the sender gave none. That is no error: the question is marked as asked, and the
    Series is decided by other evidence. Raises LeaseLost, Transient (database), Permanent (no such Series).
    """
    series_id, generation = int(job.payload["series_id"]), int(job.payload["generation"])
    with store.read() as session:
        row = session.get(SeriesRow, series_id)
        if row is None:
            raise Permanent(f"series {series_id} does not exist")
        study = session.get_one(StudyRow, row.study_id)
    asked_at = clock()
    peer = config.peer_with_ae_title(row.CallingAETitle)
    wanted = Counted(study.StudyInstanceUID, row.SeriesInstanceUID)
    count = None if peer is None or row.state != "open" else _ask(config, peer, wanted)
    with store.write() as session:
        series = session.get_one(SeriesRow, series_id)
        if series.generation == generation and row.state == "open":  # closed meanwhile: who was silent is known still
            series.n_expected, series.asked_at = count, asked_at
        if peer is not None and row.state == "open":
            append(session, Event.QUERY, _facts(study, row, peer, count), datetime.fromtimestamp(asked_at, UTC))
        finish(session, job, clock())
    return count


def _facts(study: StudyRow, series: SeriesRow, peer: Peer, count: int | None) -> dict[str, str | int | None]:
    """Who was asked for what (PS3.15 A.5.3.10, DCM 110112), and the count that he gave."""
    return {
        "peer": peer.name,
        "service": "C-FIND",
        "StudyInstanceUID": study.StudyInstanceUID,
        "SeriesInstanceUID": series.SeriesInstanceUID,
        "PatientID": study.PatientID,
        "AccessionNumber": study.AccessionNumber,
        "n_expected": count,
    }


def _ask(config: Config, peer: Peer, wanted: Counted) -> int | None:
    count = count_by_find(config.node.ae_title, peer, wanted)
    _log.info("sender asked for its count", extra={"peer": peer.name, "answered": count is not None})
    return count
