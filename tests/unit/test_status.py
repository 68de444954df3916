"""Every C-STORE status has one meaning for the sender."""

from __future__ import annotations

import pytest

from dicomnode.dicom.status import Disposition, Status, describe_status, storage_disposition


@pytest.mark.parametrize(
    ("status", "disposition"),
    [
        (0x0000, Disposition.STORED),
        (0xB000, Disposition.STORED_WITH_WARNING),
        (0xB006, Disposition.STORED_WITH_WARNING),
        (0xB007, Disposition.STORED_WITH_WARNING),
        (0x0111, Disposition.STORED_WITH_WARNING),
        (0xA700, Disposition.TRANSIENT),
        (0xA7FF, Disposition.TRANSIENT),
        (0x0213, Disposition.TRANSIENT),
        (None, Disposition.TRANSIENT),
        (0xA900, Disposition.PERMANENT),
        (0xA901, Disposition.PERMANENT),
        (0xC000, Disposition.PERMANENT),
        (0xCFFF, Disposition.PERMANENT),
        (0x0122, Disposition.PERMANENT),
        (0x0124, Disposition.PERMANENT),
        (0xFF00, Disposition.PERMANENT),
        (0x4711, Disposition.PERMANENT),
    ],
)
def test_a_store_response_is_classified_as_the_standard_says(status: int | None, disposition: Disposition) -> None:
    assert storage_disposition(status) is disposition


def test_every_known_status_is_described_by_code_and_name() -> None:
    for status in Status:
        assert describe_status(status).startswith(f"0x{status.value:04X} {status.name.lower().split('_')[0]}")
    assert describe_status(0xA701) == "0xA701 out of resources"
    assert describe_status(0xC123) == "0xC123 cannot understand"
    assert describe_status(0x4711) == "0x4711 unknown status"
    assert describe_status(None) == "no response"
