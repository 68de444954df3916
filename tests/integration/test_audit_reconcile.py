"""Reconciliation while the node works: what is no difference, what is told once, what a start tells (A2, A3, A7)."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select

from dicomnode.audit.archive import archive
from dicomnode.audit.reconcile_files import GRACE_S
from dicomnode.audit.signing import SigningKey
from dicomnode.node.reconciliation import REASON, ReconciliationTimer, alert, compare_all
from dicomnode.node.starts import record_start
from dicomnode.store.audit_sql import TRIGGERS
from dicomnode.store.engine import Store
from dicomnode.store.tables import AuditRow, InstanceRow
from tests.fuzz.wire import ACCEPTED, message, store_request
from tests.integration.security_fixtures import CONTEXTS, STORE, Node, Peer, data_set
from tests.unit.audit_fixtures import check, new_log


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.close()


def differences(node: Node, *, since: float | None = None, files: bool = False) -> list[str]:
    return [item.kind for item in compare_all(node.store, node.spool, since, files=files).differences]


def alerts(store: Store) -> list[dict[str, Any]]:
    with store.read() as session:
        found = session.scalars(select(AuditRow.body).where(AuditRow.kind == "security alert"))
        return [body for body in map(json.loads, found) if body["reason"] == REASON]


def forget_rows(store: Store, statement: str) -> None:
    with closing(sqlite3.connect(store.path)) as connection:
        for name in TRIGGERS:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement)
        for sql in TRIGGERS.values():
            connection.execute(sql)
        connection.commit()


def test_reception_agrees_with_its_log(node: Node) -> None:
    """A7: new, repeated, conflicting and refused instances; each transfer begins and ends once, the counts add up."""
    assert node.status_of(data_set(b"1.2.3.4"), b"1.2.3.4") == 0
    assert node.status_of(data_set(b"1.2.3.4"), b"1.2.3.4") == 0
    assert node.status_of(data_set(b"1.2.3.4", series=b"1.2.3.9"), b"1.2.3.4") == 0
    assert node.status_of(data_set(b"1.2.3.5"), b"1.2.3.6") == 0xA900
    found = compare_all(node.store, node.spool, None, files=True)
    assert found.differences == []
    counts = found.peers["ct"]
    assert (counts["begun"], counts["ended"], counts["told"], counts["recorded"], counts["refused"]) == (4, 4, 3, 3, 1)


def test_a_study_of_which_everything_was_refused_is_no_difference(node: Node) -> None:
    """A7: it began, ended and was counted; there is nothing else of it."""
    assert node.status_of(data_set(b"1.2.9.5", study=b"1.2.9"), b"1.2.9.6") == 0xA900
    found = compare_all(node.store, node.spool, None, files=True)
    assert found.differences == []
    assert found.peers["ct"]["refused"] == 1


def test_a_study_that_left_the_tables_is_found(node: Node) -> None:
    """A2: the log says that images were stored, the tables know nothing of their Study."""
    assert node.still_stores()
    with closing(sqlite3.connect(node.store.path)) as connection:
        for table in ("instance", "series", "study"):
            connection.execute(f"DELETE FROM {table}")
        connection.commit()
    assert "study without its table row" in differences(node)


def test_a_transfer_that_goes_on_is_no_difference(node: Node) -> None:
    """A7: an association that is open has not ended; afterwards it has."""
    with Peer(node.port) as peer:
        assert peer.associate(CONTEXTS) == ACCEPTED
        peer.send(message(STORE, store_request(b"1.2.3.4"), data_set(b"1.2.3.4")))
        assert peer.status() == 0
        assert differences(node) == []
        peer.release()
    for _ in range(1200):
        if node.store.scalar(select(AuditRow.seq).where(AuditRow.kind == "instances transferred")):
            break
        time.sleep(0.05)
    assert differences(node) == []


def test_a_difference_is_told_once_by_timer_and_by_command(node: Node) -> None:
    """A7: a security alert row with the identifiers; the next look tells only what is new."""
    assert node.still_stores()
    assert node.still_stores()
    now = [time.time()]
    timer = ReconciliationTimer(node.store, node.spool, lambda: now[0])
    timer.tick()
    assert alerts(node.store) == []
    forget_rows(node.store, "DELETE FROM audit WHERE seq = (SELECT min(seq) FROM audit WHERE kind = 'instance stored')")
    for _ in range(2):
        now[0] += 1
        timer.tick()
    assert [(body["differences"], {item["kind"] for item in body["first"]}) for body in alerts(node.store)] == [
        (2, {"instance without its row", "transfer counts differ"})
    ]
    with node.store.write() as session:
        session.execute(delete(InstanceRow).where(InstanceRow.SOPInstanceUID == "1.2.3.1000.2"))
    found = compare_all(node.store, node.spool, None, files=False)
    assert alert(node.store, found.differences) == 1
    assert alert(node.store, found.differences) == 0
    assert alerts(node.store)[-1]["first"][0]["kind"] == "row without its instance"


def test_what_is_older_than_asked_is_left_alone(node: Node) -> None:
    """A7: a look at the last hours does not judge what came before."""
    assert node.still_stores()
    forget_rows(node.store, "DELETE FROM audit WHERE kind = 'instance stored'")
    assert differences(node)
    assert differences(node, since=time.time() + 60) == []


def test_archived_rows_are_not_missed(node: Node, tmp_path: Path) -> None:
    """A5, A7: what left the table for an archive is no difference."""
    assert node.still_stores()
    key = SigningKey.make(tmp_path / "audit.key")
    with node.store.write() as session:
        record_start(session, {"roles": [], "config_sha256": "", "models": {}})
    newest = node.store.scalar(select(AuditRow.ts).order_by(AuditRow.seq.desc()))
    before = datetime.fromisoformat(newest)
    done = archive(node.store, tmp_path / "out", before, retention_days=0, origin="N", key=key, user={"user": "t"})
    assert done.removed >= 3
    assert differences(node) == []
    assert node.still_stores()
    assert differences(node) == []


def test_a_file_that_nobody_names_is_found_when_it_is_old(node: Node) -> None:
    """A2: files of the spool without a row; one that was written a moment ago may still get its row."""
    assert node.still_stores()
    stray = node.spool.root / "received" / "ab" / "abcdef.dcm"
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"x")
    assert differences(node, files=True) == []
    old = time.time() - GRACE_S - 5
    os.utime(stray, (old, old))
    assert differences(node, files=True) == ["file without a row"]


def started(store: Store, config: str, models: dict[str, str], roles: tuple[str, ...] = ("work",)) -> None:
    with store.write() as session:
        record_start(session, {"roles": list(roles), "config_sha256": config, "models": models})


def bodies(store: Store, kind: str) -> list[dict[str, Any]]:
    with store.read() as session:
        found = session.scalars(select(AuditRow.body).where(AuditRow.kind == kind).order_by(AuditRow.seq))
        return [dict(json.loads(body)) for body in found]


def test_a_changed_model_between_two_starts_leaves_a_row(tmp_path: Path) -> None:
    """A3: replaced, added and removed weights, with their digests; the same models leave none."""
    store = new_log(tmp_path)
    started(store, "c1", {"a": "1", "b": "2"})
    started(store, "c1", {"a": "1", "b": "2"})
    assert bodies(store, "model changed") == bodies(store, "configuration changed") == []
    started(store, "c1", {"a": "9", "c": "3"})
    assert bodies(store, "model changed")[0]["models"] == {
        "a": {"before": "1", "after": "9"},
        "b": {"before": "2", "after": None},
        "c": {"before": None, "after": "3"},
    }
    started(store, "c2", {"a": "9", "c": "3"})
    assert [(body["before"], body["after"]) for body in bodies(store, "configuration changed")] == [("c1", "c2")]
    assert len(bodies(store, "model changed")) == 1
    assert check(store).ok
    store.close()


def test_each_set_of_roles_is_compared_with_its_own_last_start(tmp_path: Path) -> None:
    """A3: two processes of one node with different roles do not take each other's configuration for a change."""
    store = new_log(tmp_path)
    for _ in range(2):
        started(store, "c1", {}, ("receive",))
        started(store, "c2", {}, ("work",))
    assert bodies(store, "configuration changed") == []
    store.close()
