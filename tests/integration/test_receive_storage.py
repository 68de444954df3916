"""The Storage SCP against a real SCU over loopback, with a real database and spool."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom.dimse_primitives import C_STORE
from sqlalchemy import select

from dicomnode.config import Config
from dicomnode.dicom.requestor import Requestor
from dicomnode.dicom.sop_classes import CT_IMAGE, MR_IMAGE, VERIFICATION
from dicomnode.dicom.transfer_syntaxes import ALL_TRANSFER_SYNTAXES
from dicomnode.receive import StorageServer
from dicomnode.receive.part10 import file_head
from dicomnode.receive.records import TOUCH_S
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from dicomnode.store.tables import AssociationRow, AuditRow, InstanceRow, SeriesRow, StudyRow

STUDY, SERIES = "1.2.3", "1.2.3.1"
PATIENT = dict.fromkeys(("pdu_timeout_s", "acse_timeout_s", "dimse_timeout_s", "network_timeout_s"), 600.0)
"""Whoever tests no deadline of the node meets none, on a busy machine either."""
LIMIT_S = 60.0
"""The bound of a hang."""


class Node:
    """A receiving node in ``folder`` and a scanner that talks to it."""

    def __init__(self, folder, *, busy_timeout_s=30.0, **receive):
        settings = {"min_free_bytes": 0, "max_associations": 3, "journal_mb": 0, **PATIENT} | receive
        self.config = Config.model_validate(
            {
                "node": {"ae_title": "NODE", "host": "127.0.0.1", "port": 0, "data_dir": str(folder)},
                "receive": settings,
                "peer": [
                    {"name": "ct", "ae_title": "CT1", "host": "127.0.0.1", "port": 104, "may_send": True},
                    {"name": "far", "ae_title": "FAR", "host": "192.0.2.1", "port": 104, "may_send": True},
                    {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104},
                ],
            }
        )
        self.store = Store(f"sqlite:///{folder / 'node.sqlite3'}", busy_timeout_s=busy_timeout_s)
        migrate(self.store)
        self.spool = Spool(folder / "spool")
        self.server = StorageServer(self.config, self.store, self.spool)
        self.port = self.server.start()

    def associate(self, contexts=((CT_IMAGE, ImplicitVRLittleEndian),), *, calling="CT1", called="NODE"):
        ae = Requestor(calling)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = LIMIT_S
        for abstract_syntax, transfer_syntax in contexts:
            ae.add_requested_context(abstract_syntax, transfer_syntax)
        return ae.associate("127.0.0.1", self.port, ae_title=called)

    def send(self, *data_sets, **how):
        association = self.associate(**how)
        assert association.is_established
        statuses = [store_bytes(association, data) for data in data_sets]
        association.release()
        self.settle()
        return statuses

    def settle(self):
        """Wait until every Association has its end on record."""
        deadline = time.monotonic() + LIMIT_S
        while self.rows(AssociationRow, ended="open"):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def rows(self, table, **equal):
        with self.store.read() as session:
            return session.scalars(select(table).filter_by(**equal)).all()

    def audit(self, *kinds):
        rows = self.rows(AuditRow)
        return [json.loads(row.body) for row in rows if not kinds or row.kind in kinds]

    def kinds(self):
        return [row.kind for row in self.rows(AuditRow)]

    def files(self):
        return sorted(path for path in self.spool.root.rglob("*") if path.is_file())

    def close(self):
        self.server.stop(1.0)
        self.store.close()


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path)
    yield made
    made.close()


@contextmanager
def running(*arguments, **settings):
    made = Node(*arguments, **settings)
    try:
        yield made
    finally:
        made.close()


def slice_of(number, *, instance=None, series=SERIES, sop_class=CT_IMAGE, implicit=True, filling=b"\1\2", **values):
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = instance or f"{series}.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, series
    dataset.PatientID, dataset.AccessionNumber, dataset.Modality = "P1", "A1", "CT"
    dataset.InstanceNumber = number
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.add_new(0x7FE00010, "OW", filling * 2000)
    buffer = BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=implicit, little_endian=True)
    return buffer.getvalue()


def store_bytes(association, data, *, sop_class=CT_IMAGE, instance=None, context=None):
    """C-STORE bytes as they are; returns the status."""
    context = context or association.accepted_contexts[0]
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = UID(sop_class)
    request.AffectedSOPInstanceUID = UID(instance or uid_in(data, context.transfer_syntax[0]))
    request.Priority = 2
    request.DataSet = BytesIO(data)
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, context.context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return response.Status


def uid_in(data, transfer_syntax):
    dataset = dcmread(
        BytesIO(file_head(CT_IMAGE, "1.2", transfer_syntax, "X") + data), force=True, specific_tags=["SOPInstanceUID"]
    )
    return str(dataset.SOPInstanceUID)


def test_success_means_file_row_and_audit_record_are_there_byte_for_byte(node):
    data = slice_of(1)
    assert node.send(data) == [0x0000]
    [row] = node.rows(InstanceRow)
    file = node.spool.absolute(row.path)
    assert file.read_bytes().endswith(data)
    assert dcmread(file).file_meta.MediaStorageSOPInstanceUID == row.SOPInstanceUID
    assert (row.sha256, row.size) == (sha256(data).hexdigest(), len(data))
    assert row.header["Modality"] == ["CT"]
    assert row.SOPInstanceUID not in row.path
    [study], [series] = node.rows(StudyRow), node.rows(SeriesRow)
    assert (study.PatientID, study.AccessionNumber, series.state, series.generation) == ("P1", "A1", "open", 1)
    assert (series.CallingAETitle, series.last_received_at) == ("CT1", row.received_at)
    [record] = node.audit("instance stored")
    assert (record["sha256"], record["size"], record["peer"]) == (row.sha256, row.size, "ct")
    assert record["TransferSyntaxUID"] == ImplicitVRLittleEndian


def test_begin_and_transferred_reconcile_per_association_and_study(node):
    refused = slice_of(9)
    association = node.associate()
    for data in (slice_of(1), slice_of(2), slice_of(1), slice_of(2, filling=b"\7\7")):
        assert store_bytes(association, data) == 0x0000
    assert store_bytes(association, refused, instance="1.2.9.9") == 0xA900
    association.release()
    node.settle()
    [begun], [done] = node.audit("begin transferring"), node.audit("instances transferred")
    counts = {key: done.pop(key) for key in ("n_new", "n_repeated", "n_conflict", "n_refused", "ended")}
    assert counts == {"n_new": 2, "n_repeated": 1, "n_conflict": 1, "n_refused": 1, "ended": "released"}
    assert begun == done
    [row] = node.rows(AssociationRow)
    assert (row.ended, row.n_stored, row.n_refused, row.peer) == ("released", 3, 1, "ct")


def test_the_end_of_an_association_says_exactly_when_the_last_instance_came(node):
    """Decision 35: in between the row of a Series may be a little late, and never by more than ``TOUCH_S``."""
    association = node.associate()
    for number in range(1, 30):
        assert store_bytes(association, slice_of(number)) == 0x0000
        [series], newest = node.rows(SeriesRow), max(row.received_at for row in node.rows(InstanceRow))
        assert newest - TOUCH_S < series.last_received_at <= newest
        assert node.rows(AssociationRow)[0].n_stored > 0, "it would be taken for a sender that has brought nothing yet"
    assert store_bytes(association, slice_of(30)) == 0x0000
    association.release()
    node.settle()
    [series] = node.rows(SeriesRow)
    assert series.last_received_at == max(row.received_at for row in node.rows(InstanceRow))
    assert node.rows(AssociationRow)[0].n_stored == 30


def test_a_series_is_handed_to_the_association_that_brings_it_at_once(node, monkeypatch):
    """R6, decision 35: its row may be late by the time of an Instance, and never by who brings it."""
    monkeypatch.setattr("dicomnode.receive.records.TOUCH_S", 1000.0)
    first, second = node.associate(), node.associate()

    def bring(association, number):
        assert store_bytes(association, slice_of(number)) == 0x0000
        [series], came = node.rows(SeriesRow), [row.received_at for row in node.rows(InstanceRow)]
        return series.association_id, came.index(series.last_received_at)

    one, other = sorted(row.id for row in node.rows(AssociationRow))
    assert [bring(first, 1), bring(first, 2)] == [(one, 0), (one, 0)]
    assert [bring(second, 3), bring(second, 4)] == [(other, 2), (other, 2)]
    assert [bring(first, 5), bring(first, 6)] == [(one, 4), (one, 4)]
    first.release()
    second.release()


def test_a_series_that_is_opened_again_is_told_at_once(node):
    """R5: however shortly before the Association had told its row of another Instance."""
    association = node.associate()
    assert store_bytes(association, slice_of(1)) == 0x0000
    with node.store.write() as session:
        series = session.scalar(select(SeriesRow))
        series.state, series.last_received_at = "complete", series.last_received_at - 100
    assert store_bytes(association, slice_of(2)) == 0x0000
    [series] = node.rows(SeriesRow)
    assert (series.state, series.generation) == ("open", 2)
    assert series.last_received_at == max(row.received_at for row in node.rows(InstanceRow))
    association.release()


def test_r5_same_bytes_again_are_one_copy_and_do_not_reopen_the_series(node):
    node.send(slice_of(1))
    with node.store.write() as session:
        session.scalar(select(SeriesRow)).state = "complete"
    assert node.send(slice_of(1)) == [0x0000]
    [row], [series] = node.rows(InstanceRow), node.rows(SeriesRow)
    assert (row.copies, row.conflict) == (2, False)
    assert (series.state, series.generation) == ("complete", 1)
    assert len(node.files()) == 1
    assert "instance repeated" in node.kinds()


def test_a_repeat_restores_a_file_that_was_lost(node):
    data = slice_of(1)
    node.send(data)
    for file in node.files():
        file.unlink()
    assert node.send(data) == [0x0000]
    [row] = node.rows(InstanceRow)
    assert node.spool.absolute(row.path).read_bytes().endswith(data)


def test_a_repeat_over_a_new_association_makes_that_one_count(node):
    node.send(slice_of(1))
    node.send(slice_of(1))
    [series] = node.rows(SeriesRow)
    assert series.association_id == max(row.id for row in node.rows(AssociationRow))


def test_r5_same_uid_with_other_bytes_is_kept_as_a_conflict(node):
    node.send(slice_of(1))
    with node.store.write() as session:
        session.scalar(select(SeriesRow)).state = "complete"
    assert node.send(slice_of(1, filling=b"\7\7")) == [0x0000]
    first, second = node.rows(InstanceRow)
    assert (first.conflict, second.conflict) == (False, True)
    assert node.spool.absolute(second.path).is_file()
    assert node.rows(SeriesRow)[0].state == "complete"
    assert "instance conflict" in node.kinds()


def test_r6_a_late_instance_opens_the_next_generation(node):
    node.send(slice_of(1))
    with node.store.write() as session:
        session.scalar(select(SeriesRow)).state = "complete"
    node.send(slice_of(2))
    [series] = node.rows(SeriesRow)
    assert (series.state, series.generation, series.complete_by) == ("open", 2, None)
    assert [row.generation for row in node.rows(InstanceRow)] == [1, 2]
    assert node.audit("series reopened")[0]["generation"] == 2


def test_every_transfer_syntax_is_accepted(node):
    association = node.associate([(CT_IMAGE, transfer_syntax) for transfer_syntax in ALL_TRANSFER_SYNTAXES])
    accepted = [context.transfer_syntax[0] for context in association.accepted_contexts]
    assert accepted == list(ALL_TRANSFER_SYNTAXES)
    association.release()


def test_compressed_and_explicit_data_sets_are_stored_undecoded(node):
    jpeg_2000 = "1.2.840.10008.1.2.4.90"
    contexts = [(CT_IMAGE, ExplicitVRLittleEndian), (CT_IMAGE, jpeg_2000)]
    association = node.associate(contexts)
    explicit, compressed = association.accepted_contexts
    plain, packed = slice_of(1, implicit=False), slice_of(2, implicit=False)
    assert store_bytes(association, plain, context=explicit) == 0x0000
    assert store_bytes(association, packed, context=compressed) == 0x0000
    association.release()
    assert [row.TransferSyntaxUID for row in node.rows(InstanceRow)] == [ExplicitVRLittleEndian, jpeg_2000]


def test_a_private_sop_class_is_stored(node):
    private = "1.3.46.670589.5.0.1"
    association = node.associate([(private, ImplicitVRLittleEndian)])
    assert store_bytes(association, slice_of(1, sop_class=private), sop_class=private) == 0x0000
    association.release()
    assert node.rows(InstanceRow)[0].SOPClassUID == private


def test_verification_answers_success(node):
    association = node.associate([(VERIFICATION, ImplicitVRLittleEndian)])
    assert association.send_c_echo().Status == 0x0000
    association.release()


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [
        ("NOBODY", "NODE", (1, 1, 3)),
        ("PACS", "NODE", (1, 1, 3)),
        ("FAR", "NODE", (1, 1, 3)),
        ("CT1", "ELSE", (1, 1, 7)),
    ],
    ids=["unknown", "may not send", "other address", "called title"],
)
def test_s5_strangers_are_rejected_with_reason_and_alert(node, calling, called, reason):
    association = node.associate(calling=calling, called=called)
    answer = association.acceptor.primitive
    assert association.is_rejected
    assert (answer.result, answer.result_source, answer.diagnostic) == reason
    [alert] = node.audit("security alert")
    assert (alert["CallingAETitle"], alert["CalledAETitle"], alert["address"]) == (calling, called, "127.0.0.1")
    assert not node.rows(AssociationRow)


def test_s6_associations_over_the_limit_are_rejected_transiently_and_places_come_free(node):
    held = [node.associate() for _ in range(3)]
    fourth = node.associate()
    answer = fourth.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
    assert store_bytes(held[0], slice_of(1)) == 0x0000
    for association in held:
        association.release()
    node.settle()
    assert node.send(slice_of(2)) == [0x0000]


@pytest.mark.parametrize(
    ("data", "how", "status"),
    [
        (slice_of(1), {"instance": "1.2.3.99"}, 0xA900),
        (slice_of(1, sop_class=MR_IMAGE), {}, 0xA900),
        (slice_of(1)[:100], {"instance": "1.2.3.1.1"}, 0xC000),
        (b"\0" * 64, {"instance": "1.2.3.1.1"}, 0xC000),
    ],
    ids=["other uid", "other class", "truncated", "zeros"],
)
def test_s7_what_is_not_the_announced_instance_is_refused_and_the_association_goes_on(node, data, how, status):
    association = node.associate()
    assert store_bytes(association, data, **how) == status
    assert node.files() == []
    assert store_bytes(association, slice_of(5)) == 0x0000
    association.release()
    node.settle()
    assert len(node.rows(InstanceRow)) == 1
    assert "instance refused" in node.audit("security alert")[0]["reason"]


def test_r8_an_abort_keeps_the_earlier_instances_and_ends_as_aborted(node):
    association = node.associate()
    assert store_bytes(association, slice_of(1)) == 0x0000
    association.abort()
    node.settle()
    assert node.rows(AssociationRow)[0].ended == "aborted"
    assert len(node.rows(InstanceRow)) == len(node.files()) == 1
    assert node.audit("instances transferred")[0]["ended"] == "aborted"


def test_r8_a_connection_that_breaks_inside_an_object_leaves_nothing_of_it(node):
    association = node.associate()
    assert store_bytes(association, slice_of(1)) == 0x0000
    whole, broken = association.dul.socket.send, threading.Event()

    def half(data):
        whole(data if len(data) < 1000 else data[: len(data) // 2])
        if len(data) >= 1000:
            broken.set()

    association.dul.socket.send = half
    request = C_STORE()
    request.MessageID, request.Priority = 2, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(CT_IMAGE), UID(f"{SERIES}.2")
    request.DataSet = BytesIO(slice_of(2))
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    assert broken.wait(LIMIT_S)
    association.dul.socket.close()
    association._reactor_checkpoint.set()
    node.settle()
    assert len(node.rows(InstanceRow)) == len(node.files()) == 1


def test_two_associations_sending_the_same_instances_at_once_leave_one_copy_each(node):
    data = [slice_of(number) for number in range(8)]
    results = []
    threads = [threading.Thread(target=lambda: results.extend(node.send(*data))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0x0000] * 16
    assert len(node.rows(InstanceRow)) == len(node.files()) == 8
    assert {row.copies for row in node.rows(InstanceRow)} == {2}


def test_r17_stop_answers_what_runs_and_cuts_idle_associations_off_as_lost(tmp_path):
    with running(tmp_path) as node:
        association = node.associate()
        assert store_bytes(association, slice_of(1)) == 0x0000
        began = time.monotonic()
        node.server.stop(2 * LIMIT_S)
        assert time.monotonic() - began < LIMIT_S
        assert node.rows(AssociationRow)[0].ended == "lost"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", node.port), timeout=1)


def test_unknown_peers_come_in_only_when_configured(tmp_path):
    with running(tmp_path, accept_unknown_peers=True) as node:
        assert node.send(slice_of(1), calling="ANYBODY") == [0x0000]
        assert node.rows(AssociationRow)[0].peer is None


def test_the_node_names_itself_in_negotiation(node):
    association = node.associate()
    assert association.acceptor.implementation_version_name.startswith("DICOMNODE")
    assert association.acceptor.maximum_length == node.config.receive.max_pdu
    association.release()


def test_other_services_are_not_negotiated(node):
    association = node.associate([("1.2.840.10008.5.1.4.1.2.2.1", ImplicitVRLittleEndian)])
    assert not association.accepted_contexts


def test_acknowledged_instances_survive_a_restart(tmp_path):
    uid = generate_uid()
    with running(tmp_path) as node:
        assert node.send(slice_of(1, instance=uid)) == [0x0000]
    with running(tmp_path) as node:
        assert [row.SOPInstanceUID for row in node.rows(InstanceRow)] == [uid]
        assert node.send(slice_of(1, instance=uid)) == [0x0000]
        assert node.rows(InstanceRow)[0].copies == 2
