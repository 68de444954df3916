"""The gate lets through what the node makes, stops what contradicts itself, and tells no patient data."""

from __future__ import annotations

import time
from copy import deepcopy
from importlib import resources
from types import SimpleNamespace

import numpy as np
import pytest
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sc import SCImage
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.tag import BaseTag

from dicomnode.detectors.contract import Outcome
from dicomnode.errors import ConfigError, Permanent
from dicomnode.report.build import BUILDERS, build_results
from dicomnode.report.context import DerivedObject
from dicomnode.report.part10 import add_file_meta
from dicomnode.report.selfcheck import Evidence, NonConformant, checked, faults, tables
from dicomnode.report.selfcheck.level import walked
from dicomnode.report.status import StatusStatement, status_results
from tests.report_fixtures import context, findings, header, no_findings, source
from tests.selfcheck_cases import faults_of, good, item_at, put, results

SOURCES = ["CT", "MR", "DX", "CR", "frames", "chest", "no findings"]


@pytest.mark.parametrize("what", SOURCES)
def test_selfcheck_passes_every_object_that_the_node_makes(what):
    objects, evidence = results(what)
    assert {one.kind for one in objects} >= {"sc", "mf-sc", "pm", "sr", "pdf", "page"}
    assert [(one.kind, faults_of(one, evidence)) for one in objects] == [(one.kind, []) for one in objects]
    assert list(checked(objects, evidence)) == list(objects)


@pytest.mark.parametrize("kind", sorted(BUILDERS))
def test_selfcheck_passes_every_kind_on_its_own(kind):
    objects, evidence = results("CT")
    own = [one for one in objects if one.kind == kind]
    assert own
    assert [faults_of(one, evidence) for one in own] == [[]] * len(own)


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": 2, "replaces_earlier": True},
        {"incomplete": True},
        {"uid_root": "1.2.826.0.1.3680043.10.999"},
        {"taken_series_numbers": frozenset({9001, 9105})},
    ],
    ids=["second generation", "incomplete", "own root", "numbers taken"],
)
def test_selfcheck_follows_the_context(changes):
    volume, headers = source("CT", 2)
    own = context(**changes)
    evidence = Evidence([plane.source for plane in volume.planes], headers, own)
    objects = build_results(volume, headers, findings(volume, ((0, 1),)), own)
    assert list(checked(objects, evidence)) == list(objects)


def test_selfcheck_notices_another_context():
    volume, headers = source("CT", 2)
    objects = build_results(volume, headers, no_findings(volume), context())
    evidence = Evidence([plane.source for plane in volume.planes], headers, context(generation=2))
    for one in objects:
        assert "SeriesInstanceUID: not the own, derived one of this document" in faults(one, evidence)


@pytest.mark.parametrize("nested", [False, True], ids=["in the object", "in an item"])
def test_selfcheck_judges_what_comes_after_many_good_objects(nested):
    """What documents share is judged once; a later object with an own mistake is still stopped, wherever it is."""
    objects, evidence = results("CT")
    spoilt = deepcopy(objects[-1].dataset)
    item = Dataset()
    item.UID = "1.2.3.4.5.6.7"
    spoilt.update({"ContentSequence": [item]} if nested else {"UID": item.UID})
    with pytest.raises(NonConformant, match=r"UID: neither of the source, nor registered"):
        list(checked([*objects[:-1], DerivedObject(objects[-1].kind, spoilt)], evidence))


def test_selfcheck_remembers_items_only():
    """An object is gone when the next one is judged, and its id may be the next one's: it is never passed over."""
    objects, _ = results("CT")
    level, passed = walked(objects[-1].dataset), set()
    first, again = list(level.below(passed)), list(level.below(passed))
    assert len(first) > 1
    assert again == [level]


@pytest.mark.parametrize("outcome", [Outcome.NOT_ANALYSED, Outcome.FAILED])
def test_selfcheck_passes_status_pages(outcome):
    volume, headers = source("DX", 1)
    own = context()
    evidence = Evidence([plane.source for plane in volume.planes], headers[:1], own)
    statement = StatusStatement(outcome, "the view is not frontal", "detector", 1)
    pages = list(status_results(evidence.sources, headers[:1], statement, own))
    assert [one.kind for one in checked(pages, evidence)] == ["page", "pdf"]


def test_selfcheck_repeats_identity_that_breaks_its_vr_and_refuses_the_same_elsewhere():
    with pytest.warns(UserWarning, match="Invalid value"):
        volume, headers = source("CT", 1, PatientBirthDate="1950-1-1", PatientSex="female")
    evidence = Evidence([plane.source for plane in volume.planes], headers, context())
    objects = build_results(volume, headers, no_findings(volume), context(), frozenset({"sc", "sr"}))
    assert [faults(one, evidence) for one in objects] == [[]] * 2
    put(objects[0].dataset, "ContentDate", "2026-11-21")
    assert any(fault.startswith("ContentDate: breaks its VR") for fault in faults(objects[0], evidence))


