"""Routing: case-insensitive matching on all values of a Series, and a reason for every yes and no."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.config import Condition, parse_config
from dicomnode.config.matching import unmet
from dicomnode.detectors.contract import Acceptance
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import SeriesSummary, summarise
from dicomnode.route import decide


class Picky:
    """A detector that accepts chests only."""

    name, version, default_model, description = "picky", "1", "none", "accepts chests"

    def accepts(self, summary: SeriesSummary) -> Acceptance:
        part = summary.first("BodyPartExamined", "unknown")
        return Acceptance(part == "CHEST", f"body part {part}")


def summary(**values) -> SeriesSummary:
    attributes = {key: value if isinstance(value, tuple) else (value,) for key, value in values.items()}
    return SeriesSummary(SeriesReference("1.2", "1.2.3"), 1, attributes)


@pytest.mark.parametrize(
    ("condition", "values", "holds"),
    [
        ("ct", ("CT",), True),
        ("CT", ("MR",), False),
        (["CR", "DX"], ("dx",), True),
        (5, ("5.0",), True),
        (5, (5.0,), True),
        ("CT", (), False),
        ({"regex": "^ax.*flair"}, ("AX T2 FLAIR",), True),
        ({"regex": "flair"}, ("T1",), False),
        ({"min": 1, "max": 5}, (1, 5), True),
        ({"min": 1, "max": 5}, (1, 6), False),
        ({"min": 1}, ("abc",), False),
        ({"min": 1}, (), False),
        ({"exists": True}, ("x",), True),
        ({"exists": False}, ("x",), False),
        ({"exists": False}, (), True),
        ({"not": "LOCALIZER"}, ("ORIGINAL", "AXIAL"), True),
        ({"not": "LOCALIZER"}, ("ORIGINAL", "LOCALIZER"), False),
        ({"not": {"regex": "^scout"}}, ("SCOUT view",), False),
        ({"regex": "head", "not": {"regex": "neck"}}, ("HEAD NECK",), False),
        ({"equals": ["a", "b"], "regex": "b"}, ("b",), True),
    ],
)
def test_conditions_hold_exactly_when_they_say(condition, values, holds) -> None:
    assert (unmet(Condition.model_validate(condition), values) == "") is holds


@given(st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), min_size=1, max_size=4))
def test_a_condition_and_its_negation_never_both_hold(values: list[str]) -> None:
    plain = Condition.model_validate("abc")
    negated = Condition.model_validate({"not": "abc"})
    assert (unmet(plain, tuple(values)) == "") != (unmet(negated, tuple(values)) == "")


CONFIG = """
[[peer]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
[[route]]
name = "chest"
when = { Modality = ["CR", "DX"] }
detector = "picky"
send_to = ["pacs"]
"""


def test_every_route_answers_with_its_reason() -> None:
    config, _ = parse_config(CONFIG)
    detectors = {"picky": Picky()}
    taken = decide(config, detectors, summary(Modality="DX", BodyPartExamined="CHEST"))
    assert [route.name for route in taken.taken] == ["chest"]
    refused = decide(config, detectors, summary(Modality="DX", BodyPartExamined="KNEE"))
    assert refused.taken == ()
    assert refused.reasons[0].matched
    assert "no detector accepts this series" in refused.summary
    assert "KNEE" in refused.summary
    unmatched = decide(config, detectors, summary(Modality="US"))
    assert "Modality: US is not CR, DX" in unmatched.reasons[0].text


def test_no_route_at_all_is_said() -> None:
    config, _ = parse_config("")
    assert decide(config, {}, summary(Modality="CT")).summary == "no route is configured"


def test_the_summary_is_drawn_from_all_instances() -> None:
    reference = SeriesReference("1.2", "1.2.3")
    merged = summarise(reference, [{"ImageType": ("ORIGINAL",)}, {"ImageType": ("DERIVED",)}, {}])
    assert merged.values("ImageType") == ("ORIGINAL", "DERIVED")
    assert merged.n_instances == 3


def test_a_detector_that_breaks_when_asked_stops_no_other_route() -> None:
    class Broken(Picky):
        def accepts(self, summary: SeriesSummary) -> Acceptance:
            raise ZeroDivisionError("PATIENT^NAME")

    second = CONFIG[CONFIG.index("[[route]]") :].replace('"chest"', '"second"').replace('"picky"', '"good"')
    config, _ = parse_config(CONFIG + second)
    decision = decide(config, {"picky": Broken(), "good": Picky()}, summary(Modality="DX", BodyPartExamined="CHEST"))
    assert [route.name for route in decision.taken] == ["second"]
    assert "ZeroDivisionError" in decision.reasons[0].text
    assert "PATIENT" not in decision.reasons[0].text
