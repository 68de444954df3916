"""Every DIMSE status has one meaning for a delivery; presentation contexts never exceed what an Association holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from dicomnode.deliver.back_off import BackOff
from dicomnode.deliver.contexts import batches, contexts_for
from dicomnode.dicom.status import Disposition, storage_disposition


def expected(status: int) -> Disposition:
    """The table of PS3.4 B.2.3 and PS3.7 annex C, written out a second time as ranges."""
    if status == 0x0000:
        return Disposition.STORED
    if 0xB000 <= status <= 0xBFFF or status in (0x0001, 0x0107, 0x0116, 0x0111):
        return Disposition.STORED_WITH_WARNING
    if 0xA700 <= status <= 0xA7FF or status in (0x0110, 0x0213, 0x0210):
        return Disposition.TRANSIENT
    return Disposition.PERMANENT


def test_each_of_the_65536_statuses_has_exactly_its_class() -> None:
    found = {status: storage_disposition(status) for status in range(0x10000)}
    assert {status: expected(status) for status in range(0x10000)} == found
    counts = Counter(found.values())
    assert counts[Disposition.STORED] == 1
    assert counts[Disposition.TRANSIENT] == 256 + 3
    assert storage_disposition(None) is Disposition.TRANSIENT


@given(st.integers(min_value=-5, max_value=10**6), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_delay_is_never_negative_and_never_above_the_cap(failures: int, draw: float) -> None:
    assert 0 <= BackOff().delay(failures, draw) <= 300.0


@dataclass(frozen=True)
class File:
    SOPClassUID: str
    TransferSyntaxUID: str


files = st.lists(
    st.builds(
        File,
        st.integers(1, 40).map(lambda number: f"1.2.3.{number}"),
        st.sampled_from(
            ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"]
        ),
    ),
    max_size=60,
)


@given(files, st.integers(min_value=2, max_value=20))
def test_batches_keep_every_file_in_order_and_fit_the_limit(found: list[File], limit: int) -> None:
    cut = list(batches(found, limit))
    assert [file for batch in cut for file in batch] == found
    for batch in cut:
        contexts = contexts_for(batch)
        assert len(contexts) <= limit
        proposed = {(context.abstract_syntax, tuple(context.transfer_syntax)) for context in contexts}
        assert len(proposed) == len(contexts)
        for file in batch:
            assert (file.SOPClassUID, (file.TransferSyntaxUID,)) in proposed
            assert (file.SOPClassUID, ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")) in proposed