def test_selfcheck_tells_no_value_of_patient_or_study():
    objects, evidence = results("CT")
    secrets = {str(value) for value in ("SECRET^PERSON", "SECRET-ID", "19330303")}
    for item in (DerivedObject(one.kind, deepcopy(one.dataset)) for one in objects):
        put(item.dataset, "PatientName", "SECRET^PERSON")
        put(item.dataset, "PatientID", "SECRET-ID")
        put(item.dataset, "PatientBirthDate", "19330303")
        put(item.dataset, "StudyDescription", "SECRET^PERSON" * 9)
        told = faults_of(item, evidence)
        assert len(told) >= 4
        assert not any(secret in fault for fault in told for secret in secrets)


def test_selfcheck_stops_the_set_at_the_bad_object_with_a_permanent_error():
    objects, evidence = results("CT")
    bad, _ = good("seg")
    bad.dataset.SegmentationType = "FRACTIONAL"
    passed = []
    with pytest.raises(NonConformant, match=r"result 3 \(seg\) is not sent: SegmentationType") as caught:
        passed.extend(one.kind for one in checked([objects[0], objects[1], bad], evidence))
    assert isinstance(caught.value, Permanent)
    assert not passed or len(passed) == 2


def _only(*documents: str) -> tuple[list[DerivedObject], Evidence]:
    made = [good(document) for document in documents]
    return [item for item, _ in made], made[0][1]


def test_selfcheck_refuses_a_reference_that_resolves_to_nothing():
    objects, evidence = _only("sr", "sr-volume")
    with pytest.raises(NonConformant, match="ReferencedSOPInstanceUID resolves neither"):
        list(checked(objects, evidence))


def test_selfcheck_refuses_a_reference_to_a_segment_that_does_not_exist():
    objects, evidence = _only("seg", "sr", "sr-volume")
    assert list(checked(objects, evidence)) == objects
    segment = item_at(objects[2].dataset, "126010", "125007", "121191")
    segment.ReferencedSOPSequence[0].ReferencedSegmentNumber = 5
    with pytest.raises(NonConformant, match="ReferencedSegmentNumber"):
        list(checked(objects, evidence))


def test_selfcheck_refuses_two_objects_with_one_uid():
    objects, evidence = _only("sr", "sr")
    with pytest.raises(NonConformant, match="SOPInstanceUID: another object has it"):
        list(checked(objects, evidence))


def test_selfcheck_refuses_a_series_of_two_kinds():
    objects, evidence = _only("sc", "page")
    objects[1].dataset.SeriesInstanceUID = objects[0].dataset.SeriesInstanceUID
    with pytest.raises(NonConformant, match="SeriesInstanceUID"):
        list(checked(objects, evidence))


def test_selfcheck_refuses_findings_that_differ_between_documents():
    objects, evidence = _only("sr", "sr-regions", "seg")
    item = objects[2].dataset.SegmentSequence[0]
    item.TrackingID = "finding-9"
    item.TrackingUID = _tracking(evidence, "finding-9")
    with pytest.raises(NonConformant, match="TrackingUID: seg, sr-regions do not track the same findings"):
        list(checked(objects, evidence))


def _tracking(evidence: Evidence, identifier: str) -> str:
    from dicomnode.report import ResultUIDs

    return ResultUIDs.of(evidence.sources[0].series, evidence.context).tracking(identifier)


def test_selfcheck_refuses_absent_beside_regions():
    objects, evidence = _only("sr", "sr-regions")
    finding = item_at(objects[0].dataset, "126010", "125007", "121071").ConceptCodeSequence[0]
    finding.CodeValue, finding.CodeMeaning = "2667000", "Absent"
    score = item_at(objects[0].dataset, "126010", "125007", "ANOMALY_SCORE").MeasuredValueSequence[0]
    score.NumericValue, score.FloatingPointValue = "0.4", 0.4
    with pytest.raises(NonConformant, match="Absent is stated beside"):
        list(checked(objects, evidence))


def test_selfcheck_refuses_regions_without_their_root():
    objects, evidence = _only("sr-regions")
    with pytest.raises(NonConformant, match="root document"):
        list(checked(objects, evidence))


def test_selfcheck_refuses_a_source_image_with_another_class():
    own = header("CT")
    own.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    own.KVP, own.RescaleType, own.ConvolutionKernel = "120", "HU", "B30"
    item = DerivedObject("sc", deepcopy(own))
    add_file_meta(item.dataset, context())
    volume, headers = source("CT", 1)
    told = faults(item, Evidence([plane.source for plane in volume.planes], headers, context()))
    for keyword in ("KVP", "ConvolutionKernel", "RescaleType", "ConversionType", "Modality", "SeriesInstanceUID"):
        assert any(fault.startswith(keyword) for fault in told), keyword
    for keyword in ("SOPInstanceUID", "PatientOrientation", "SourceImageSequence", "ImageType", "PixelData"):
        assert any(fault.startswith(keyword) for fault in told), keyword


