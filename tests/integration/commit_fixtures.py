"""An archive that is a Storage Commitment SCP, and a node that asks it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.sequence import Sequence
from pynetdicom import build_role, evt
from sqlalchemy import select

from dicomnode.config import Config
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.commit_worker import CommitWorker
from dicomnode.deliver.worker import Deliverer
from dicomnode.dicom.commitment import PUSH_MODEL_INSTANCE
from dicomnode.dicom.requestor import Requestor
from dicomnode.dicom.sop_classes import STORAGE_COMMITMENT_PUSH
from dicomnode.receive import StorageServer
from dicomnode.store.tables import CommitmentRow, JobRow
from tests.integration.deliver_fixtures import PLAIN, SC, SR, FakePacs, Outbox

PATIENT = SendLimits(connect_s=60.0, acse_s=60.0, dimse_s=60.0, stall_s=60.0, slowest_bytes_s=1e9)
LONG_S = 700.0


def report_dataset(transaction: str, committed: Iterable[str] = (), failed: Iterable[tuple[str, int]] = ()) -> Dataset:
    """Event Information as an archive writes it."""
    dataset = Dataset()
    dataset.TransactionUID = transaction
    good = [_item(uid) for uid in committed]
    if good:
        dataset.ReferencedSOPSequence = Sequence(good)
    bad = [_item(uid, FailureReason=reason) for uid, reason in failed]
    if bad:
        dataset.FailedSOPSequence = Sequence(bad)
    return dataset


def _item(uid: str, **more: Any) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = SC, uid
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return item


class CommitPacs(FakePacs):
    """``reasons``: SOP Instance UID to Failure Reason. ``how``: how it reports: same, new or none."""

    def __init__(self, *, how: str = "same", status: int = 0x0000, commits: bool = True, **options: Any) -> None:
        classes = (SC, SR, STORAGE_COMMITMENT_PUSH) if commits else (SC, SR)
        super().__init__(classes=classes, handlers=[(evt.EVT_N_ACTION, self._action)], **options)
        self.how, self.status = how, status
        self.reasons: dict[str, int] = {}
        self.asked: list[tuple[str, list[str]]] = []
        self.replies: list[int | None] = []
        self.node_port = 0
        self._reporting: list[threading.Thread] = []

    def __exit__(self, *_: object) -> None:
        for thread in self._reporting:
            thread.join(60)
        super().__exit__(*_)

    def heard(self) -> list[int | None]:
        """What the node answered to the reports on its own Associations, when all of these have ended."""
        for thread in self._reporting:
            thread.join(60)
            assert not thread.is_alive()
        return self.replies

    def _action(self, event: Any) -> tuple[int, None]:
        asked = event.action_information
        self.asked.append(
            (str(asked.TransactionUID), [str(item.ReferencedSOPInstanceUID) for item in asked.ReferencedSOPSequence])
        )
        if self.status == 0 and self.how == "same":
            thread = threading.Thread(target=self.report_on, args=(event.assoc, self.answer_to(-1)))
            self._reporting.append(thread)
            thread.start()
        return self.status, None

    def answer_to(self, index: int) -> Dataset:
        """The report to one of the requests, by ``reasons``."""
        transaction, uids = self.asked[index]
        failed = [(uid, self.reasons[uid]) for uid in uids if uid in self.reasons]
        return report_dataset(transaction, [uid for uid in uids if uid not in self.reasons], failed)

    def report_on(self, association: Any, dataset: Dataset, event_type: int | None = None) -> int | None:
        """N-EVENT-REPORT on ``association``; returns the status that came back."""
        kind = event_type or (2 if "FailedSOPSequence" in dataset else 1)
        status, _ = association.send_n_event_report(dataset, kind, STORAGE_COMMITMENT_PUSH, PUSH_MODEL_INSTANCE)
        self.replies.append(status.get("Status"))
        return self.replies[-1]

    def report(self, dataset: Dataset, *, title: str | None = None, role: bool = True, **how: Any) -> int | None:
        """N-EVENT-REPORT on a new Association towards the node; None when there is no Association for it."""
        entity = Requestor(title or self.title)
        entity.add_requested_context(STORAGE_COMMITMENT_PUSH, list(PLAIN))
        negotiation = [build_role(STORAGE_COMMITMENT_PUSH, scp_role=True)] if role else []
        opened = entity.associate("127.0.0.1", self.node_port, ae_title="NODE", ext_neg=negotiation)
        if not opened.is_established:
            return None
        try:
            return self.report_on(opened, dataset, **how)
        finally:
            opened.release()


class AskingNode:
    """Outbox, deliverer and commit worker in this process; ``listen`` starts the Storage SCP too."""

    def __init__(self, folder: Path, *peers: Any, **options: Any) -> None:
        self.outbox = Outbox(folder)
        self.config = Config.model_validate(
            {
                "node": {"ae_title": "NODE", "host": "127.0.0.1", "port": 0, "data_dir": str(folder)},
                "receive": {"min_free_bytes": 0},
                "peer": [peer.model_dump() for peer in peers],
            }
        )
        store, clock = self.outbox.store, self.outbox.clock
        self.deliverer = Deliverer(self.config, store, self.outbox.spool, "deliver-1", clock, limits=PATIENT)
        self.options = {"limits": PATIENT, "linger_s": 1.0, **options}
        self.server: StorageServer | None = None

    @property
    def committer(self) -> CommitWorker:
        """A fresh worker, as after a restart."""
        return CommitWorker(self.config, self.outbox.store, "deliver-1", self.outbox.clock, **self.options)

    def listen(self) -> int:
        self.server = StorageServer(self.config, self.outbox.store, self.outbox.spool, clock=self.outbox.clock)
        return self.server.start()

    def close(self) -> None:
        if self.server is not None:
            self.server.stop(1.0)

    def deliver(self) -> None:
        """Send everything that waits."""
        while self.deliverer.step():
            pass
        self.outbox.now += 1.0

    def result(self, **how: Any) -> int:
        """A result that is delivered to the archive and will be asked about."""
        assignment = self.outbox.add_result(self.outbox.add_study(), "pacs", **how)
        self.deliver()
        return assignment

    def work(self) -> None:
        """Every commit job that is due."""
        worker = self.committer
        while worker.step():
            pass

    def rows(self) -> list[CommitmentRow]:
        with self.outbox.store.read() as session:
            return list(session.scalars(select(CommitmentRow).order_by(CommitmentRow.id)))

    def job(self) -> JobRow:
        (row,) = [job for job in self.outbox.jobs() if job.kind == "commit"]
        return row

    def committed(self) -> list[bool]:
        return [row.committed_at is not None for row in self.outbox.deliveries()]

    def uids(self) -> list[str]:
        return [row.SOPInstanceUID for row in self.outbox.derived()]
