"""Who may report on storage commitment, and what such a peer may not do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.dicom.commitment import PUSH_MODEL_INSTANCE, REQUEST_ACTION, EventStatus, request_dataset
from dicomnode.dicom.requestor import Requestor
from dicomnode.dicom.sop_classes import STORAGE_COMMITMENT_PUSH, VERIFICATION
from tests.integration.commit_fixtures import AskingNode, CommitPacs, report_dataset
from tests.integration.deliver_fixtures import PLAIN, SC

LISTED = {"host": "127.0.0.1", "port": 104}


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[tuple[CommitPacs, AskingNode]]:
    """A node that has asked its archive and waits for the report; OTHER may report too, NOCOMMIT may send only."""
    with CommitPacs(how="none") as pacs:
        others = [
            pacs.peer("other", ae_title="OTHER", commit=True),
            pacs.peer("sender", ae_title="NOCOMMIT", may_send=True),
            pacs.peer("far", ae_title="FAR", host="192.0.2.1", commit=True),
        ]
        node = AskingNode(tmp_path, pacs.peer(commit=True), *others, linger_s=0.0)
        try:
            pacs.node_port = node.listen()
            node.result()
            node.work()
            yield pacs, node
        finally:
            node.close()


def alerts(node: AskingNode) -> list[str]:
    return [body["reason"] for body in node.outbox.audit("security alert")]


def test_a_report_from_another_peer_than_was_asked_is_refused_and_audited(asked) -> None:
    pacs, node = asked
    assert pacs.report(pacs.answer_to(0), title="OTHER") == EventStatus.INVALID_ARGUMENT_VALUE
    assert node.rows()[0].state == "requested"
    assert alerts(node) == ["storage commitment report from another peer than the one that was asked"]
    assert pacs.report(pacs.answer_to(0)) == EventStatus.SUCCESS


def test_a_report_of_an_unknown_transaction_is_refused_and_audited(asked) -> None:
    pacs, node = asked
    assert pacs.report(report_dataset("1.2.3.4", node.uids())) == EventStatus.INVALID_ARGUMENT_VALUE
    assert alerts(node) == ["storage commitment report of an unknown transaction"]


def test_a_malformed_report_is_refused_and_audited(asked) -> None:
    pacs, node = asked
    assert pacs.report(report_dataset(pacs.asked[0][0]), event_type=1) == EventStatus.INVALID_ARGUMENT_VALUE
    assert pacs.report(pacs.answer_to(0), event_type=7) == EventStatus.NO_SUCH_EVENT_TYPE
    assert len(alerts(node)) == 2
    assert node.rows()[0].state == "requested"


def test_peers_that_are_not_asked_strangers_and_impostors_get_no_context_to_report_in(asked) -> None:
    pacs, node = asked
    for title in ("NOCOMMIT", "STRANGER", "FAR"):
        assert pacs.report(pacs.answer_to(0), title=title) is None
    assert node.rows()[0].state == "requested"


def test_a_peer_that_may_only_report_can_be_verified_but_cannot_store(asked) -> None:
    pacs, node = asked
    entity = Requestor(pacs.title)
    for uid in (SC, VERIFICATION, STORAGE_COMMITMENT_PUSH):
        entity.add_requested_context(uid, list(PLAIN))
    opened = entity.associate("127.0.0.1", pacs.node_port, ae_title="NODE")
    try:
        accepted = {context.abstract_syntax for context in opened.accepted_contexts}
        assert accepted == {VERIFICATION, STORAGE_COMMITMENT_PUSH}
        assert opened.send_c_echo().Status == 0x0000
    finally:
        opened.release()
    only_storage = Requestor(pacs.title)
    only_storage.add_requested_context(SC, list(PLAIN))
    refused = only_storage.associate("127.0.0.1", pacs.node_port, ae_title="NODE")
    assert refused.is_rejected
    assert alerts(node) == ["calling AE title is not a peer that may send"]


def test_the_node_commits_nothing_for_others(asked) -> None:
    pacs, _ = asked
    entity = Requestor(pacs.title)
    entity.add_requested_context(STORAGE_COMMITMENT_PUSH, list(PLAIN))
    opened = entity.associate("127.0.0.1", pacs.node_port, ae_title="NODE")
    try:
        status, _ = opened.send_n_action(
            request_dataset("1.2.3", [(SC, "1.2.4")]), REQUEST_ACTION, STORAGE_COMMITMENT_PUSH, PUSH_MODEL_INSTANCE
        )
        assert status.Status == 0x0211
    finally:
        opened.release()


def test_a_report_is_not_acknowledged_while_the_database_cannot_keep_it(asked, monkeypatch) -> None:
    from dicomnode.errors import Transient
    from dicomnode.receive import commitment

    pacs, node = asked

    def broken(*_: object) -> None:
        raise Transient("database: disk full")

    with monkeypatch.context() as patch:
        patch.setattr(commitment, "take_report", broken)
        assert pacs.report(pacs.answer_to(0)) == EventStatus.RESOURCE_LIMITATION
    assert node.rows()[0].state == "requested"
    assert pacs.report(pacs.answer_to(0)) == EventStatus.SUCCESS