def _stock(kind: str, dataset: Dataset) -> list[str]:
    volume, headers = source("CT", 1)
    add_file_meta(dataset, context())
    return faults(DerivedObject(kind, dataset), Evidence([plane.source for plane in volume.planes], headers, context()))


def test_selfcheck_catches_the_gaps_of_highdicom_s_secondary_capture():
    _, (own,) = source("CT", 1)
    image = SCImage.from_ref_dataset(
        own,
        pixel_array=np.zeros((8, 8, 3), np.uint8),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid="1.2.3.4.77",
        sop_instance_uid="1.2.3.4.77.1",
        series_number=9001,
        instance_number=1,
        manufacturer="dicomnode",
        patient_orientation=("L", "P"),
    )
    told = _stock("sc", image)
    for keyword in (
        "ConversionType",
        "SourceImageSequence",
        "BurnedInAnnotation",
        "DerivationDescription",
        "InstanceCreationTime",
        "SeriesDescription",
        "ContributingEquipmentSequence",
        "InstitutionName",
        "ImageComments",
    ):
        assert any(fault.startswith(keyword) for fault in told), keyword


def test_selfcheck_catches_the_gaps_of_highdicom_s_key_object_selection():
    _, (own,) = source("CT", 1)
    document = KeyObjectSelectionDocument(
        evidence=[own],
        content=KeyObjectSelection(standard.DCM.OfInterest, [own]),
        series_instance_uid="1.2.3.4.77",
        series_number=9007,
        sop_instance_uid="1.2.3.4.77.1",
        instance_number=1,
        manufacturer="dicomnode",
    )
    told = _stock("ko", document)
    for said in ("(260753009): no row", "InstanceCreationTime", "ContentTime", "(121012, DCM)", "SeriesDescription"):
        assert any(said in fault for fault in told), said


def test_selfcheck_is_quick_enough_for_long_series():
    """A Series of 300 images has 300 pictures: a few milliseconds of processor each, the tables loaded once."""
    volume, headers = source("CT", 12)
    evidence = Evidence([plane.source for plane in volume.planes], headers, context())
    objects = build_results(volume, headers, no_findings(volume), context(), frozenset({"sc"}))
    list(checked(objects, evidence))
    start = time.process_time()
    list(checked(objects, evidence))
    assert (time.process_time() - start) / len(objects) < 0.012  # 2 to 3 ms; room for a slow machine


def test_selfcheck_tables_know_every_class_of_ours():
    assert set(tables.iods()) == set(tables.OURS)
    sc = tables.merged(tables.SECONDARY_CAPTURE, frozenset())
    assert (sc["ConversionType"].type, sc["PatientName"].type, sc["PixelSpacing"].type) == ("1", "2", "1C")
    assert "KVP" not in sc
    assert tables.merged(tables.SECONDARY_CAPTURE, frozenset({"image-plane"}))["PixelSpacing"].type == "1"


def test_selfcheck_says_clearly_when_highdicom_has_no_tables(monkeypatch):
    monkeypatch.setattr(tables, "_FOLDER", "_moved")
    with pytest.raises(ConfigError, match=r"_moved/sop_class_iod_map\.json: another version is needed"):
        tables.iods.__wrapped__()
    monkeypatch.setattr(resources, "files", lambda _: _Empty())
    with pytest.raises(ConfigError, match="another form"):
        tables.iods.__wrapped__()


class _Empty:
    def joinpath(self, *_: str) -> SimpleNamespace:
        return SimpleNamespace(read_text=lambda encoding: "{}")


def test_selfcheck_repeats_orders_of_the_source_whose_codes_are_incomplete():
    code, order = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "HEAD", "99RIS", ""
    order.RequestedProcedureID, order.RequestedProcedureCodeSequence = "RP1", [code]
    volume, headers = source("CT", 1, RequestAttributesSequence=[order])
    evidence = Evidence([plane.source for plane in volume.planes], headers, context())
    objects = build_results(volume, headers, no_findings(volume), context())
    assert list(checked(objects, evidence)) == list(objects)
    objects[0].dataset.RequestAttributesSequence[0].RequestedProcedureID = "RP2"
    assert any("RequestAttributesSequence" in fault for fault in faults(objects[0], evidence))


def test_selfcheck_does_not_stumble_over_a_source_that_cannot_be_decoded():
    volume, headers = source("CT", 1)
    headers[0][0x00189073] = RawDataElement(BaseTag(0x00189073), "FD", 3, b"abc", 0, False, True)
    evidence = Evidence([plane.source for plane in volume.planes], headers, context())
    objects = build_results(volume, headers, no_findings(volume), context(), frozenset({"sc", "sr"}))
    objects[1].dataset.SOPInstanceUID = objects[1].dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5.6.7"
    assert any(fault.startswith("SOPInstanceUID") for fault in faults(objects[1], evidence))
