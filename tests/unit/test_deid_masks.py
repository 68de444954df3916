"""Rules that mask what a known device writes: on all frames, in every encoding, and only where they apply."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from dicomnode.deid.masks import PixelSettings, pixel_settings
from dicomnode.deid.pixel_values import overwrite
from dicomnode.deid.pixels import PixelCleaner
from dicomnode.deid.profile import load_profile
from dicomnode.errors import ConfigError
from tests.deid_pictures import US, image, smooth_picture, written

RULE = {
    "Manufacturer": "ACME  medical", "ManufacturerModelName": "looker 3", "Modality": "US", "Rows": 240, "Columns": 320,
    "regions": [[0, 0, 320, 40]],
}  # fmt: skip


def policy(**settings) -> PixelCleaner:
    return PixelCleaner(pixel_settings({"ocr": "none", **settings}, [RULE], "profile", None))


def ultrasound(pixels: np.ndarray, **values) -> pydicom.FileDataset:
    return image(pixels, US, **{"Modality": "US", **values})


def with_words() -> np.ndarray:
    return written(smooth_picture(), "SAMPLE QUENTIN 88321", (10, 10), 16)[0]


def read_again(dataset: pydicom.FileDataset) -> pydicom.FileDataset:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return pydicom.dcmread(io.BytesIO(buffer.getvalue()))


def test_a_rule_for_device_and_geometry_lifts_the_risk():
    """D21: masked on the rule's region, 113101 named, Burned In Annotation NO; the rest of the image is unchanged."""
    dataset = ultrasound(with_words())
    decision = policy().examine(dataset)
    assert (decision.hold, decision.codes, decision.masked) == (None, ("113101",), 1)
    assert dataset.BurnedInAnnotation == "NO"
    pixels = read_again(dataset).pixel_array
    assert len(np.unique(pixels[:40])) == 1
    assert (pixels[40:] == with_words()[40:]).all()


@pytest.mark.parametrize(
    "change",
    [{"Rows": 241}, {"Manufacturer": "Other"}, {"ManufacturerModelName": "Looker 4"}, {"Modality": "OT"}],
)
def test_a_rule_for_something_else_masks_nothing(change):
    """D21: another geometry or device stays held back, and stays as it was."""
    dataset = ultrasound(smooth_picture(241) if "Rows" in change else with_words(), **change)
    before = dataset.PixelData
    decision = policy().examine(dataset)
    assert decision.hold is not None
    assert (decision.codes, dataset.PixelData) == ((), before)
    assert ("another geometry" in decision.hold) == ("Rows" in change)


def test_writing_outside_the_masks_is_held_back():
    """D21: a rule is no excuse for writing elsewhere; on request that is masked as well."""
    pixels = written(with_words(), "SAMPLE QUENTIN 88321", (10, 200), 16)[0]
    assert "writing was found" in (policy().examine(ultrasound(pixels)).hold or "")
    again = policy(mask_found_text=True).examine(ultrasound(pixels))
    assert (again.hold, again.codes, len(again.warnings)) == (None, ("113101",), 1)


def test_software_versions_narrow_a_rule():
    """A rule with SoftwareVersions is for those only."""
    rule = {**RULE, "SoftwareVersions": ["2.0", "2.1"]}
    for version, held in (("2.1", False), ("3.0", True)):
        settings = PixelSettings.model_validate({"ocr": "none", "masks": [rule]})
        assert (
            PixelCleaner(settings).examine(ultrasound(with_words(), SoftwareVersions=version)).hold is not None
        ) == held


