"""The destination that ``dicomnode send`` is told, and the TLS context of a peer."""

from __future__ import annotations

import pytest

from dicomnode.deliver.send import parse_destination
from dicomnode.errors import Permanent


@pytest.mark.parametrize(
    ("text", "title", "host", "port"),
    [
        ("PACS@192.0.2.7:104", "PACS", "192.0.2.7", 104),
        (" MY PACS@pacs.example.org:11112 ", "MY PACS", "pacs.example.org", 11112),
        ("A@[2001:db8::1]:104", "A", "2001:db8::1", 104),
        ("A@localhost:65535", "A", "localhost", 65535),
    ],
)
def test_title_host_and_port_are_read(text: str, title: str, host: str, port: int) -> None:
    peer = parse_destination(text)
    assert (peer.ae_title, peer.host, peer.port) == (title, host, port)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "AET@HOST:PORT"),
        ("PACS", "AET@HOST:PORT"),
        ("192.0.2.7:104", "AET@HOST:PORT"),
        ("PACS@192.0.2.7", "AET@HOST:PORT"),
        ("PACS@:104", "AET@HOST:PORT"),
        ("PACS@2001:db8::1:104", "AET@HOST:PORT"),
        ("A@B@host:104", "AET@HOST:PORT"),
        ("PACS@host:x", "AET@HOST:PORT"),
        ("PACS@host:0", "port has to be from 1 to 65535"),
        ("PACS@host:65536", "port has to be from 1 to 65535"),
        ("SEVENTEENLETTERSX@host:104", "16 characters"),
        ("A\\B@host:104", "no backslash"),
    ],
)
def test_a_wrong_destination_is_told_what_is_wrong(text: str, told: str) -> None:
    with pytest.raises(Permanent, match=told):
        parse_destination(text)
