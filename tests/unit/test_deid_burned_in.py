"""The gate for burned-in text: held back on suspicion, and never marked."""

from __future__ import annotations

from typing import Any

import pytest

from dicomnode.deid.burned_in import risk
from dicomnode.deid.pixel_decision import PixelDecision
from dicomnode.deid.refusal import Quarantined, Reason
from tests.unit.deid_objects import deidentifier, image

ROOT = "1.2.840.10008.5.1.4.1.1."


@pytest.mark.parametrize(
    ("suffix", "more", "held"),
    [
        ("2", {}, False),
        ("2", {"BurnedInAnnotation": "YES"}, True),
        ("2", {"BurnedInAnnotation": None}, False),
        ("2", {"BurnedInAnnotation": None, "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, True),
        ("6.1", {"BurnedInAnnotation": None}, True),
        ("6.1", {"BurnedInAnnotation": ""}, True),
        ("6.1", {}, False),
        ("6.1", {"BurnedInAnnotation": "YES"}, True),
        ("3.1", {"BurnedInAnnotation": None}, True),
        ("7", {"BurnedInAnnotation": None}, True),
        ("7.4", {"BurnedInAnnotation": None}, True),
        ("12.1", {"BurnedInAnnotation": None}, True),
        ("77.1.4", {"BurnedInAnnotation": None}, True),
        ("104.1", {"PixelData": None}, True),
        ("104.2", {"PixelData": None}, True),
        ("9.4.1", {"PixelData": None}, True),
    ],
)
def test_risks(suffix: str, more: dict[str, Any], held: bool) -> None:
    """D21: YES; not NO and one of the classes; screen saves; documents. CT, MR without a sign pass."""
    assert (risk(image(ROOT + suffix, **more)) is not None) == held


def test_the_engine_holds_back_what_the_gate_does_not_pass() -> None:
    """D21: nothing comes out, and the reason holds no value of the object."""
    with pytest.raises(Quarantined) as refusal:
        deidentifier().apply(image(BurnedInAnnotation="YES", PatientName="VGATEV"))
    assert refusal.value.reason is Reason.BURNED_IN
    assert "VGATEV" not in str(refusal.value)


def test_codes_of_a_policy_are_named_only_when_it_applied_them() -> None:
    """D20, D21: 113101 stands in the object when the policy says so, not because the profile asks for it."""
    engine = deidentifier("clean_pixel_data")
    assert engine.codes(PixelDecision()) == ("113100",)
    assert engine.codes(PixelDecision(codes=("113101",))) == ("113100", "113101")