@pytest.mark.parametrize("kind", ["frames", "rgb", "planar", "ybr", "signed", "inverted", "rle", "j2k", "rle rgb"])
def test_every_encoding_is_masked_on_all_frames(kind):
    """Masks cover all frames, all samples and both orders of planes; compressed pixels become Explicit VR LE."""
    pixels = np.stack([smooth_picture(60, 80)] * 3) if kind in ("frames", "rle") else smooth_picture(60, 80)
    if kind in ("rgb", "planar", "ybr", "rle rgb"):
        pixels = np.stack([pixels, pixels // 2, 255 - pixels], axis=-1)
    if kind == "signed":
        pixels = pixels.astype(np.int16) - 100
    dataset = ultrasound(pixels, LossyImageCompression="01")
    if kind == "planar":
        dataset.PlanarConfiguration, dataset.PixelData = 1, pixels.transpose(2, 0, 1).tobytes()
    elif kind == "ybr":
        dataset.PhotometricInterpretation = "YBR_FULL"
    elif kind == "inverted":
        dataset.PhotometricInterpretation = "MONOCHROME1"
    elif kind in ("rle", "rle rgb"):
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif kind == "j2k":
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    instance = dataset.SOPInstanceUID
    overwrite(dataset, [(10, 5, 30, 20)])
    found = pydicom.pixels.pixel_array(read_again(dataset), raw=True)
    hidden = np.zeros((60, 80), bool)
    hidden[5:25, 10:40] = True
    frames, source = (found, pixels) if "frames" in kind or kind == "rle" else (found[None], pixels[None])
    assert (frames[:, ~hidden] == source[:, ~hidden]).all()
    black = {"ybr": [0, 128, 128], "inverted": pixels.max(), "signed": pixels.min(), "frames": pixels.min()}
    black |= {"rle": pixels.min(), "j2k": pixels.min()}
    assert (frames[:, hidden] == black.get(kind, 0)).all()
    assert (dataset.file_meta.TransferSyntaxUID, dataset.SOPInstanceUID) == (ExplicitVRLittleEndian, instance)
    assert dataset.LossyImageCompression == "01"


def region(left: int, top: int, right: int, bottom: int) -> Dataset:
    item = Dataset()
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    return item


@pytest.mark.parametrize(("regions", "released"), [
    ([region(0, 60, 319, 239)], True), ([region(0, 60, 150, 239), region(151, 60, 319, 239)], True),
    ([region(0, 0, 319, 239)], False), ([], False), ([region(0, 60, 320, 239)], False),
])  # fmt: skip
def test_of_ultrasound_only_the_regions_may_be_kept(regions, released):
    """mask_outside_regions: what (0018,6011) does not name is hidden; regions that hide nothing do not count."""
    dataset = ultrasound(with_words(), Manufacturer="Other", SequenceOfUltrasoundRegions=Sequence(regions))
    settings = PixelSettings(ocr="none", mask_outside_regions=True)
    decision = PixelCleaner(settings).examine(dataset)
    assert ((decision.hold is None), decision.codes) == (released, ("113101",) if released else ())
    if released:
        assert len(np.unique(dataset.pixel_array[:60])) == 1
        assert (dataset.pixel_array[60:] == with_words()[60:]).all()


def test_rules_come_from_the_profile_and_from_a_file(tmp_path):
    """[pixels] and [[mask]] of a profile and of the file it names; a profile that extends another adds rules."""
    lines = [f"{key} = {value!r}" for key, value in RULE.items()]
    (tmp_path / "rules.toml").write_text("\n".join(["[[mask]]", *lines]))
    (tmp_path / "site.toml").write_text("\n".join(['[pixels]\nmasks = "rules.toml"\nocr = "none"\n[[mask]]', *lines]))
    (tmp_path / "own.toml").write_text("\n".join(['extends = "site.toml"', "[[mask]]", *lines]))
    profile = load_profile(str(tmp_path / "own.toml"))
    assert (len(profile.pixels.masks), profile.pixels.ocr) == (3, "none")
    assert profile.sha256 != load_profile("basic").sha256


@pytest.mark.parametrize(("table", "rule", "told"), [
    ({"detct": "all"}, {}, "pixels.detct"), ({"ocr": "often"}, {}, "pixels.ocr"), ({"masks": 3}, {}, "pixels.masks"),
    ({}, {"regions": []}, "mask.0.regions"), ({}, {"regions": [[300, 0, 30, 10]]}, "beyond"),
    ({}, {"Modality": None}, "SOPClassUID or a Modality"), ({}, {"Rows": 0}, "mask.0.Rows"),
    ({}, {"fill": "white"}, "fill"),
])  # fmt: skip
def test_a_wrong_rule_stops_the_run(table, rule, told):
    """A rule that cannot be meant is refused with its key: it would leave a name in the image."""
    with pytest.raises(ConfigError, match=told):
        pixel_settings(table, [{**RULE, **rule}], "profile", None)
