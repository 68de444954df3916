"""The presentation state draws what was found where it was found, shows the source as the overlay does, and says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicomnode.detectors.contract import Volume
from dicomnode.report import to_bytes
from dicomnode.report.part10 import add_file_meta
from dicomnode.report.presentation_state import presentation_states
from dicomnode.report.sr_document import regions_document
from dicomnode.report.window import grey, windows
from tests.report_fixtures import content, context, findings, header, multiframe, no_findings, plane_of, source

RESCALE = {"RescaleSlope": "1", "RescaleIntercept": "-1024", "RescaleType": "HU"}


def built(volume, headers, result=None, **changes) -> list[Dataset]:
    return list(presentation_states(volume, headers, result or findings(volume), context(**changes)))


def graphics(dataset: Dataset, kind: str = "GraphicObjectSequence") -> list[tuple[Dataset, Dataset]]:
    """(image reference, object) of everything that lies on a single image."""
    return [
        (annotation.ReferencedImageSequence[0], one)
        for annotation in dataset.GraphicAnnotationSequence
        if "ReferencedImageSequence" in annotation
        for one in annotation.get(kind, [])
    ]


def test_gsps_is_not_made_without_findings():
    volume, headers = source("CT", 3)
    assert built(volume, headers, no_findings(volume)) == []


def test_gsps_draws_every_region_closed_in_pixels_on_its_own_image():
    volume, headers = source("CT", 3)
    result = findings(volume, ((1, 2), (0,)))
    (one,) = built(volume, headers, result)
    drawn = graphics(one)
    regions = {region.plane: region for finding in result.findings for region in finding.regions}
    assert len(drawn) == 3
    for index, (image, graphic) in enumerate(drawn):
        assert image.ReferencedSOPInstanceUID == volume.planes[index].source.SOPInstanceUID
        points = np.array(graphic.GraphicData).reshape(-1, 2)
        assert (points == regions[index].contour).all()
        assert (points[0] == points[-1]).all()
        assert graphic.NumberOfGraphicPoints == len(points)
        assert (graphic.GraphicAnnotationUnits, graphic.GraphicType) == ("PIXEL", "POLYLINE")
        assert (graphic.GraphicDimensions, graphic.GraphicFilled) == (2, "N")


def test_gsps_tracks_findings_by_the_uids_of_the_structured_report():
    volume, headers = source("CT", 3)
    result = findings(volume, ((1, 2), (0,)))
    (one,) = built(volume, headers, result)
    drawn = {graphic.TrackingID: graphic.TrackingUID for _, graphic in graphics(one)}
    written = {text.TrackingID: text.TrackingUID for _, text in graphics(one, "TextObjectSequence")}
    document = regions_document(volume, headers, result, context())
    names = [item.TextValue for name, item in content(document) if name == "112039"]
    uids = [item.UID for name, item in content(document) if name == "112040"]
    assert drawn == written == dict(zip(names, uids, strict=True))


def test_gsps_writes_the_score_beside_the_region_it_belongs_to():
    volume, headers = source("CT", 3)
    result = findings(volume, ((1,),))
    ((_, text),) = graphics(built(volume, headers, result)[0], "TextObjectSequence")
    box = result.findings[0].regions[0].box
    assert list(text.AnchorPoint) == [box[2], box[1]]
    assert text.AnchorPointAnnotationUnits == "PIXEL"
    assert "0.97" in text.UnformattedTextValue
    assert "RESEARCH" in text.UnformattedTextValue


def test_gsps_notice_stands_on_every_image_below_the_centre():
    volume, headers = source("CT", 3)
    (one,) = built(volume, headers, replaces_earlier=True)
    (notice,) = (item for item in one.GraphicAnnotationSequence if "ReferencedImageSequence" not in item)
    (text,) = notice.TextObjectSequence
    assert text.BoundingBoxAnnotationUnits == "DISPLAY"
    left, top = text.BoundingBoxTopLeftHandCorner
    right, bottom = text.BoundingBoxBottomRightHandCorner
    assert left + right == pytest.approx(1.0)
    assert 0.85 <= top < bottom <= 1.0
    for part in ("RESEARCH", "findings", "0.98", "0.95", "ct-head", "earlier result"):
        assert part in text.UnformattedTextValue
    referenced = one.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == volume.planes[0].source.SeriesInstanceUID
    assert len(referenced.ReferencedImageSequence) == 3


def test_gsps_layers_are_declared_in_order():
    volume, headers = source("CT", 3)
    (one,) = built(volume, headers)
    declared = {layer.GraphicLayer: layer.GraphicLayerOrder for layer in one.GraphicLayerSequence}
    assert {item.GraphicLayer for item in one.GraphicAnnotationSequence} == set(declared)
    assert sorted(declared.values()) == list(range(1, len(declared) + 1))


def test_gsps_uses_the_window_of_the_overlay_and_the_rescale_of_the_source():
    volume, headers = source("CT", 2, **RESCALE)
    (one,) = built(volume, headers, findings(volume, ((1,),)))
    (voi,) = one.SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth) == (40, 80)
    assert "ReferencedImageSequence" not in voi
    assert (one.RescaleSlope, one.RescaleIntercept, one.RescaleType) == (1, -1024, "HU")
    assert one.PresentationLUTShape == "IDENTITY"


def test_gsps_different_windows_name_their_images():
    volume, headers = source("CT", 3)
    planes = (replace(volume.planes[0], window=(30.0, 60.0)), *volume.planes[1:])
    (one,) = built(replace(volume, planes=planes), headers)
    named = [
        [image.ReferencedSOPInstanceUID[-1] for image in voi.ReferencedImageSequence]
        for voi in one.SoftcopyVOILUTSequence
    ]
    assert named == [["1"], ["2", "3"]]
    assert [voi.WindowCenter for voi in one.SoftcopyVOILUTSequence] == [30, 40]


def test_gsps_images_with_different_rescale_are_never_in_one_state():
    volume, headers = source("CT", 3, **RESCALE)
    headers[2] = header("CT", 2, **(RESCALE | {"RescaleIntercept": "0"}))
    first, second = built(volume, headers, findings(volume, ((0, 2),)))
    assert [len(one.ReferencedSeriesSequence[0].ReferencedImageSequence) for one in (first, second)] == [2, 1]
    assert (first.RescaleIntercept, second.RescaleIntercept) == (-1024, 0)
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert [len(graphics(one)) for one in (first, second)] == [1, 1]


def test_gsps_shows_an_inverted_source_as_the_overlay_does():
    """MONOCHROME1: values through the state's window, inverted, are the grey of the overlay picture."""
    volume, headers = source("CR", 1, PhotometricInterpretation="MONOCHROME1")
    stored = np.linspace(0, 255, 64 * 64, dtype=np.float32).reshape(64, 64)
    plane = replace(volume.planes[0], pixels=255.0 - stored, window=(100.0, 90.0), stored_min=0.0, stored_max=255.0)
    volume = replace(volume, planes=(plane,))
    (one,) = built(volume, headers, findings(volume, ((0,),)))
    assert one.PresentationLUTShape == "INVERSE"
    voi, (window,) = one.SoftcopyVOILUTSequence[0], windows(volume, "CHEST")
    through = grey(stored, replace(window, centre=float(voi.WindowCenter), width=float(voi.WindowWidth)))
    assert np.abs(255 - through.astype(int) - grey(plane.pixels, window)).max() <= 1


