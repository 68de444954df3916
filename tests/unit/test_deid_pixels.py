"""The pixel policy: held back on risk, and on writing that no mask covers."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from dicomnode.deid.masks import PixelSettings, pixel_settings
from dicomnode.deid.pixels import FACE_LEFT, MASKED_BY_LOOK, NOT_LOOKED_AT, PixelCleaner
from dicomnode.errors import Permanent
from tests.deid_pictures import CT, SC, US, image, smooth_picture, written

WORDS = "SAMPLE QUENTIN 88321"


@pytest.fixture(autouse=True)
def no_engine(monkeypatch, tmp_path):
    """No program of this machine is called unless a test puts one on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def policy(**settings) -> PixelCleaner:
    return PixelCleaner(PixelSettings(**settings))


def with_words() -> np.ndarray:
    return written(smooth_picture(), WORDS, (10, 10), 16)[0]


@pytest.mark.parametrize(
    ("sop_class", "values", "held"),
    [
        (CT, {"BurnedInAnnotation": "YES"}, True),
        (CT, {}, False),
        (CT, {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, True),
        (CT, {"ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"]}, True),
        (CT, {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, False),
        (US, {"Modality": "US"}, True),
        (US, {"Modality": "US", "BurnedInAnnotation": "NO"}, False),
        ("1.2.840.10008.5.1.4.1.1.3.1", {"Modality": "US"}, True),
        (SC, {"Modality": "OT"}, True),
        ("1.2.840.10008.5.1.4.1.1.77.1.4", {"Modality": "XC"}, True),
        ("1.2.840.10008.5.1.4.1.1.12.1", {"Modality": "XA"}, True),
    ],
)
def test_the_header_holds_back(sop_class, values, held):
    """D21: BurnedInAnnotation YES; or not NO and US, SC, XC, VL, XA; or Image Type says screen save."""
    dataset = image(smooth_picture(), sop_class, **values)
    before = dataset.PixelData
    decision = policy().examine(dataset)
    assert (decision.hold is not None, decision.codes, decision.masked) == (held, (), 0)
    assert dataset.PixelData == before


def test_an_encapsulated_document_is_held_back_whatever_it_says():
    """D21: a PDF has no pixels that could be masked."""
    dataset = image(smooth_picture(), "1.2.840.10008.5.1.4.1.1.104.1", Modality="DOC", BurnedInAnnotation="NO")
    del dataset.PixelData
    assert policy().examine(dataset).hold


def test_writing_in_the_pixels_holds_back_what_the_header_calls_safe():
    """D21: a CT that says NO and shows a name is held back; the reason does not say what was written."""
    decision = policy().examine(image(with_words(), BurnedInAnnotation="NO"))
    assert decision.hold is not None
    assert "writing was found" in decision.hold
    assert not any(word.lower() in decision.hold.lower() for word in WORDS.split())
    assert policy(detect="none").examine(image(with_words())).hold is None


@pytest.mark.parametrize("place", [0, 11, 23])
def test_writing_in_any_frame_is_found(place):
    """D21: one frame of 24 with writing, also one that is not among those looked at by themselves."""
    frames = np.stack([smooth_picture(120, 200, 150)] * 24)
    frames[place] = written(frames[place], "SAMPLE 88321", (10, 10), 16, contrast=1.0)[0]
    frames[place, frames[place] == frames[place].max()] = 255
    assert policy().examine(image(frames)).hold is not None
    frames[place] = frames[place - 1]
    assert policy().examine(image(frames)).hold is None


def test_a_palette_is_looked_at_in_its_colours():
    """D21: writing of an index next to that of its ground shows only after the palette."""
    plain = np.full((120, 240), 10, np.uint8)
    ink, _ = written(np.pad(np.full((1, 1), 255, np.uint8), ((0, 119), (0, 239))), "SAMPLE 88321", (10, 40), 18)
    plain[ink > 128] = 11
    plain[0, 0] = 255
    dataset = image(plain, PhotometricInterpretation="PALETTE COLOR")
    for channel in ("Red", "Green", "Blue"):
        setattr(dataset, f"{channel}PaletteColorLookupTableDescriptor", [256, 0, 16])
        table = np.zeros(256, "<u2")
        table[11] = 0xFF00
        setattr(dataset, f"{channel}PaletteColorLookupTableData", table.tobytes())
    assert policy().examine(dataset).hold is not None


def test_found_writing_is_masked_on_request_and_looked_for_again():
    """Option mask_found_text: the writing is gone, nothing is claimed for it, Burned In Annotation is not touched."""
    dataset = image(with_words())
    decision = policy(mask_found_text=True).examine(dataset)
    assert (decision.hold, decision.codes, decision.warnings) == (None, (), (MASKED_BY_LOOK,))
    assert decision.masked > 0
    assert "BurnedInAnnotation" not in dataset
    assert policy().examine(dataset).hold is None
    assert (dataset.pixel_array[60:] == with_words()[60:]).all()


def test_found_writing_lifts_no_risk_of_the_header():
    """D21: mask_found_text does not let a secondary capture pass."""
    assert policy(mask_found_text=True).examine(image(with_words(), SC, Modality="OT")).hold is not None


def test_pixels_that_cannot_be_decoded():
    """Without risk they pass with a warning; at risk they are held back; to be masked they are refused."""
    broken = image(smooth_picture())
    broken.file_meta.TransferSyntaxUID = RLELossless
    broken["PixelData"].VR = "OB"
    broken["PixelData"].is_undefined_length = True
    decision = policy().examine(broken)
    assert (decision.hold, decision.warnings) == (None, (NOT_LOOKED_AT,))
    broken.BurnedInAnnotation = "YES"
    assert policy().examine(broken).hold is not None


def test_a_pixel_header_with_a_length_of_no_number_is_no_crash():
    """What pydicom raises on the value is no ValueError; the object is held back with a reason."""
    source = image(smooth_picture())
    source["BitsAllocated"] = RawDataElement(Tag("BitsAllocated"), "UL", 2, b"\x10\x00", 0, False, True)
    with pytest.raises(Permanent, match="the header of the pixels cannot be read: BytesLengthException"):
        policy().examine(source)


@pytest.mark.parametrize(("values", "warned"), [
    ({"BodyPartExamined": "HEAD"}, True), ({"BodyPartExamined": "ABDOMEN", "StudyDescription": "not the head"}, False),
    ({"SeriesDescription": "T1 Brain sag"}, True), ({}, False),
    ({"BodyPartExamined": "SKULL", "Modality": "DX"}, False),
])  # fmt: skip
def test_a_head_in_slices_is_warned_of(values, warned):
    """D21: CT and MR of a head: a warning, and 113102 is not claimed."""
    decision = policy().examine(image(smooth_picture(), **values))
    assert (FACE_LEFT in decision.warnings, "113102" in decision.codes) == (warned, False)


def test_an_overlay_in_unused_bits_does_not_outlast_its_group():
    """Retired overlays live above Bits Stored: those bits are cleared, the image is not changed."""
    plain = smooth_picture().astype(np.uint16) * 8
    marked = plain.copy()
    marked[20:40, 20:60] |= 0x1000
    dataset = image(marked, BitsStored=12, HighBit=11)
    for element, value in ((0x10, 240), (0x11, 320), (0x100, 16), (0x102, 12)):
        dataset.add_new((0x6000, element), "US", value)
    decision = policy().examine(dataset)
    assert (decision.hold, decision.masked, decision.codes) == (None, 1, ())
    assert (np.frombuffer(dataset.PixelData, "<u2").reshape(plain.shape) == plain).all()
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def fake_engine(folder: Path, rows: str) -> None:
    """A program that takes a PGM picture from its input and answers as Tesseract's TSV output does."""
    folder.mkdir(exist_ok=True)
    program = folder / "tesseract"
    head = "level\\tpage_num\\tblock_num\\tpar_num\\tline_num\\tword_num\\tleft\\ttop\\twidth\\theight\\tconf\\ttext\\n"
    check = 'test "$(/usr/bin/head -c 2)" = P5 && test "$1 $2 $5" = "stdin stdout tsv" || exit 1'
    program.write_text(f"#!/bin/sh\n{check}\n/usr/bin/cat >/dev/null\nprintf '{head}{rows}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_an_engine_adds_to_what_is_found(tmp_path):
    """An installed OCR program finds a word where the detector sees none: held back; weak or short ones are ignored."""
    word = "5\\t1\\t1\\t1\\t1\\t1\\t30\\t40\\t50\\t12\\t{confidence}\\t{text}\\n"
    for confidence, text, held in ((93, "Quentin", True), (20, "Quentin", False), (93, "ab", False)):
        fake_engine(tmp_path / "bin", word.format(confidence=confidence, text=text))
        decision = policy().examine(image(smooth_picture(), SC, Modality="OT", BurnedInAnnotation="NO"))
        assert (decision.hold is not None) == held, (confidence, text)
    fake_engine(tmp_path / "bin", word.format(confidence=93, text="Quentin"))
    assert policy(ocr="none").examine(image(smooth_picture(), Modality="CR")).hold is None
    assert policy().examine(image(smooth_picture(), Modality="CT")).hold is None
    assert policy(ocr="all").examine(image(smooth_picture(), Modality="CT")).hold is not None


def test_an_engine_that_fails_takes_nothing_away(tmp_path):
    """D21: the detector's finding stands when the program answers nonsense or fails."""
    fake_engine(tmp_path / "bin", "garbage\\t\\n5\\tx\\n")
    assert policy().examine(image(with_words(), Modality="CR")).hold is not None
    assert policy().examine(image(smooth_picture(), Modality="CR")).hold is None
    (tmp_path / "bin" / "tesseract").write_text("#!/bin/sh\nexit 3\n")
    assert policy().examine(image(smooth_picture(), Modality="CR")).hold is None


def test_the_default_settings_are_those_of_an_empty_table():
    """A profile without [pixels] looks for writing and masks nothing by itself."""
    assert pixel_settings({}, [], "profile", None) == PixelSettings()
    assert Dataset() not in PixelSettings().masks
