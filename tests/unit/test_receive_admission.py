"""Who may associate, and which reason a refused peer is told."""

import socket

import pytest

from dicomnode.config import Config
from dicomnode.receive.admission import (
    CALLED_UNKNOWN,
    CALLING_UNKNOWN,
    LOCAL_LIMIT,
    WRONG_ADDRESS,
    Admission,
    Admitted,
    Request,
    plain_address,
)


def admission(*, unknown=False, host="10.0.0.5", may_send=True, limit=2):
    return Admission(
        Config.model_validate(
            {
                "node": {"ae_title": "NODE"},
                "receive": {"accept_unknown_peers": unknown, "max_associations": limit},
                "peer": [{"name": "ct", "ae_title": "CT1", "host": host, "port": 104, "may_send": may_send}],
            }
        )
    )


def request(calling="CT1", called="NODE", address="10.0.0.5"):
    return Request(calling, called, address)


def test_a_known_sender_from_its_address_is_admitted_by_name():
    assert admission().judge(request(), 0) == Admitted("ct")


def test_outer_spaces_of_ae_titles_do_not_count():
    assert admission().judge(request("CT1 ", " NODE "), 0) == Admitted("ct")


@pytest.mark.parametrize(
    ("asked", "rejection"),
    [
        (request(called="OTHER"), CALLED_UNKNOWN),
        (request(called="node"), CALLED_UNKNOWN),
        (request(calling="CT2"), CALLING_UNKNOWN),
        (request(address="10.0.0.6"), WRONG_ADDRESS),
    ],
)
def test_strangers_are_rejected_with_the_right_reason(asked, rejection):
    assert admission().judge(asked, 0) == rejection


def test_reasons_are_those_of_ps3_8():
    assert (CALLED_UNKNOWN.result, CALLED_UNKNOWN.source, CALLED_UNKNOWN.diagnostic) == (1, 1, 7)
    assert (CALLING_UNKNOWN.result, CALLING_UNKNOWN.source, CALLING_UNKNOWN.diagnostic) == (1, 1, 3)
    assert (LOCAL_LIMIT.result, LOCAL_LIMIT.source, LOCAL_LIMIT.diagnostic) == (2, 3, 2)


def test_a_peer_that_may_not_send_is_rejected():
    assert admission(may_send=False).judge(request(), 0) == CALLING_UNKNOWN


def test_the_limit_rejects_transiently():
    assert admission().judge(request(), 1) == Admitted("ct")
    assert admission().judge(request(), 2) == LOCAL_LIMIT


def test_a_stranger_at_the_limit_learns_nothing_of_the_limit():
    assert admission().judge(request("CT2"), 2) == CALLING_UNKNOWN


def test_unknown_peers_are_admitted_only_when_configured():
    assert admission(unknown=True).judge(request("ANY", address="10.9.9.9"), 0) == Admitted(None)
    assert admission(unknown=True).judge(request("ANY", called="OTHER"), 0) == CALLED_UNKNOWN


def test_a_host_name_is_resolved_once(monkeypatch):
    asked = []

    def resolve(host, *_args, **_keywords):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    known = admission(host="scanner.example")
    assert known.judge(request(address="10.0.0.7"), 0) == Admitted("ct")
    assert known.judge(request(address="10.0.0.5"), 0) == WRONG_ADDRESS
    assert asked == ["scanner.example"]


def test_a_host_name_that_does_not_resolve_admits_nobody_and_is_tried_again(monkeypatch):
    def fail(*_args, **_keywords):
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    known = admission(host="scanner.example")
    assert known.judge(request(), 0) == WRONG_ADDRESS
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: [(2, 1, 6, "", ("10.0.0.5", 0))])
    assert known.judge(request(), 0) == Admitted("ct")


def test_mapped_addresses_are_the_ipv4_ones():
    assert plain_address("::ffff:10.0.0.5") == "10.0.0.5"
    assert plain_address("fe80::1%eth0") == "fe80::1"
