"""AE titles follow PS3.5 section 6.2."""

from __future__ import annotations

import pytest

from dicomnode.dicom.aetitle import ae_title


@pytest.mark.parametrize(
    ("value", "title"),
    [("ORTHANC", "ORTHANC"), ("AE ", "AE"), (" AE 1", "AE 1"), ("A" * 16, "A" * 16), ("A" * 16 + " ", "A" * 16)],
)
def test_leading_and_trailing_spaces_are_insignificant(value: str, title: str) -> None:
    assert ae_title(value) == title


@pytest.mark.parametrize("value", ["", " ", " " * 16, "A" * 17, "A\\B", "A\nB", "A\0", "Ä", "A\x7f"])
def test_invalid_titles_are_refused_without_repeating_them(value: str) -> None:
    with pytest.raises(ValueError, match="an AE title") as refusal:
        ae_title(value)
    assert not value.strip() or value not in str(refusal.value)
