"""The Key Object Selection flags every source image with a finding once, and never speaks without findings."""

from __future__ import annotations

from dataclasses import replace

from pydicom.dataset import Dataset

from dicomnode.report import to_bytes
from dicomnode.report.key_objects import key_objects
from dicomnode.report.part10 import add_file_meta
from dicomnode.report.sr_document import root_document
from tests.report_fixtures import content, context, findings, multiframe, no_findings, source, texts


def built(volume, headers, result, **changes) -> Dataset:
    (one,) = key_objects(volume, headers, result, context(**changes))
    return one


def flagged(document: Dataset) -> list[Dataset]:
    return [item.ReferencedSOPSequence[0] for _, item in content(document) if item.ValueType == "IMAGE"]


def test_key_objects_are_not_made_without_findings():
    volume, headers = source("CT", 3)
    assert list(key_objects(volume, headers, no_findings(volume), context())) == []


def test_key_objects_document_is_of_template_2010_and_titled_of_interest():
    volume, headers = source("CT", 3)
    one = built(volume, headers, findings(volume))
    assert one.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.59"
    assert one.Modality == "KO"
    assert one.ContentTemplateSequence[0].TemplateIdentifier == "2010"
    title = one.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning) == ("113000", "DCM", "Of Interest")
    assert one.ContinuityOfContent == "SEPARATE"
    assert list(one.ReferencedPerformedProcedureStepSequence) == []
    assert "Laterality" not in one


def test_key_objects_flag_each_image_once_and_the_most_suspicious_first():
    volume, headers = source("CT", 5)
    result = findings(volume, ((1, 2, 3), (3,)))
    uids = [item.ReferencedSOPInstanceUID for item in flagged(built(volume, headers, result))]
    assert uids == [volume.planes[index].source.SOPInstanceUID for index in (1, 3, 2)]


def test_key_objects_images_carry_no_concept_name():
    volume, headers = source("CT", 3)
    images = [item for _, item in content(built(volume, headers, findings(volume))) if item.ValueType == "IMAGE"]
    assert images
    assert not any("ConceptNameCodeSequence" in item for item in images)


def test_key_objects_of_a_multi_frame_image_name_its_frames():
    volume, headers = multiframe(4)
    (item,) = flagged(built(volume, headers, findings(volume, ((3, 1),))))
    assert list(item.ReferencedFrameNumber) == [2, 4]
    single, own = source("CT", 3)
    assert "ReferencedFrameNumber" not in flagged(built(single, own, findings(single)))[0]


def test_key_objects_are_all_in_the_evidence_and_nothing_else_is():
    volume, headers = source("CT", 5)
    one = built(volume, headers, findings(volume, ((1,), (3,))))
    (study,) = one.CurrentRequestedProcedureEvidenceSequence
    listed = {item.ReferencedSOPInstanceUID for item in study.ReferencedSeriesSequence[0].ReferencedSOPSequence}
    assert listed == {item.ReferencedSOPInstanceUID for item in flagged(one)}


def test_key_objects_description_says_outcome_score_threshold_model_and_research():
    volume, headers = source("CT", 3)
    one = built(volume, headers, findings(volume), incomplete=True, replaces_earlier=True)
    (text,) = texts(one, "113012")
    for part in (
        "RESEARCH",
        "findings",
        "0.98",
        "threshold 0.95",
        "share of healthy",
        "ct-head 1.0.0",
        "2 of 3 images",
    ):
        assert part in text
    for part in ("ct-head-aeu 1.2.0", "ab12cd34", "INCOMPLETE", "earlier result"):
        assert part in text
    assert str(headers[0].PatientName) not in text


def test_key_objects_are_observed_by_the_same_device_as_the_report():
    volume, headers = source("CT", 3)
    result = findings(volume)
    devices = [
        next(item.UID for name, item in content(document) if name == "121012")
        for document in (built(volume, headers, result), root_document(volume, headers, result, context()))
    ]
    assert devices[0] == devices[1]


def test_key_objects_answer_the_request_of_the_source():
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "RP1", "SPS1"
    volume, headers = source("CT", 3, RequestAttributesSequence=[request])
    one = built(volume, headers, findings(volume))
    assert one.ReferencedRequestSequence[0].RequestedProcedureID == "RP1"


def test_key_objects_are_the_same_on_a_second_run_and_others_with_other_weights():
    def run(**changes) -> bytes:
        volume, headers = source("CT", 3)
        one = built(volume, headers, findings(volume), **changes)
        add_file_meta(one, context())
        return to_bytes(one)

    assert run() == run()
    volume, headers = source("CT", 3)
    model = replace(context().model, sha256="ff" * 32)
    one, other = (built(volume, headers, findings(volume), **changes) for changes in ({}, {"model": model}))
    assert one.SOPInstanceUID != other.SOPInstanceUID
