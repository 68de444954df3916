"""The volume document ties each finding to its segment, with its size in stated units."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import DetectionResult, Volume
from dicomnode.report import build_results, to_bytes
from tests.report_fixtures import SERIES, content, context, findings, no_findings, source, texts


def built(volume: Volume, headers: list[Dataset], result: DetectionResult, **changes: object) -> dict[str, Dataset]:
    """Objects by kind, of several the last."""
    kinds = frozenset({"seg", "sr", "sr-volume"})
    return {one.kind: one.dataset for one in build_results(volume, headers, result, context(**changes), kinds)}


def groups(document: Dataset) -> list[Dataset]:
    return [item for name, item in content(document) if name == "125007"]


def numbers(group: Dataset) -> dict[str, tuple[float, str]]:
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: (
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }


def referenced(group: Dataset) -> Dataset:
    (segment,) = [item for name, item in content(group) if name == "121191"]
    return segment.ReferencedSOPSequence[0]


def test_report_sr_volume_refers_to_the_segments_of_the_segmentation_that_is_sent():
    volume, headers = source("CT", 3)
    objects = built(volume, headers, findings(volume, ((0, 1), (2,))))
    seg, document = objects["seg"], objects["sr-volume"]
    assert [group.ContentTemplateSequence[0].TemplateIdentifier for group in groups(document)] == ["1411", "1411"]
    for number, group in enumerate(groups(document), start=1):
        reference = referenced(group)
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == number
        source_series = [item.UID for name, item in content(group) if name == "121232"]
        assert source_series == [SERIES.SeriesInstanceUID]
        finding = [item.ConceptCodeSequence[0].CodeMeaning for name, item in content(group) if name == "121071"]
        assert finding == ["Abnormal"]


def test_report_sr_volume_evidence_holds_the_segmentation_and_every_source_image():
    volume, headers = source("CT", 3)
    objects = built(volume, headers, findings(volume))
    (study,) = objects["sr-volume"].CurrentRequestedProcedureEvidenceSequence
    evidence = {
        one.SeriesInstanceUID: [item.ReferencedSOPInstanceUID for item in one.ReferencedSOPSequence]
        for one in study.ReferencedSeriesSequence
    }
    assert evidence == {
        SERIES.SeriesInstanceUID: [plane.source.SOPInstanceUID for plane in volume.planes],
        objects["seg"].SeriesInstanceUID: [objects["seg"].SOPInstanceUID],
    }


def test_report_sr_volume_states_heat_and_volume_with_units():
    volume, headers = source("CT", 3)
    (group,) = groups(built(volume, headers, findings(volume, ((1, 2),)))["sr-volume"])
    voxel = 0.5 * 0.5 * 5.0
    assert numbers(group) == {"Anomaly heat": (0.97, "{score}"), "Volume": (2 * 16 * 16 * voxel, "mm3")}


def test_report_sr_volume_counts_shared_pixels_of_a_finding_once():
    volume, headers = source("CT", 3)
    result = findings(volume, ((1,),))
    (finding,) = result.findings
    twice = replace(result, findings=(replace(finding, regions=finding.regions * 2),))
    (group,) = groups(built(volume, headers, twice)["sr-volume"])
    assert numbers(group)["Volume"] == (16 * 16 * 0.5 * 0.5 * 5.0, "mm3")


@pytest.mark.parametrize(
    ("modality", "planes", "size"),
    [("CT", 1, {"Area": (64.0, "mm2")}), ("DX", 1, {}), ("CT", 3, {})],
    ids=["single slice", "radiograph without Pixel Spacing", "uneven slices"],
)
def test_report_sr_volume_states_no_size_that_the_source_does_not_give(modality, planes, size):
    volume, headers = source(modality, planes)
    volume = replace(volume, slice_spacing=None)
    on = ((0, 1),) if planes > 1 else ((0,),)
    (group,) = groups(built(volume, headers, findings(volume, on))["sr-volume"])
    stated = numbers(group)
    del stated["Anomaly heat"]
    assert stated == size


def test_report_sr_volume_needs_findings():
    volume, headers = source("CT", 3)
    assert set(built(volume, headers, no_findings(volume))) == {"sr"}


def test_report_sr_volume_of_radiographs_refers_to_the_object_of_each_image():
    volume, headers = source("DX", 2)
    result = findings(volume, ((0,), (0, 1)))
    kinds = frozenset({"seg", "sr-volume"})
    objects = [one.dataset for one in build_results(volume, headers, result, context(), kinds)]
    segs, document = objects[:2], objects[2]
    where = [(referenced(g).ReferencedSOPInstanceUID, referenced(g).ReferencedSegmentNumber) for g in groups(document)]
    assert where == [(segs[0].SOPInstanceUID, 1), (segs[0].SOPInstanceUID, 2), (segs[1].SOPInstanceUID, 1)]
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    series = {one.SeriesInstanceUID for one in study.ReferencedSeriesSequence}
    assert series == {SERIES.SeriesInstanceUID, *(seg.SeriesInstanceUID for seg in segs)}


def test_report_sr_volume_says_what_the_other_documents_say_and_stays_the_same():
    volume, headers = source("CT", 3)
    result = replace(findings(volume), parameters={"warning": "Not validated for children"})
    changes = {"incomplete": True, "replaces_earlier": True}
    once, again = (built(volume, headers, result, **changes)["sr-volume"] for _ in range(2))
    assert to_bytes(once) == to_bytes(again)
    said = texts(once, "121106")
    for text in (context().banner, "INCOMPLETE SERIES: not all images were received", "Not validated for children"):
        assert text in said
    assert once.CompletionFlag == "PARTIAL"
    assert once.SeriesNumber == 9004
    assert [item.ValueType for name, item in content(once) if name == "111028"] == ["CONTAINER"]
