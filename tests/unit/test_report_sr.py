"""The SR documents state outcome, score, region and origin in the places where readers look for them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import DetectionResult, ModelIdentity, Volume
from dicomnode.report import ResultUIDs, build_results, device_uid
from tests.report_fixtures import SERIES, content, context, findings, multiframe, no_findings, source, texts


def documents(volume: Volume, headers: list[Dataset], result: DetectionResult, **changes: object) -> list[Dataset]:
    built = build_results(volume, headers, result, context(**changes), frozenset({"sr"}))
    return [one.dataset for one in built]


def groups(document: Dataset) -> list[Dataset]:
    return [item for name, item in content(document) if name == "125007"]


def values(parent: Dataset, code: str) -> list[str]:
    return [
        item.ConceptCodeSequence[0].CodeValue
        for item in parent.ContentSequence
        if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeValue == code
    ]


def numbers(parent: Dataset) -> dict[str, str]:
    return {
        item.ConceptNameCodeSequence[0].CodeValue: str(item.MeasuredValueSequence[0].NumericValue)
        for item in parent.ContentSequence
        if item.ValueType == "NUM"
    }


def test_report_root_document_is_a_tid_1500_comprehensive_3d_sr():
    volume, headers = source()
    root = documents(volume, headers, no_findings(volume))[0]
    assert root.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert (root.ContentTemplateSequence[0].TemplateIdentifier, root.ContentTemplateSequence[0].MappingResource) == (
        "1500",
        "DCMR",
    )
    assert root.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert (root.CompletionFlag, root.VerificationFlag, root.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert "Laterality" not in root


def test_report_no_findings_is_stated_as_absent_with_score_and_threshold():
    volume, headers = source()
    (root,) = documents(volume, headers, no_findings(volume))
    (group,) = groups(root)
    assert values(group, "121071") == ["2667000"]
    assert numbers(group) == {"ANOMALY_SCORE": "0.4", "SCORE_THRESHOLD": "0.95", "EXPECTED_FPR": "0.05"}


def test_report_findings_are_stated_as_present():
    volume, headers = source()
    root, _ = documents(volume, headers, findings(volume))
    (group,) = groups(root)
    assert values(group, "121071") == ["52101004"]
    assert numbers(group)["ANOMALY_SCORE"] == "0.98"
    assert not any(item.ValueType == "SCOORD" for _, item in content(root))


def test_report_calibration_is_explained_in_words():
    volume, headers = source()
    (text,) = texts(documents(volume, headers, no_findings(volume))[0], "CALIBRATION")
    for part in (
        "share of healthy patients below",
        "empirical distribution",
        "120 healthy",
        "0.95",
        "5 %",
        "mean residual",
    ):
        assert part in text


@pytest.mark.parametrize("result", [findings, no_findings])
def test_report_research_notice_is_a_visible_item_of_every_document(result):
    volume, headers = source()
    for document in documents(volume, headers, result(volume)):
        assert "RESEARCH – NOT FOR CLINICAL USE" in [
            item.TextValue for item in document.ContentSequence if item.ValueType == "TEXT"
        ]


@pytest.mark.parametrize(
    ("modality", "code"), [("CT", "25045-6"), ("MR", "25056-3"), ("DX", "363679005"), ("CR", "363679005")]
)
def test_report_procedure_reported_is_the_imaging_procedure(modality, code):
    volume, headers = source(modality, 1)
    assert values(documents(volume, headers, no_findings(volume))[0], "121058") == [code]


@pytest.mark.parametrize("make", [source, multiframe])
def test_report_all_images_are_in_library_and_evidence(make):
    volume, headers = make()
    expected = {plane.source.SOPInstanceUID for plane in volume.planes}
    for document in documents(volume, headers, findings(volume)):
        (library,) = [item for name, item in content(document) if name == "111028"]
        listed = [
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for _, item in content(library)
            if item.ValueType == "IMAGE"
        ]
        assert sorted(listed) == sorted(expected)
        (study,) = document.CurrentRequestedProcedureEvidenceSequence
        (series,) = study.ReferencedSeriesSequence
        assert study.StudyInstanceUID == SERIES.StudyInstanceUID
        assert series.SeriesInstanceUID == SERIES.SeriesInstanceUID
        assert {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence} == expected


def test_report_every_group_and_measurement_names_algorithm_and_weights():
    volume, headers = source()
    for document in documents(volume, headers, findings(volume), parameters={"tile": "96"}):
        for parent in (item for name, item in content(document) if name == "125007" or item.ValueType == "NUM"):
            if parent.ValueType == "NUM" and parent.RelationshipType == "HAS ACQ CONTEXT":
                continue
            own = {
                item.ConceptNameCodeSequence[0].CodeValue: item
                for item in parent.ContentSequence
                if item.ValueType == "TEXT"
            }
            assert (own["111001"].TextValue, own["111003"].TextValue) == ("ct-head", "1.0.0")
            parameters = [
                item.TextValue
                for item in parent.ContentSequence
                if item.ConceptNameCodeSequence[0].CodeValue == "111002"
            ]
            assert f"weights SHA-256={'ab12cd34' * 8}" in parameters
            assert {"model=ct-head-aeu 1.2.0", "tile=96", "accelerator=cpu"} <= set(parameters)


def test_report_device_is_the_only_observer_and_changes_with_the_weights():
    volume, headers = source()
    seen = []
    for model in (context().model, ModelIdentity("ct-head-aeu", "1.2.0", "0" * 64, "CC-BY-4.0")):
        root = documents(volume, headers, no_findings(volume), model=model)[0]
        assert values(root, "121005") == ["121007"]
        seen += [item.UID for name, item in content(root) if name == "121012"]
        assert "121008" not in {name for name, _ in content(root)}
    assert seen[0] == device_uid(context())
    assert seen[0] != seen[1]


def test_report_region_is_a_closed_box_on_the_strongest_plane():
    volume, headers = source()
    _, regions = documents(volume, headers, findings(volume, ((1, 2),)))
    (group,) = groups(regions)
    (box,) = [item for item in group.ContentSequence if item.ValueType == "SCOORD"]
    assert box.ConceptNameCodeSequence[0].CodeValue == "111030"
    assert box.GraphicType == "POLYLINE"
    assert list(box.GraphicData) == [16, 16, 32, 16, 32, 32, 16, 32, 16, 16]
    image = box.ContentSequence[0]
    assert image.RelationshipType == "SELECTED FROM"
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == volume.planes[1].source.SOPInstanceUID
    assert "2, 3 of 3" in texts(regions, "EXTENT")[0]
    assert "64 mm2" in texts(regions, "EXTENT")[0]


def test_report_region_can_be_taken_over_by_a_viewer():
    volume, headers = source()
    (group,) = groups(documents(volume, headers, findings(volume))[1])
    first = next(item for item in group.ContentSequence if item.ValueType == "NUM")
    own = next(item for item in group.ContentSequence if item.ValueType == "SCOORD")
    (source_of,) = [item for item in first.ContentSequence if item.ValueType == "SCOORD"]
    assert source_of.RelationshipType == "INFERRED FROM"
    assert source_of.ConceptNameCodeSequence[0].CodeValue == "121112"
    assert list(source_of.GraphicData) == list(own.GraphicData)
    assert source_of.ContentSequence[0].RelationshipType == "SELECTED FROM"
    assert texts(group, "121106") == ["AI anomaly 0.97 (RESEARCH)"]
    assert group.ConceptNameCodeSequence[0].CodeMeaning == "Measurement Group"


def test_report_frames_are_named_in_regions_and_source_images():
    volume, headers = multiframe()
    root, regions = documents(volume, headers, findings(volume, ((2,),)))
    (group,) = groups(regions)
    box = next(item for item in group.ContentSequence if item.ValueType == "SCOORD")
    assert box.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 3
    images = [item for item in groups(root)[0].ContentSequence if item.ValueType == "IMAGE"]
    assert [list(item.ReferencedSOPSequence[0].ReferencedFrameNumber) for item in images] == [[1, 2, 3]]


def test_report_each_finding_has_its_own_tracking_pair():
    volume, headers = source()
    regions = documents(volume, headers, findings(volume, ((0,), (2,))))[1]
    uids = ResultUIDs.of(SERIES, context())
    assert texts(regions, "112039") == ["finding-1", "finding-2"]
    assert [item.UID for name, item in content(regions) if name == "112040"] == [
        uids.tracking("finding-1"),
        uids.tracking("finding-2"),
    ]


def test_report_incomplete_series_makes_a_partial_document_that_says_so():
    volume, headers = source()
    root = documents(volume, headers, no_findings(volume), incomplete=True)[0]
    assert root.CompletionFlag == "PARTIAL"
    assert "not all images" in root.CompletionFlagDescription
    assert any("INCOMPLETE" in text for text in texts(root, "121106"))
    assert "incomplete" in texts(root, "COMPLETENESS")[0]


def test_report_later_generation_names_its_predecessors():
    volume, headers = source()
    before = [one.reference for one in build_results(volume, headers, findings(volume), context(), frozenset({"sr"}))]
    root = documents(volume, headers, no_findings(volume), generation=2, supersedes=tuple(before))[0]
    (study,) = root.PredecessorDocumentsSequence
    named = {
        (series.SeriesInstanceUID, item.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert named == {(one.SeriesInstanceUID, one.SOPInstanceUID) for one in before}
    assert root.SOPInstanceUID not in {one.SOPInstanceUID for one in before}
    assert "PredecessorDocumentsSequence" not in documents(volume, headers, no_findings(volume))[0]


def test_report_request_of_the_source_is_referenced():
    request, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "TH1", "99LOCAL", "Thorax"
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "RP1", "SPS1"
    volume, headers = source(RequestAttributesSequence=[request], ProcedureCodeSequence=[code])
    (item,) = documents(volume, headers, no_findings(volume))[0].ReferencedRequestSequence
    assert (item.RequestedProcedureID, item.AccessionNumber) == ("RP1", "ACC1")
    assert item.StudyInstanceUID == SERIES.StudyInstanceUID
    assert item.RequestedProcedureCodeSequence[0].CodeValue == "TH1"
    for keyword in ("PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest"):
        assert keyword in item
    volume, headers = source()
    assert "ReferencedRequestSequence" not in documents(volume, headers, no_findings(volume))[0]


def test_report_two_requests_are_not_mixed_up():
    first, second, code = Dataset(), Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "TH1", "99LOCAL", "Thorax"
    first.RequestedProcedureID, second.RequestedProcedureID = "RP1", "RP2"
    volume, headers = source(RequestAttributesSequence=[first, second], ProcedureCodeSequence=[code])
    for item in documents(volume, headers, no_findings(volume))[0].ReferencedRequestSequence:
        assert not item.RequestedProcedureCodeSequence
        assert not item.AccessionNumber


def test_report_private_codes_belong_to_a_declared_scheme():
    volume, headers = source()
    for document in documents(volume, headers, findings(volume)):
        declared = {item.CodingSchemeDesignator for item in document.CodingSchemeIdentificationSequence}
        used = {item.ConceptNameCodeSequence[0].CodingSchemeDesignator for _, item in content(document)}
        assert {scheme for scheme in used if scheme.startswith("99")} <= declared


def test_report_reference_frame_outside_the_image_is_clipped_to_it():
    volume, headers = source()
    result = findings(volume, ((0,),))
    wide = replace(result.findings[0].regions[0], box=(-3.0, -1.0, 70.0, 64.5))
    result = replace(result, findings=(replace(result.findings[0], regions=(wide,)),))
    box = next(item for _, item in content(documents(volume, headers, result)[1]) if item.ValueType == "SCOORD")
    assert list(box.GraphicData) == [0, 0, 64, 0, 64, 64, 0, 64, 0, 0]


def test_report_planes_that_were_not_looked_at_are_counted_with_their_reasons():
    volume, headers = source()
    result = no_findings(volume)
    planes = (*result.planes[:1], *(replace(plane, left_out="no brain") for plane in result.planes[1:]))
    (root,) = documents(volume, headers, replace(result, planes=planes))
    (text,) = texts(root, "COMPLETENESS")
    assert text.startswith("1 of 3 images analysed")
    assert "Not analysed: 2 x no brain." in text


def test_report_warning_of_the_detector_is_a_comment_and_a_parameter():
    volume, headers = source()
    result = replace(no_findings(volume), parameters={"warning": "no better than a coin"})
    (root,) = documents(volume, headers, result)
    comments = [str(item.TextValue) for item in root.ContentSequence if item.ValueType == "TEXT"]
    assert "no better than a coin" in comments
    assert "warning=no better than a coin" in root.to_json()
