"""The words of storage commitment: requests, and reports good and bad (PS3.4 annex J)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence
from pynetdicom.dsutils import encode

from dicomnode.dicom.commitment import (
    MAX_REPORT_BYTES,
    EventStatus,
    Remedy,
    decode_report,
    describe_reason,
    is_accepted,
    remedy,
    request_dataset,
)
from dicomnode.errors import Refusal
from tests.integration.commit_fixtures import report_dataset

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


def encoded(dataset: Dataset, syntax: str = EXPLICIT) -> bytes:
    content = encode(dataset, syntax == IMPLICIT, True)
    assert content is not None
    return content


def refused(content: bytes, *, event_type: int = 1, syntax: str = EXPLICIT) -> int:
    with pytest.raises(Refusal) as caught:
        decode_report(event_type, content, syntax)
    return caught.value.status


def test_a_request_names_transaction_class_and_instance() -> None:
    dataset = request_dataset("1.2.3", [("1.9.1", "1.9.2"), ("1.9.1", "1.9.3")])
    assert dataset.TransactionUID == "1.2.3"
    pairs = [(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in dataset.ReferencedSOPSequence]
    assert pairs == [("1.9.1", "1.9.2"), ("1.9.1", "1.9.3")]


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_a_report_tells_for_each_instance_whether_it_is_committed(syntax: str) -> None:
    content = encoded(report_dataset("1.2.3", ["1.4", "1.5"], [("1.6", 0x0112)]), syntax)
    report = decode_report(2, content, syntax)
    assert report.TransactionUID == "1.2.3"
    assert report.reasons == {"1.4": 0, "1.5": 0, "1.6": 0x0112}


def test_an_instance_both_committed_and_failed_counts_as_failed() -> None:
    assert decode_report(2, encoded(report_dataset("1.2.3", ["1.4"], [("1.4", 0x0110)])), EXPLICIT).reasons == {
        "1.4": 0x0110
    }


@pytest.mark.parametrize("damage", ["none", "zero"])
def test_a_failure_without_a_reason_is_never_taken_for_a_commitment(damage: str) -> None:
    dataset = report_dataset("1.2.3", [], [("1.4", 0)])
    if damage == "none":
        del dataset.FailedSOPSequence[0].FailureReason
    assert decode_report(2, encoded(dataset), EXPLICIT).reasons == {"1.4": 0x0110}


def test_a_report_of_success_that_lists_failures_is_read_by_its_content() -> None:
    assert decode_report(1, encoded(report_dataset("1.2.3", [], [("1.4", 0x0119)])), EXPLICIT).reasons["1.4"] == 0x0119


def test_malformed_reports_are_refused_as_invalid_arguments() -> None:
    no_transaction = report_dataset("1.2.3", ["1.4"])
    del no_transaction.TransactionUID
    no_instance = report_dataset("1.2.3", ["1.4"])
    del no_instance.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    no_sequence = report_dataset("1.2.3")
    not_a_uid = encoded(report_dataset("1.2.3", ["1.4"])).replace(b"1.4\0", b"x.4\0")
    cut = encoded(report_dataset("1.2.3", ["1.4"]))[:-3]
    for content in (*map(encoded, (no_transaction, no_instance, no_sequence)), not_a_uid, cut, b"", b"\xff" * 99):
        assert refused(content) == EventStatus.INVALID_ARGUMENT_VALUE


def test_an_empty_sequence_is_a_report_about_nothing() -> None:
    dataset = report_dataset("1.2.3")
    dataset.ReferencedSOPSequence = Sequence()
    assert decode_report(1, encoded(dataset), EXPLICIT).reasons == {}


def test_other_events_and_huge_reports_are_refused_before_they_are_decoded() -> None:
    assert refused(encoded(report_dataset("1.2.3", ["1.4"])), event_type=3) == EventStatus.NO_SUCH_EVENT_TYPE
    assert refused(bytes(MAX_REPORT_BYTES + 1)) == EventStatus.RESOURCE_LIMITATION


def test_deeply_nested_sequences_are_refused() -> None:
    nested = b""
    for _ in range(2000):
        item = b"\xfe\xff\x00\xe0" + len(nested).to_bytes(4, "little") + nested
        nested = b"\x08\x00\x99\x11SQ\0\0" + len(item).to_bytes(4, "little") + item
    assert refused(nested) == EventStatus.INVALID_ARGUMENT_VALUE


@pytest.mark.filterwarnings("ignore:Expected:UserWarning")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_a_peer_sends_it_is_a_report_or_a_refusal(data: st.DataObject) -> None:
    content = bytearray(encoded(report_dataset("1.2.3", ["1.4", "1.5"], [("1.6", 0x0112)])))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    syntax = data.draw(st.sampled_from([IMPLICIT, EXPLICIT]))
    try:
        report = decode_report(1, bytes(content), syntax)
    except Refusal:
        assert refused(bytes(content), syntax=syntax) == EventStatus.INVALID_ARGUMENT_VALUE
    else:
        assert report.TransactionUID


def test_each_reason_has_its_remedy() -> None:
    assert {remedy(reason) for reason in (0x0110, 0x0112, 0x0213)} == {Remedy.SEND_AGAIN}
    assert {remedy(reason) for reason in (None, 0x0131)} == {Remedy.ASK_AGAIN}
    assert {remedy(reason) for reason in (0x0119, 0x0122, 0x0999)} == {Remedy.NONE}
    assert describe_reason(0x0112) == "0x0112 no such object instance"
    assert describe_reason(0x0999) == "0x0999 unknown reason"


def test_success_and_warnings_announce_a_report_and_nothing_else_does() -> None:
    assert [is_accepted(status) for status in (0x0000, 0xB000, 0x0001)] == [True] * 3
    assert [is_accepted(status) for status in (None, 0x0110, 0x0122, 0x0131, 0xA700, 0xC000)] == [False] * 6
