"""Source headers that are odd, as hospitals have them, cost no result; what we write ourselves stays valid."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicomnode.detectors.contract import Outcome
from dicomnode.report import DerivedObject
from dicomnode.report.build import iter_results
from dicomnode.report.legend import legend_for, series_legend
from dicomnode.report.page_patient import series_facts
from dicomnode.report.scores import percent
from dicomnode.report.selfcheck import Evidence, checked
from dicomnode.report.status import StatusStatement, status_results
from dicomnode.report.window import windows
from tests.report_fixtures import context, findings, source

STATEMENT = StatusStatement(Outcome.NOT_ANALYSED, "the slices are not parallel", "volume", 2)


def _put(header: Dataset, keyword: str, value: object) -> None:
    """Set an attribute as a file may hold it: bytes are kept undecoded."""
    tag, vr = Tag(tag_for_keyword(keyword) or 0), dictionary_VR(keyword)
    if isinstance(value, bytes):
        header[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    else:
        header.add(DataElement(tag, vr, value, validation_mode=config.IGNORE))


def made(modality: str = "CT", detector: str = "ct-head", **changes: object) -> dict[str, DerivedObject]:
    """The first checked object of each kind about a source with ``changes``, status pages included."""
    volume, headers = source(modality, 2 if modality == "CT" else 1)
    for header in headers:
        for keyword, value in changes.items():
            _put(header, keyword, value)
    own, sources = context(detector=detector), [plane.source for plane in volume.planes]
    evidence = Evidence(sources, headers, own)
    objects = list(checked(iter_results(volume, headers, findings(volume, ((0,),)), own), evidence))
    assert list(checked(status_results(sources, headers, STATEMENT, own), evidence))
    return {one.kind: one for one in reversed(objects)}


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("modality", ["CT", "DX"])
@pytest.mark.parametrize(
    "changes",
    [
        {"SeriesNumber": b"abc "},
        {"InstanceNumber": b"ab"},
        {"InstanceNumber": b"99999999999 "},
        {"ImagerPixelSpacing": b"a\\b "},
        {"RescaleSlope": b"1,0 ", "RescaleIntercept": b"-1024 "},
        {"LossyImageCompression": b"01", "LossyImageCompressionRatio": b"10:1"},
        {"FrameOfReferenceUID": "1.02.3"},
        {"PatientOrientation": ["LEFT", "POST"]},
        {"PatientOrientation": "L"},
        {"PatientOrientation": ["l", "p"]},
        {"BodyPartExamined": ["HEAD", "NECK"]},
        {"RequestAttributesSequence": []},
        {"RequestAttributesSequence": [Dataset() for _ in range(5000)]},
        {"AcquisitionDateTime": b"2020.01.01 noon "},
        {"PatientName": b"A" * 1_100_000, "StudyDescription": b"B" * 1_100_000},
    ],
    ids=lambda changes: "+".join(changes) if isinstance(changes, dict) else changes,
)
def test_report_odd_header_costs_no_result(modality, changes):
    objects = made(modality, **changes)
    assert {"sc", "seg", "pm", "gsps", "ko", "sr", "sr-volume", "pdf", "page", "mf-sc"} == set(objects)
    picture = objects["sc"].dataset
    assert list(picture.PatientOrientation or []) in (["L", "P"], ["L", "F"], [])
    assert "RequestAttributesSequence" not in picture
    assert int(picture.InstanceNumber) < 2**31


def test_report_region_code_of_the_source_is_used_only_where_it_is_one():
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator = "69536005", "SCT"
    _put(region, "CodeMeaning", "x" * 70)
    segment = made(AnatomicRegionSequence=[region])["seg"].dataset.SegmentSequence[0]
    assert segment.AnatomicRegionSequence[0].CodeMeaning == "Head"


def test_report_own_descriptions_fit_readers_that_count_bytes():
    objects = made(
        detector="mr-brain-flair", SeriesDescription="Schädel größer " * 4, SpecificCharacterSet="ISO_IR 100"
    )
    for one in objects.values():
        for keyword in ("SeriesDescription", "ContentDescription"):
            assert len(str(one.dataset.get(keyword, "")).encode()) <= 64
        assert one.dataset.SeriesDescription.endswith("(RESEARCH)")
    assert all("RESEARCH" in objects[kind].dataset.ContentDescription for kind in ("seg", "pm"))


@pytest.mark.parametrize(("side", "modifier"), [("L", "Left"), ("R", "Right"), ("", None)])
def test_report_segmentation_states_its_side_with_the_region(side, modifier):
    objects = made("DX", BodyPartExamined="KNEE", Laterality=side)
    (region,) = objects["seg"].dataset.SegmentSequence[0].AnatomicRegionSequence
    items = region.get("AnatomicRegionModifierSequence")
    assert (items[0].CodeMeaning if items else None) == modifier
    assert "Laterality" not in objects["seg"].dataset


def test_report_map_of_a_paired_part_of_unknown_side_does_not_call_it_unpaired():
    dataset = made("DX", BodyPartExamined="KNEE", Laterality="")["pm"].dataset
    assert "FrameAnatomySequence" not in dataset.SharedFunctionalGroupsSequence[0]
    assert dataset.Laterality == ""


def test_report_map_with_padding_states_both_ends_of_its_range():
    volume, headers = source("CT", 3)
    result = findings(volume, ((1,),))
    planes = (replace(result.planes[0], left_out="too few pixels of tissue"), *result.planes[1:])
    (one,) = iter_results(volume, headers, replace(result, planes=planes), context(), frozenset({"pm"}))
    assert one.dataset.FloatPixelPaddingRangeLimit == one.dataset.FloatPixelPaddingValue


@pytest.mark.parametrize(("share", "text"), [(1 / 33, "3 %"), (0.0490196, "4.9 %"), (0.125, "12 %"), (1.0, "100 %")])
def test_report_percentages_claim_no_more_than_they_know(share, text):
    assert percent(share) == text


def test_report_legend_names_the_sides_of_the_picture_and_whose_outcome_it_is():
    volume, headers = source("CT", 3)
    window = windows(volume, "HEAD")[0]
    legend = legend_for(0, volume, headers[0], findings(volume, ((2,),)), context(), window)
    assert ("Edges", "left R, top A") in legend.facts
    assert legend.subline.startswith("series, at threshold")


def test_report_montage_speaks_of_one_hidden_image_in_the_singular():
    volume, headers = source("CT", 3)
    result = findings(volume, ((0, 1, 2),))
    shown = dict(list(enumerate(windows(volume, "HEAD")))[:2])
    assert "1 more with regions is not shown" in series_legend(volume, headers, result, context(), shown).notices[0]


def test_report_page_does_not_print_the_code_for_unpaired():
    _, headers = source("DX", 1, BodyPartExamined="CHEST", ImageLaterality="U")
    assert dict(series_facts(headers))["Body part"] == "CHEST"
