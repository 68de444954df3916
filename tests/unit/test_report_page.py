"""The report page says every figure with its unit, identifies the patient, and reads the same every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dicomnode.detectors.contract import Finding, ModelIdentity, Outcome
from dicomnode.report import build_results, to_bytes
from dicomnode.report.page_content import DISCLAIMER, PageContent, number_ranges, result_content
from dicomnode.report.page_layout import A4, SCREEN, lying, upright
from dicomnode.report.page_patient import USE_THE_ID, date_time, patient_name
from dicomnode.report.page_pen import Palette, Pen
from dicomnode.report.page_pictures import Gallery, Shot, chosen, colour_bar, gallery
from dicomnode.report.page_typeface import BOLD, REGULAR, UNWRITABLE, outlines, writable, written
from dicomnode.report.status import StatusStatement, status_content
from tests.report_fixtures import context, findings, header, multiframe, no_findings, source

INK = Palette(*[(0, 0, 0)] * 8)
PARAMETERS = {
    "region heat": "0.9",
    "validation": "val: AUROC per image 0.712, 95 % interval 0.655 to 0.768",
    "validation AUROC": "0.71 (0.66-0.77)",
    "warning": "In validation this model did not tell diseased from healthy images",
}


def content(found: bool = True, **changes: object) -> PageContent:
    volume, headers = source("CT", 12)
    result = findings(volume, ((1, 2, 3, 7), (9,))) if found else no_findings(volume)
    left_out = tuple(replace(p, left_out="too dark" if n == 0 else "") for n, p in enumerate(result.planes))
    result = replace(result, parameters=PARAMETERS, planes=left_out)
    return result_content(volume, headers, result, context(**changes))


def page_of(volume, headers, result, **changes):
    (one,) = build_results(volume, headers, result, context(**changes), frozenset({"page"}))
    return one.dataset


def pixels_of(dataset) -> np.ndarray:
    size = dataset.Rows * dataset.Columns * 3
    return np.frombuffer(dataset.PixelData[:size], np.uint8).reshape(dataset.Rows, dataset.Columns, 3)


def test_page_says_every_figure_with_its_unit():
    said = content()
    figures = [(one.label, one.value, one.unit) for one in said.figures]
    assert figures == [
        ("Series score", "0.98", "scale 0 to 1"),
        ("Threshold", "0.95", "same scale"),
        ("False positives", "5 %", "of healthy patients, expected"),
    ]
    text = dict(said.statements)["What the score means"]
    assert "share of healthy patients below, 0 to 1" in text
    assert "120 healthy patients" in text
    assert "0.0123 mean residual" in text
    assert dict(said.statements)["Validation of the model"].startswith("val: AUROC per image 0.712, 95 % interval")


def test_page_lists_each_finding_hottest_first_with_place_heat_and_area():
    first, second = content().findings
    assert first.name == "finding-1"
    assert first.images == "2–4, 8 of 12"
    assert (first.source, first.position, first.heat, first.area) == ("no. 12", "z = 5.0 mm", "0.97", "64 mm²")
    assert second.images == "10 of 12"


def test_page_of_a_radiograph_knows_no_position_and_no_area():
    volume, headers = source("DX", 1)
    line = result_content(volume, headers, findings(volume, ((0,),)), context()).findings[0]
    assert (line.position, line.area) == ("projection", "unknown")


def test_page_of_frames_names_the_frame():
    volume, headers = multiframe()
    assert result_content(volume, headers, findings(volume), context()).findings[0].source == "frame 2"


def test_page_says_how_much_was_analysed_and_what_was_left_out():
    said = content(incomplete=True, generation=2, replaces_earlier=True)
    assert ("Images", "11 of 12 analysed") in said.series
    assert ("Series state", "closed incomplete") in said.series
    assert ("Generation", "2, replaces an earlier result") in said.series
    assert "1 x too dark" in dict(said.statements)["What was analysed"]
    assert len(said.notices) == 3


def test_page_names_detector_weights_licence_software_and_time_with_its_zone():
    facts = dict(content().method)
    assert facts["Detector"] == "ct-head 1.0.0"
    assert facts["Model"] == "ct-head-aeu 1.2.0"
    assert facts["Weights"].startswith("SHA-256 ab12cd34")
    assert facts["Licence"] == "CC-BY-4.0 (weights)"
    assert facts["Software"] == "dicomnode 0.1.0, DICOMNODE"
    assert facts["AUROC"] == "0.71 (0.66-0.77) in validation"
    assert facts["Analysis"] == "2026-11-21 06:30:01 UTC+00:00"


def test_page_time_is_in_the_zone_of_the_source():
    volume, headers = source("CT", 1, TimezoneOffsetFromUTC="-0330")
    said = result_content(volume, headers, no_findings(volume), context())
    assert dict(said.method)["Analysis"] == "2026-11-21 03:00:01 UTC-03:30"


def test_page_identifies_patient_and_order():
    facts = dict(content().patient)
    assert facts["Patient"] == "Phantom, Synthetic"
    assert facts["Patient ID"] == "PHANTOM-1"
    assert facts["Born"] == "1950-01-01"
    assert facts["Accession no."] == "ACC1"
    assert facts["Study date"] == "2026-01-05"


def test_page_says_absent_identification_is_not_given():
    volume, headers = source("CT", 1, PatientName="", PatientBirthDate=None, AccessionNumber=None)
    facts = dict(result_content(volume, headers, no_findings(volume), context()).patient)
    assert facts["Patient"] == facts["Born"] == facts["Accession no."] == "not given"


def test_page_without_findings_does_not_call_the_images_normal():
    said = content(found=False)
    assert (said.outcome, said.headline, said.alarming) == (Outcome.NO_FINDINGS, "NO FINDINGS", False)
    assert "does not rule out disease" in said.subline
    assert "normal" not in (said.headline + said.subline).lower()
    assert "not a medical device" in DISCLAIMER


def test_page_refuses_a_result_without_score():
    volume, headers = source("CT", 1)
    with pytest.raises(ValueError, match="without score"):
        result_content(volume, headers, replace(no_findings(volume), outcome=Outcome.FAILED, score=None, reason="x"),
                       context())  # fmt: skip


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou"),
        ("Hong^Gildong=洪^吉洞=홍^길동", "Hong, Gildong"),
        ("Wang^XiaoDong=王^小东", "Wang, XiaoDong"),
        ("Люкceмбypг", "Люкceмбypг"),
        ("Διονυσιος", "Διονυσιος"),
        ("Buc^Jérôme^^Dr^PhD", "Buc, Jérôme, Dr PhD"),
        ("Nguyễn^Thị", "Nguyễn, Thị"),
        ("山田^太郎", USE_THE_ID),
        ("=山田^太郎", USE_THE_ID),
        ("홍^길동", USE_THE_ID),
        ("قباني^لنزار", USE_THE_ID),
        ("שרון^דבורה", USE_THE_ID),
        ("สมชาย", USE_THE_ID),
        ("^", "not given"),
    ],
)
def test_page_writes_a_name_right_or_says_that_it_does_not(stated: str, shown: str):
    assert patient_name(header(PatientName=stated)) == shown


def test_page_with_a_name_that_it_cannot_write_is_still_made():
    volume, headers = source(
        "CT", 1, PatientName="山田^太郎", SeriesDescription="頭部", SpecificCharacterSet="ISO_IR 192"
    )
    said = result_content(volume, headers, no_findings(volume), context())
    assert dict(said.series)["Series"] == f"no. 2, {UNWRITABLE}"
    assert page_of(volume, headers, no_findings(volume)).PatientName == "山田^太郎"


def test_page_text_has_no_controls_and_marks_what_it_cannot_write():
    assert written("a\r\nb\u202ec\u200d 頭") == "a bc □"
    assert not writable("e\u0303\u0333")
    assert writable("ñ")


def test_page_typefaces_have_all_letters_of_latin_greek_and_cyrillic():
    letters = [
        chr(code) for code in (*range(0x20, 0x7F), *range(0xA1, 0x180), *range(0x391, 0x3A2), *range(0x400, 0x460))
    ]
    assert all(writable(letter) for letter in letters if letter != "\xad")
    for name in (REGULAR, BOLD):
        assert outlines(name).face.name.decode() == name


def test_page_number_ranges_are_short():
    assert number_ranges({1, 2, 3, 7, 9, 10}) == "1–3, 7, 9–10"


def test_page_acquisition_time_is_copied_never_invented():
    assert date_time(header(AcquisitionDateTime="20260105101500")) == "20260105101500"
    assert date_time(header(AcquisitionDate="20260105", AcquisitionTime="101500")) == "20260105101500"
    assert date_time(header()) is None


def test_page_is_an_rgb_secondary_capture_with_identification_declared():
    volume, headers = source("CT", 3)
    one = page_of(volume, headers, findings(volume))
    assert (one.SOPClassUID, one.Modality, one.ConversionType) == ("1.2.840.10008.5.1.4.1.1.7", "OT", "WSD")
    assert (one.Rows, one.Columns, one.PhotometricInterpretation) == (1200, 1600, "RGB")
    assert (one.BurnedInAnnotation, one.SeriesNumber) == ("YES", 9010)
    assert [item.ReferencedSOPInstanceUID for item in one.SourceImageSequence] == [
        plane.source.SOPInstanceUID for plane in volume.planes
    ]
    assert one.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert "PixelSpacing" not in one
    assert "FrameOfReferenceUID" not in one
    assert one.SeriesDescription == "AI ct-head report: Axial (RESEARCH)"


@pytest.mark.parametrize("modality", ["CT", "MR", "CR", "DX"])
@pytest.mark.parametrize("found", [True, False])
def test_page_gives_the_same_bytes_again(modality: str, found: bool):
    volume, headers = source(modality, 3)
    result = findings(volume) if found else no_findings(volume)
    assert to_bytes(page_of(volume, headers, result)) == to_bytes(page_of(volume, headers, result))


def test_page_banner_is_drawn_in_its_colour_at_the_bottom_centre():
    volume, headers = source("CT", 1)
    pixels = pixels_of(page_of(volume, headers, no_findings(volume)))
    rows, columns = np.nonzero((pixels == (255, 214, 0)).all(axis=2))
    assert rows.min() > 1050
    assert abs(columns.mean() - 800) < 20


def test_page_keeps_its_upper_and_lower_edge_free_for_the_viewer():
    volume, headers = source("CT", 40)
    pixels = pixels_of(page_of(volume, headers, findings(volume)))
    assert not pixels[:40].any()
    assert not pixels[-40:].any()
    assert not pixels[:, :50].any()


def test_page_shows_the_strongest_image_of_each_finding_first():
    volume, _ = source("CT", 6)
    result = findings(volume, ((4,), (1, 2)))
    warm = replace(result, findings=(replace(result.findings[0], score=0.91), result.findings[1]))
    assert chosen(warm, 3) == (1, 4, 2)


def test_page_never_shows_an_image_that_was_left_out_as_strongest():
    volume, _ = source("CT", 3)
    result = no_findings(volume)
    planes = (replace(result.planes[0], score=0.9, left_out="dark"), *result.planes[1:])
    assert chosen(replace(result, planes=planes), 2) == (1, 2)


def test_page_picture_has_the_shape_of_the_body_and_names_its_sides():
    volume, headers = source("CT", 2, (64, 32))
    shot = gallery(volume, headers, findings(volume, ((0,),)), context()).shots[0]
    assert shot.aspect == pytest.approx(0.5)
    assert (shot.left, shot.top) == ("R", "A")
    assert shot.caption == "Image 1 of 2 (no. 11), z = 0.0 mm"


def test_page_colour_bar_is_grey_where_heat_is_not_shown():
    bar = colour_bar(0.7)[0]
    assert (bar[: int(0.69 * 200)] == 90).all()
    assert (bar[int(0.72 * 200) :] != 90).any(axis=1).all()


class Recorder:
    """A painter that remembers where it wrote: (left, top, right, bottom, text)."""

    def __init__(self) -> None:
        self.boxes: list[tuple[float, float, float, float, str]] = []
        self.pictures: list[tuple[float, float, float, float]] = []

    def width(self, text: str, size: float, *, bold: bool) -> float:
        return outlines(BOLD if bold else REGULAR).stringWidth(text, size)

    def text(self, at, text, size, colour, *, bold) -> None:
        self.boxes.append(
            (at[0], at[1] - 0.72 * size, at[0] + self.width(text, size, bold=bold), at[1] + 0.1 * size, text)
        )

    def area(self, box, colour) -> None: ...

    def line(self, ends, colour, thickness) -> None: ...

    def image(self, box, pixels) -> None:
        self.pictures.append(box)


def overlaps(recorder: Recorder) -> list[tuple[str, str]]:
    """Texts that lie on another text or on a picture; the letters for sides lie on pictures on purpose."""
    texts = [box for box in recorder.boxes if len(box[4]) > 1]
    others = [*texts, *((*box, "picture") for box in recorder.pictures)]
    return [
        (one[4], other[4])
        for n, one in enumerate(texts)
        for other in others[n + 1 :]
        if one[0] < other[2] - 0.5 and other[0] < one[2] - 0.5 and one[1] < other[3] - 0.3 and other[1] < one[3] - 0.3
    ]


def test_page_overlap_is_seen_by_this_test():
    recorder = Recorder()
    recorder.text((40, 40), "one", 8, (0, 0, 0), bold=False)
    recorder.text((44, 42), "two", 8, (0, 0, 0), bold=False)
    recorder.image((30, 100, 60, 120), THUMBS)
    recorder.text((40, 110), "three", 8, (0, 0, 0), bold=False)
    assert overlaps(recorder) == [("one", "two"), ("three", "picture")]


WORDS = st.text(st.sampled_from("Wi. -éЖm"), max_size=200)
THUMBS = np.zeros((400, 1200, 3), np.uint8)


def pictures(n: int, aspect: float) -> Gallery:
    shots = tuple(Shot(np.zeros((8, 8, 3), np.uint8), aspect, "c" * 90, "d" * 90, "R", "A") for _ in range(min(n, 2)))
    long = n > 2
    return Gallery(shots, THUMBS if long else None, "t" * 160, (0.5,) * n if n > 7 else (), frozenset({0}), 0.7, 0.9)


@settings(max_examples=15, deadline=None)
@given(WORDS, WORDS, WORDS, st.integers(0, 30), st.sampled_from([1, 2, 40, 900]), st.sampled_from([0.3, 1.0, 3.5]))
@example("W" * 200, "W W" * 66, "W" * 64, 30, 900, 0.3)
@example("Wi " * 66, "W" * 200, "W" * 64, 30, 40, 3.5)
def test_page_texts_never_lie_on_each_other_nor_outside_the_sheet(first, second, third, n_findings, n, aspect):
    said = content(incomplete=True, replaces_earlier=True)
    facts = tuple((label, written(third)[:64]) for label, _ in said.patient)
    said = replace(
        said,
        patient=facts,
        series=tuple((label, written(first)) for label, _ in said.series),
        method=tuple((label, written(second)) for label, _ in said.method),
        statements=tuple((label, written(first + " " + second)) for label, _ in said.statements),
        notices=(written(second),) * 3,
        findings=said.findings[:1] * n_findings,
        banner=("RESEARCH " + written(third))[:64],
    )
    for write, size in ((upright, A4), (lying, SCREEN)):
        for shown in (pictures(n, aspect), None):
            recorder = Recorder()
            write(Pen(recorder, INK, 8.0), said, shown)
            assert not overlaps(recorder)
            assert all(box[0] >= 20 and box[2] <= size[0] - 15 and box[1] >= 18 for box in recorder.boxes)
            assert all(box[3] <= size[1] - 15 for box in recorder.boxes)


def test_page_of_thirty_findings_says_how_many_it_does_not_list():
    volume, headers = source("CT", 30)
    result = findings(volume, tuple((n,) for n in range(30)))
    for write in (upright, lying):
        recorder = Recorder()
        write(Pen(recorder, INK, 8.0), result_content(volume, headers, result, context()), pictures(30, 1.0))
        texts = [box[4] for box in recorder.boxes]
        listed = sum(text.startswith("finding-") for text in texts)
        assert listed >= 4
        assert listed == 30 or any(text.startswith(f"and {30 - listed} more") for text in texts)


def test_page_status_and_results_share_the_words_for_who_made_it():
    known = context(model=ModelIdentity("m", "1", "ab" * 32, "MIT"))
    said = status_content([header()], StatusStatement(Outcome.FAILED, "why", "", 1), known)
    assert dict(said.method)["Weights"] == "SHA-256 abababababababab…"


def test_page_findings_of_equal_heat_keep_their_order():
    volume, headers = source("CT", 3)
    result = findings(volume, ((0,), (1,), (2,)))
    equal = tuple(Finding(one.tracking_id, one.regions, 0.97) for one in result.findings)
    lines = result_content(volume, headers, replace(result, findings=equal), context()).findings
    assert [line.name for line in lines] == ["finding-1", "finding-2", "finding-3"]


@pytest.mark.parametrize("write", [upright, lying])
def test_page_never_cuts_a_patient_id(write):
    """64 letters (VR LO), the widest."""
    volume, headers = source("CT", 1, PatientID="W" * 64)
    recorder = Recorder()
    write(Pen(recorder, INK, 8.0), result_content(volume, headers, no_findings(volume), context()), pictures(1, 1.0))
    assert sum(box[4].count("W") for box in recorder.boxes if set(box[4]) == {"W"}) == 64


def test_report_page_spells_the_hat_of_an_estimate_out():
    assert written("exp(-s)(x - x\N{COMBINING CIRCUMFLEX ACCENT})²") == "exp(-s)(x - xhat)²"
