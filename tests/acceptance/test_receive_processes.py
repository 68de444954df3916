"""Several receiving processes on one port: one dies, its associations with it, and nobody else notices."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import select

from dicomnode.dicom.sop_classes import CT_IMAGE
from dicomnode.store.engine import Store
from dicomnode.store.tables import AssociationRow, AuditRow, InstanceRow, ProcessRow
from tests.acceptance.node_process import NodeProcess
from tests.integration.test_receive_storage import SERIES, slice_of
from tests.raw_scu import IMPLICIT, Context, Ended, RawAssociation, Refused, store_message

CT = Context(CT_IMAGE, IMPLICIT)
LIMIT_S = 240.0


@pytest.fixture
def node(tmp_path: Path):
    made = NodeProcess(tmp_path, 1, receive="processes = 3\nmax_associations = 12\njournal_mb = 4", routes="")
    made.start()
    yield made
    made.close()


def rows(node: NodeProcess, table):
    store = Store(f"sqlite:///{node.database}")
    try:
        with store.read() as session:
            return session.scalars(select(table)).all()
    finally:
        store.close()


def wait_for(condition):
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def associate(node: NodeProcess) -> RawAssociation:
    return RawAssociation(node.port, "NODE", "SCANNER", [CT], timeout_s=LIMIT_S)


def associate_with_several(node: NodeProcess, count: int, stack: ExitStack) -> list[RawAssociation]:
    """Who accepts is a race. The process that took the first Association is frozen until another took the second."""
    peers = [stack.enter_context(associate(node))]
    [first] = rows(node, AssociationRow)
    [pid] = [row.pid for row in rows(node, ProcessRow) if row.owner == first.owner]
    os.kill(pid, signal.SIGSTOP)
    try:
        peers.append(stack.enter_context(associate(node)))
    finally:
        os.kill(pid, signal.SIGCONT)
    return peers + [stack.enter_context(associate(node)) for _ in range(count - len(peers))]


@pytest.mark.acceptance
def test_r8_s6_a_receiving_process_that_is_killed_takes_only_its_own_associations_along(node):
    """R8, R9, S6: what was acknowledged stays, the half object goes, the others go on; limits count over all."""
    with ExitStack() as stack:
        peers = associate_with_several(node, 12, stack)
        with pytest.raises(Refused, match=r"\(2, 3, 2\)"):
            associate(node)
        opened = {row.id: row.owner for row in rows(node, AssociationRow)}
        owners = {row.owner: row.pid for row in rows(node, ProcessRow) if row.role == "receive"}
        assert len(owners) == 3
        assert len(set(opened.values())) > 1
        for number, peer in enumerate(peers):
            assert peer.store_stream(CT, f"{SERIES}.{number}", [slice_of(number)]) == 0x0000
            half = store_message(CT, 1, f"{SERIES}.{number + 100}", slice_of(number + 100), 16384, ())
            peer._socket.sendall(half.wire[: len(half.wire) // 2])
        victim = max(set(opened.values()), key=list(opened.values()).count)
        os.kill(owners[victim], signal.SIGKILL)
        survivors = gone = 0
        for number, peer in enumerate(peers):
            half = store_message(CT, 1, f"{SERIES}.{number + 100}", slice_of(number + 100), 16384, ())
            try:
                peer._socket.sendall(half.wire[len(half.wire) // 2 :])
                survivors += peer.read_status() == 0x0000
            except (Ended, OSError):
                gone += 1
        n_victims = list(opened.values()).count(victim)
        assert (survivors, gone) == (12 - n_victims, n_victims)
    wait_for(lambda: all(row.ended != "open" for row in rows(node, AssociationRow)))
    ended = [row.ended for row in rows(node, AssociationRow)]
    assert ended.count("lost") == n_victims
    assert len(rows(node, InstanceRow)) == 12 + survivors
    spool = node.folder / "data" / "spool"
    assert all((spool / row.path).is_file() for row in rows(node, InstanceRow))
    wait_for(lambda: list((spool / "incoming").iterdir()) == [])
    assert len(list((spool / "received").rglob("*.dcm"))) == 12 + survivors
    transferred = [json.loads(row.body) for row in rows(node, AuditRow) if row.kind == "instances transferred"]
    assert sum(body["n_new"] for body in transferred) == 12 + survivors
    with associate(node) as peer:
        assert peer.store_stream(CT, f"{SERIES}.999", [slice_of(999)]) == 0x0000
    assert node.stop() == 0
    assert list((spool / "journal").iterdir()) == []


@pytest.mark.acceptance
def test_r17_a_drain_takes_no_new_associations_and_answers_what_runs(node):
    """R17: SIGTERM in the middle of an object: it is stored and answered, newcomers are refused, exit within 30 s."""
    with associate(node) as peer:
        large = slice_of(1, filling=b"\1\2" * 500)
        message = store_message(CT, 1, f"{SERIES}.1", large, 16384, ())
        peer._socket.sendall(message.wire[:-100])
        wait_for(lambda: list((node.folder / "data" / "spool" / "incoming").iterdir()))
        assert node.process is not None
        began = time.monotonic()
        node.process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                associate(node)._socket.close()
            except (OSError, Refused, Ended):
                return True
            return False

        wait_for(refused)
        peer._socket.sendall(message.wire[-100:])
        assert peer.read_status() == 0x0000
    assert node.process.wait(LIMIT_S) == 0
    assert time.monotonic() - began < 30
    assert len(rows(node, InstanceRow)) == 1
