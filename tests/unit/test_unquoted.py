"""A6: words of others about a Series lose what they quote of its header."""

from __future__ import annotations

import pytest

from dicomnode.dicom.unquoted import unquoted

HEADER = {
    "PatientID": ("ID-77",),
    "StudyDescription": ("MEYER KURT CT head",),
    "ReferringPhysicianName": ("Strauß^Anna",),
    "Modality": ("CT",),
    "BodyPartExamined": ("HEAD",),
    "ImageType": ("ORIGINAL", "PRIMARY"),
    "KVP": (120.0,),
    "Laterality": ("not a term at all",),
    "SeriesDescription": ("a(b)[c",),
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("patient ID-77 was declined", "patient [PatientID] was declined"),
        ("for meyer, kurt", "for [StudyDescription], [StudyDescription]"),
        ("MEYER KURT CT head", "[StudyDescription]"),
        ("asked by Anna Strauß", "asked by [ReferringPhysicianName] [ReferringPhysicianName]"),
        ("Strauß^Anna", "[ReferringPhysicianName]"),
        ("STRAUSS and sTrAuß", "[ReferringPhysicianName] and [ReferringPhysicianName]"),
        ("modality CT, image type ORIGINAL, 120.0 kV", "modality CT, image type ORIGINAL, 120.0 kV"),
        ("it is not a term at all", "it is [Laterality]"),
        ("a(b)[c", "[SeriesDescription]"),
        ("ID-770 and kurtosis stay", "ID-770 and kurtosis stay"),
        ("", ""),
    ],
)
def test_values_go_and_terms_stay(text: str, said: str) -> None:
    """A6: each value, and each word of one, becomes the name of its attribute; standard terms and numbers stay."""
    assert unquoted(text, HEADER) == said


def test_a_text_about_nothing_stays() -> None:
    """A6: without a header there is nothing to take out."""
    assert unquoted("gap of 10 mm", {}) == "gap of 10 mm"
