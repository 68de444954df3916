"""Results of models with named outputs: the label, its code and colour are in every object, and nothing is invented."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import Calibration, Concept, DetectionResult, LabelScore, Volume
from dicomnode.report import build_results
from dicomnode.report.build import KINDS
from dicomnode.report.legend import meaning, notices
from dicomnode.report.page_content import result_content
from dicomnode.report.selfcheck import Evidence, checked
from dicomnode.report.sr_content import calibration_text
from tests.report_fixtures import content, context, findings, source, texts

OWN = Calibration("softmax probability of the model", "none by this node", 0, 0.5, 0.0)
LABELS = (LabelScore("spleen", 0.97, 0.5), LabelScore("liver", 0.1, 0.5))


def labelled(modality: str = "CT", *, anatomy: bool = False, places: bool = True):
    """Volume, headers and a result whose finding is called spleen; without places it has no region."""
    volume, headers = source(modality)
    result = findings(volume)
    concept = Concept("78961009", "SCT", "Spleen")
    found = tuple(
        replace(one, label="spleen", concept=concept, anatomy=anatomy, colour=(255, 0, 0)) for one in result.findings
    )
    return volume, headers, replace(result, calibration=OWN, findings=found if places else (), labels=LABELS)


def objects_of(volume: Volume, headers: list[Dataset], result: DetectionResult) -> dict[str, list[Dataset]]:
    """Every kind of object, each through the self-check."""
    evidence = Evidence(tuple(dict.fromkeys(plane.source for plane in volume.planes)), headers, context())
    found: dict[str, list[Dataset]] = {}
    for one in checked(iter(build_results(volume, headers, result, context(), KINDS)), evidence):
        found.setdefault(one.kind, []).append(one.dataset)
    return found


@pytest.mark.parametrize("modality", ["CT", "DX"])
def test_every_object_of_a_labelled_result_passes_the_self_check(modality: str) -> None:
    """With places and without, and each kind that has something to say is there."""
    assert set(objects_of(*labelled(modality))) == set(KINDS)
    assert set(objects_of(*labelled(modality, places=False))) == set(KINDS) - {"seg", "gsps", "ko", "sr-volume"}


def test_a_segment_has_label_code_category_and_colour() -> None:
    """A normal structure is no morphologically abnormal one."""
    (seg,) = objects_of(*labelled(anatomy=True))["seg"]
    (segment,) = seg.SegmentSequence
    assert segment.SegmentLabel == "spleen 1: 0.97 (RESEARCH)"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "78961009"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
    (other,) = objects_of(*labelled())["seg"]
    assert other.SegmentSequence[0].SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert (
        segment.RecommendedDisplayCIELabValue
        != objects_of(*plain())["seg"][0].SegmentSequence[0].RecommendedDisplayCIELabValue
    )


def plain() -> tuple[Volume, list[Dataset], DetectionResult]:
    volume, headers = source("CT")
    return volume, headers, findings(volume)


def test_the_reports_name_the_label_and_call_its_score_what_it_is() -> None:
    """Finding type, name of the score, comment for viewers; all labels in the root."""
    objects = objects_of(*labelled())
    root, regions = objects["sr"]
    assert texts(root, "LABEL") == [
        "spleen: 0.97, threshold 0.50: present",
        "liver: 0.10, threshold 0.50: not present",
    ]
    for document in (regions, objects["sr-volume"][0]):
        items = dict(content(document))
        assert items["121071"].ConceptCodeSequence[0].CodeValue == "78961009"
        assert "LABEL_SCORE" in items
        assert "ANOMALY_HEAT" not in items
    assert "spleen 0.97 (RESEARCH)" in texts(regions, "121106")


def test_what_nobody_has_calibrated_claims_no_false_positive_rate() -> None:
    """Not in the SR, not on pictures, not on the page; a calibrated result still does."""
    volume, headers, result = labelled()
    assert "EXPECTED_FPR" not in dict(content(objects_of(volume, headers, result)["sr"][0]))
    assert "EXPECTED_FPR" in dict(content(objects_of(*plain())["sr"][0]))
    assert "how many healthy patients reach that is not known" in calibration_text(result)
    assert "not known" in meaning(result)[1]
    figures = {figure.label: figure.value for figure in result_content(volume, headers, result, context()).figures}
    assert figures["False positives"] == "unknown"


def test_the_page_names_labels_and_says_when_there_is_no_place() -> None:
    """A finding without a region is not counted as outlined."""
    volume, headers, result = labelled()
    page = result_content(volume, headers, result, context())
    assert [line.name for line in page.findings] == ["spleen"]
    assert any("liver: 0.10" in text for _, text in page.statements)
    nowhere = result_content(*labelled(places=False), context())
    assert "the model tells no place" in nowhere.subline
    assert nowhere.alarming


def test_a_presentation_state_writes_the_label_beside_the_outline() -> None:
    """Not "AI anomaly"."""
    (state,) = objects_of(*labelled())["gsps"]
    written = {str(element.value) for element in state.iterall() if element.keyword == "UnformattedTextValue"}
    assert any(text.startswith("spleen 0.9") for text in written)
    assert not any(text.startswith("AI anomaly") for text in written)


def test_what_the_model_warns_of_is_on_every_output() -> None:
    """A model of normal structures says so."""
    result = replace(labelled()[2], notices=("Outlines normal structures only; says nothing about disease",))
    assert "Outlines normal structures only; says nothing about disease" in notices(result, context())
