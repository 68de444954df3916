"""De-identification of arbitrary trees: no identifier survives, nothing but a refusal is raised, twice is as once."""

from __future__ import annotations

import io

import pydicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.deid.refusal import Quarantined
from dicomnode.deid.table import action_table
from dicomnode.deid.tree import dictionary_kind
from dicomnode.deid.words import cleaned, known_words
from tests.unit.deid_objects import elements, file_of, image, transformed

TEXTS = sorted(
    tag
    for tag, row in action_table().rows.items()
    if dictionary_kind(tag) in ("LO", "SH", "LT", "ST", "UT", "PN") and not row.options and tag >> 16 > 4
)
"""Attributes that the table never keeps, whatever the option."""
KEPT_SEQUENCES = [0x00081115, 0x00089215, 0x52009230, 0x00209111, 0x00540016, 0x00081140, 0x00400260, 0x00089121]
OPTIONS = ["retain_modified_dates", "retain_uids", "retain_device", "clean_descriptors", "clean_structured_content",
           "retain_patient_characteristics", "retain_institution", "retain_safe_private", "clean_graphics"]  # fmt: skip
UNKNOWN = [0x00089998, 0x00189990, 0x60000022, 0x50000022, 0x601E1500]
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
_MARK = "XQLEAKQX"


@st.composite
def items(draw: st.DrawFn, depth: int = 3) -> Dataset:
    """A data set with marks in attributes that must go, private and unknown ones among them, and with sequences."""
    dataset = Dataset()
    for tag in draw(st.lists(st.sampled_from(TEXTS), max_size=4)):
        kind = dictionary_kind(tag)
        dataset.add(DataElement(tag, kind, _MARK + ("^A" if kind == "PN" else "")))
    for group in draw(st.lists(st.sampled_from([0x0009, 0x0019, 0x7FE1, 0x2001]), max_size=2, unique=True)):
        dataset.private_block(group, "XQLEAKQX", create=True).add_new(draw(st.integers(0, 255)), "LO", _MARK)
    for tag in draw(st.lists(st.sampled_from(UNKNOWN), max_size=2)):
        dataset.add(DataElement(tag, "LO", _MARK))
    if depth:
        for tag in draw(st.lists(st.sampled_from(KEPT_SEQUENCES), max_size=2, unique=True)):
            inner = draw(st.lists(items(depth - 1), max_size=2))
            element = DataElement(tag, "SQ", Sequence(inner))
            element.is_undefined_length = draw(st.booleans())
            dataset.add(element)
    return dataset


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(items(), st.sampled_from(SYNTAXES), st.lists(st.sampled_from(OPTIONS), max_size=3))
def test_no_mark_survives_in_any_tree(inner: Dataset, syntax: str, options: list[str]) -> None:
    """D3: whatever the nesting, the encoding and the options, what the table never keeps is gone."""
    dataset = image(syntax=syntax)
    for element in inner:
        if element.tag not in dataset:
            dataset.add(element)
    raw, _ = transformed(file_of(dataset), *options)
    assert _MARK.encode() not in raw
    new = pydicom.dcmread(io.BytesIO(raw))
    assert not [element for _, element in elements(new) if element.tag.is_private]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(items(), st.lists(st.sampled_from(OPTIONS), max_size=2))
def test_the_same_object_becomes_the_same_file(inner: Dataset, options: list[str]) -> None:
    """D15, D20: same in, same out; a second pass changes neither marks nor structure."""
    dataset = image()
    dataset.PerFrameFunctionalGroupsSequence = Sequence([inner])
    content = file_of(dataset)
    first, applied = transformed(content, *options)
    assert transformed(content, *options) == (first, applied)
    second, again = transformed(first, *options)
    old, new = (pydicom.dcmread(io.BytesIO(raw)) for raw in (first, second))
    assert again.codes == applied.codes
    assert old.DeidentificationMethodCodeSequence == new.DeidentificationMethodCodeSequence
    assert [(depth, e.tag) for depth, e in elements(old)] == [(depth, e.tag) for depth, e in elements(new)]


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 2000), st.integers(0, 40))
def test_damaged_files_are_refused_or_done(noise: bytes, at: int, cut: int) -> None:
    """D3: noise in the middle, bytes cut out: a new file or a refusal, nothing else, and never the patient's name."""
    content = file_of(image(PatientName="XQLEAKQX^A"))
    at = 132 + at % (len(content) - 132)
    damaged = content[:at] + noise + content[at + cut :]
    told, outcome = "", b""
    try:
        outcome, _ = transformed(damaged)
    except Quarantined as refusal:
        told = str(refusal)
    assert "XQLEAK" not in told
    if outcome:
        pydicom.dcmread(io.BytesIO(outcome), force=True)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_cleaned_texts_hold_known_words_and_measures_only(text: str) -> None:
    """D2: of any text at all only known words, and numbers with a unit, are left."""
    for word in cleaned(text, frozenset(), frozenset()).split():
        assert word.lower() in known_words() or word[-1].isalpha() or word[0].isalpha()
        assert not word.isdigit()
