"""What the objects of one result set share is the same as if each had its own, and nobody changes it."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from dicomnode.report import Encoder, iter_results, to_bytes
from dicomnode.report.colours import blended
from dicomnode.report.lettering import fitted, font_of, write
from dicomnode.report.overlay import tinted
from dicomnode.report.patterns import element, held, like
from dicomnode.report.selfcheck import Evidence, NonConformant, checked
from dicomnode.report.transcribe import distinct, legible, said
from dicomnode.report.window import Window, grey
from tests.report_fixtures import context, findings, header, no_findings, source
from tests.selfcheck_cases import results


@pytest.mark.parametrize("what", ["CT", "no findings", "DX", "frames"])
def test_report_an_object_is_not_changed_by_those_after_it(what: str) -> None:
    """Each object is checked and encoded as it comes: what it shares with later ones stays as it was then."""
    _, evidence = results(what)
    one, of_set = results(what)[0], Encoder()
    assert [to_bytes(item.dataset, of_set) for item in one] == [to_bytes(item.dataset) for item in one]
    volume, headers = source("CT", n=14)
    result = no_findings(volume) if what == "no findings" else findings(volume)
    made, then, encoder = [], [], Encoder()
    for item in iter_results(volume, headers, result, context()):
        made.append(item)
        then.append(to_bytes(item.dataset, encoder))
    assert [to_bytes(item.dataset) for item in made] == then
    assert evidence.sources


def test_report_one_source_is_referred_to_by_one_item() -> None:
    """A Series of 1000 images is referred to in six places: building, checking and encoding meet the same item."""
    volume, headers = source("CT", n=14)
    objects = list(iter_results(volume, headers, findings(volume), context(), frozenset({"sc", "sr"})))
    montage, reports = objects[0].dataset, [one.dataset for one in objects if one.kind == "sr"]
    referred = montage.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    for report in reports:
        evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        assert [id(one) for one in evidence.ReferencedSOPSequence] == [id(one) for one in referred]


def test_selfcheck_a_fault_in_a_shared_part_is_found_in_whatever_object_has_it_first() -> None:
    """What passed once is not judged again; what did not pass never counts as judged."""
    volume, headers = source("CT", n=14)
    own = legible(headers)
    references = tuple(dict.fromkeys(plane.source for plane in volume.planes))
    for kinds in ({"sc"}, {"sr"}, {"sc", "sr"}):
        objects = list(iter_results(volume, own, findings(volume), context(), frozenset(kinds)))
        shared = next(
            one.dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
            if one.kind == "sc"
            else one.dataset.CurrentRequestedProcedureEvidenceSequence[0]
            .ReferencedSeriesSequence[0]
            .ReferencedSOPSequence[0]
            for one in objects
        )
        good, shared.ReferencedSOPInstanceUID = shared.ReferencedSOPInstanceUID, "2.25.4711"
        with pytest.raises(NonConformant, match="ReferencedSOPInstanceUID"):
            list(checked(objects, Evidence(references, own, context())))
        shared.ReferencedSOPInstanceUID = good
        assert list(checked(objects, Evidence(references, own, context())))


def test_report_words_are_written_as_pillow_writes_them() -> None:
    """Words that are kept as masks give the same pixels, wherever and however often they are written."""
    chance = random.Random(7)
    for _ in range(300):
        text = chance.choice(["RESEARCH - NOT FOR CLINICAL USE", "0.97", "jgy_A", "  x", "Anomaly heat, 0 to 1"])
        size, anchor = chance.choice([11, 14, 18, 22]), chance.choice(["la", "ls", "lm", "ma", "rs"])
        at = chance.uniform(150, 250), chance.choice([chance.uniform(30, 90), 41.0])
        expected, own = (Image.new("RGB", (500, 130), (18, 18, 20)) for _ in range(2))
        ImageDraw.Draw(expected).text(at, text, (236, 10, 99), font_of(size), anchor=anchor)
        write(ImageDraw.Draw(own), at, text, size, (236, 10, 99), anchor)
        assert own.tobytes() == expected.tobytes(), (text, size, anchor, at)


def test_report_words_that_do_not_fit_are_cut_visibly() -> None:
    """A long name never runs over what is beside it."""
    text, size = fitted("a detector with a very long name", 20, 120.0)
    assert (text[-3:], size) == ("...", 16)
    assert font_of(size).getlength(text) <= 120.0


@pytest.mark.parametrize("scale", [1, 2])
def test_report_colour_lies_on_all_heat_and_nothing_else(scale: int) -> None:
    """Only the part that is hot is worked on: the picture is that of working on the whole."""
    chance = np.random.default_rng(3)
    base, heat = chance.integers(0, 256, (40, 50)).astype(np.uint8), np.zeros((40, 50), np.float32)
    heat[10:20, 30:45], heat[0, 0] = chance.uniform(0.5, 1.4, (10, 15)), np.nan if scale == 1 else 0.0
    wide = base.repeat(scale, 0).repeat(scale, 1)
    expected, hot = np.stack([wide] * 3, axis=2), heat
    if scale > 1:
        hot = np.asarray(Image.fromarray(heat).resize((100, 80), Image.Resampling.BILINEAR))
    shown = np.nan_to_num(hot) >= 0.7
    expected[shown] = blended(expected[shown], np.clip(hot[shown], 0.0, 1.0), 0.7)
    assert shown.any()
    assert np.array_equal(tinted(base, heat, 0.7, scale), expected)


def test_report_grey_values_that_are_no_numbers_are_black() -> None:
    """A plane with gaps is drawn like any other, and nothing is said about them by numpy."""
    pixels = np.array([[np.nan, -np.inf, np.inf, 40.0]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert grey(pixels, Window(40.0, 80.0, "HU", "")).tolist() == [[0, 0, 255, 129]]
    assert np.isnan(pixels[0, 0])


def test_report_of_headers_that_say_the_same_one_is_read() -> None:
    """Attributes that all images of a Series have alike are decoded once; none that differs is passed over."""
    headers = [header("CT", index, SeriesNumber=2 + index // 2) for index in range(4)]
    del headers[3].SeriesNumber
    assert [id(one) for one in distinct(headers, "SeriesNumber")] == [id(headers[n]) for n in (0, 2, 3)]
    assert said(headers[0], "Modality", "SeriesNumber") == said(headers[1], "Modality", "SeriesNumber")
    assert said(headers[0], "SeriesNumber") != said(headers[2], "SeriesNumber") != said(headers[3], "SeriesNumber")


def test_report_items_made_after_a_pattern_have_state_of_their_own() -> None:
    """An item is a Dataset like any other: it shares elements with its pattern, and nothing else."""
    pattern = Dataset()
    pattern.ValueType, pattern.Modality = "NUM", "CT"
    one, two = (like(pattern, element("Modality", "CS", name)) for name in ("MR", "DX"))
    assert (one.Modality, two.Modality, pattern.Modality, one.ValueType) == ("MR", "DX", "CT", "NUM")
    assert held(one, "ValueType") is held(pattern, "ValueType")
    assert held(one, "PatientID") is None
    for name, value in vars(Dataset()).items():
        mine = vars(one)[name]
        assert name == "_dict" or mine == value, name
        assert mine is not vars(two)[name] or not isinstance(mine, dict), name
