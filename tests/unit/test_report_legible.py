"""What is told from a header's bytes without decoding them is what decoding them tells."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from dicomnode.report.patterns import tag_of
from dicomnode.report.transcribe import legible, text_of

TAGS = {"DS": "ImagePositionPatient", "IS": "InstanceNumber", "UI": "SOPInstanceUID"}


def header(vr: str, value: bytes) -> Dataset:
    """A header as the reader gives it: with one element, undecoded."""
    tag = tag_of(TAGS[vr])
    return Dataset({tag: RawDataElement(tag, vr, len(value), value, 0, is_implicit_VR=False, is_little_endian=True)})


def is_number(value: bytes, vr: str) -> bool:
    """What pydicom makes of it."""
    try:
        found = header(vr, value)[TAGS[vr]].value
        for one in found if hasattr(found, "append") else (found or 0,):
            float(one or 0)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["DS", "IS"]),
    st.one_of(
        st.text("0123456789.+-\\ eEx\0", max_size=20).map(str.encode),
        st.from_regex(rb"[+-]?[0-9]{1,12}([.][0-9]{0,12})? ?", fullmatch=True),
    ),
)
def test_report_a_header_keeps_its_numbers_and_only_those(vr: str, value: bytes) -> None:
    """A number of a source that is none costs no result; one that is one is never dropped."""
    kept = TAGS[vr] in legible([header(vr, value)])[0]
    assert kept == is_number(value, vr)


@pytest.mark.parametrize(("vr", "value"), [("DS", b"-1.5\\0\\+120.25 "), ("IS", b"12")])
def test_report_plain_numbers_are_not_decoded_to_see_that_they_are_some(vr: str, value: bytes) -> None:
    """A Series of 1000 images has some thousand numbers that no result asks for."""
    own = header(vr, value)
    assert legible([own])[0] is own
    assert not isinstance(own.get_item(tag_of(TAGS[vr])), DataElement)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["IS", "UI"]), st.text("0123456789.+- \0", max_size=12).map(str.encode))
def test_report_text_of_plain_bytes_is_that_of_the_decoded_value(vr: str, value: bytes) -> None:
    """Instance Numbers and UIDs of a long Series are read from their bytes: they say what pydicom says."""
    if vr == "IS" and not is_number(value, vr):
        return
    assert text_of(header(vr, value), TAGS[vr]) == str(header(vr, value).get(TAGS[vr]) or "")


def test_report_text_of_what_is_not_there_is_empty() -> None:
    """As for an empty value."""
    assert text_of(Dataset(), "SOPInstanceUID") == ""
    assert text_of(header("UI", b""), "SOPInstanceUID") == ""