def test_gsps_of_frames_names_the_frame_and_its_own_rescale():
    volume, headers = multiframe(3)
    item = Dataset()
    item.RescaleSlope, item.RescaleIntercept, item.RescaleType = "2", "-1000", "HU"
    shared = Dataset()
    shared.PixelValueTransformationSequence = [item]
    headers[0].SharedFunctionalGroupsSequence = [shared]
    (one,) = built(volume, headers, findings(volume, ((1, 2),)))
    (image,) = one.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert list(image.ReferencedFrameNumber) == [1, 2, 3]
    assert [reference.ReferencedFrameNumber for reference, _ in graphics(one)] == [2, 3]
    assert (one.RescaleSlope, one.RescaleIntercept) == (2, -1000)


def test_gsps_displays_the_whole_of_images_of_any_size_and_shape():
    volume, headers = source("DX", 2, ImagerPixelSpacing=["0.2", "0.25"])
    larger = plane_of(headers[1], 1, (600, 500))
    volume = Volume(volume.summary, (volume.planes[0], larger))
    (one,) = built(volume, headers, findings(volume, ((0,), (1,))))
    corners = [list(area.DisplayedAreaBottomRightHandCorner) for area in one.DisplayedAreaSelectionSequence]
    assert corners == [[64, 64], [500, 600]]
    for area in one.DisplayedAreaSelectionSequence:
        assert list(area.DisplayedAreaTopLeftHandCorner) == [1, 1]
        assert area.PresentationSizeMode == "SCALE TO FIT"
        assert list(area.PresentationPixelAspectRatio) == [4, 5]
        assert "PresentationPixelSpacing" not in area
        assert len(area.ReferencedImageSequence) == 1
    (spaced,) = built(*source("CT", 3))
    assert list(spaced.DisplayedAreaSelectionSequence[0].PresentationPixelSpacing) == [0.5, 0.5]


def test_gsps_outlines_stay_inside_the_image_and_can_be_written():
    volume, headers = source("CT", 1)
    result = findings(volume, ((0,),))
    turn = np.linspace(0, 2 * np.pi, 20001)
    circle = np.stack([32 + 40 * np.cos(turn), 32 + 40 * np.sin(turn)], axis=1).astype(np.float32)
    region = replace(result.findings[0].regions[0], contour=circle)
    result = replace(result, findings=(replace(result.findings[0], regions=(region,)),))
    (one,) = built(volume, headers, result)
    ((_, graphic),) = graphics(one)
    points = np.array(graphic.GraphicData).reshape(-1, 2)
    assert points.min() >= 0
    assert points.max() <= 64
    assert (points[0] == points[-1]).all()
    add_file_meta(one, context())
    assert to_bytes(one)


def test_gsps_turns_and_mirrors_nothing_and_states_its_own_time():
    (one,) = built(*source("CT", 3))
    for keyword in ("ImageRotation", "ImageHorizontalFlip", "ContentDate", "MaskSubtractionSequence"):
        assert keyword not in one
    assert one.Modality == "PR"
    assert (one.PresentationCreationDate, one.PresentationCreationTime) == ("20261121", "063001.000250")
    assert one.ContentLabel == one.ContentLabel.upper()


def test_gsps_is_the_same_on_a_second_run():
    def run() -> list[bytes]:
        made = built(*source("CT", 3))
        for one in made:
            add_file_meta(one, context())
        return [to_bytes(one) for one in made]

    assert run() == run()
