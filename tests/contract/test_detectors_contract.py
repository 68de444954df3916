"""What every detector promises, whoever wrote it: parametrised over ``discover()``."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dicomnode.detectors.contract import Detector, LoadedDetector, Outcome, Plane, Volume
from dicomnode.detectors.discovery import discover
from dicomnode.dicom.references import InstanceReference, SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.errors import ConfigError
from dicomnode.models.registry import ModelRegistry

SERIES = SeriesReference("2.25.10", "2.25.11")
DETECTORS = discover().detectors
OWN_SERIES = {
    "cxr": {"Modality": ("DX",), "BodyPartExamined": ("CHEST",), "ViewPosition": ("PA",)},
    "ct-head": {"Modality": ("CT",), "BodyPartExamined": ("HEAD",), "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL")},
    "mr-brain-flair": {"Modality": ("MR",), "BodyPartExamined": ("BRAIN",), "SeriesDescription": ("AX FLAIR",)},
}
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)

pytestmark = pytest.mark.parametrize("name", sorted(DETECTORS))


def summary(**attributes: tuple[object, ...]) -> SeriesSummary:
    return SeriesSummary(SERIES, 1, attributes)


def ellipse(shape, centre, radii):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 <= 1


def phantom(name: str, shape: tuple[int, int], *, lesion: bool, seed: int) -> np.ndarray:
    """A plain head or chest in modality units with noise, and a bright blob when asked."""
    noise = np.random.default_rng(seed).normal(0, 1, shape)
    r, c = shape
    middle = (r / 2, c / 2)
    blob = ellipse(shape, (0.45 * r, 0.36 * c), (0.08 * r, 0.07 * c)) & lesion
    if name == "cxr":
        image = np.full(shape, 180.0)
        for side in (0.3, 0.7):
            image[ellipse(shape, (0.45 * r, side * c), (0.3 * r, 0.15 * c))] = 60
        image[blob] = 170
        return (image + 3 * noise).astype(np.float32)
    head, skull_inside = ellipse(shape, middle, (0.42 * r, 0.36 * c)), ellipse(shape, middle, (0.38 * r, 0.32 * c))
    ventricle = ellipse(shape, middle, (0.1 * r, 0.04 * c))
    if name == "ct-head":
        image = np.where(head, 1000.0, -1000.0)
        image[skull_inside] = 32
        image[ventricle] = 8
        image[blob] = 70
        return (image + 2 * noise).astype(np.float32)
    image = np.where(head, 600.0, 4.0)
    image[ellipse(shape, middle, (0.39 * r, 0.33 * c))] = 40
    image[ellipse(shape, middle, (0.36 * r, 0.3 * c))] = 250
    image[ventricle] = 50
    image[blob] = 600
    return np.clip(image + 8 * noise, 0, None).astype(np.float32)


def volume(pixels: list[np.ndarray], orientation=AXIAL, attributes=None) -> Volume:
    planes = tuple(
        Plane(
            pixels=image,
            source=InstanceReference("2.25.10", "2.25.11", "1.2.840.10008.5.1.4.1.1.7", f"2.25.{100 + i}"),
            spacing=(0.5, 0.7),
            position=(0.0, 0.0, 5.0 * i),
            orientation=orientation,
        )
        for i, image in enumerate(pixels)
    )
    return Volume(summary(**(attributes or {})), planes, slice_spacing=5.0 if len(planes) > 1 else None)


def own_volume(name: str, *, lesion: bool = True, shape=(160, 150), n: int = 3) -> Volume:
    count = 1 if name == "cxr" else n
    return volume([phantom(name, shape, lesion=lesion, seed=i) for i in range(count)])


@pytest.fixture(scope="module")
def loaded_detectors() -> dict[str, LoadedDetector]:
    registry = ModelRegistry()
    return {
        name: detector.load(registry.get(detector.default_model).folder, "cpu") for name, detector in DETECTORS.items()
    }


@pytest.fixture
def detector(name: str) -> Detector:
    return DETECTORS[name]


@pytest.fixture
def loaded(name: str, loaded_detectors) -> LoadedDetector:
    return loaded_detectors[name]


def test_a_knee_mr_is_refused_with_a_reason_that_names_it(detector):
    """A series of another body part is never analysed, and the operator reads why."""
    for attributes in (
        {"BodyPartExamined": ("KNEE",)},
        {"StudyDescription": ("MR Knee right",)},
        {"BodyPartExamined": ("KNEE",), "SeriesDescription": ("FLAIR",)},
    ):
        answer = detector.accepts(summary(Modality=("MR",), **attributes))
        assert not answer.accepted
        assert "KNEE" in answer.reason or "modality MR" in answer.reason


def test_a_series_that_says_nothing_is_refused(detector):
    """No header, no analysis: a detector never guesses."""
    answer = detector.accepts(summary())
    assert not answer.accepted
    assert answer.reason


def test_the_own_kind_of_series_is_accepted_with_a_reason(name, detector):
    """A yes has a reason as well."""
    answer = detector.accepts(summary(**OWN_SERIES[name]))
    assert answer.accepted, answer.reason
    assert answer.reason


def test_the_default_model_is_shipped_and_its_identity_is_told(detector, loaded):
    """A result can name the weights that made it."""
    card = ModelRegistry().get(detector.default_model).card
    assert (loaded.model.name, loaded.model.sha256) == (card.name, card.sha256)
    assert loaded.model.licence
    assert loaded.accelerator == "cpu"


@pytest.mark.parametrize("shape", [(160, 150), (301, 256)])
def test_the_answer_fits_the_volume(name, loaded, shape):
    """Planes are parallel to the volume, heat has each plane's shape, and every score lies in 0..1."""
    given = own_volume(name, shape=shape)
    result = loaded.detect(given)
    assert result.outcome in (Outcome.FINDINGS, Outcome.NO_FINDINGS)
    assert 0 <= result.score <= 1
    assert result.raw_unit
    assert result.calibration.n_patients >= 20
    assert (result.outcome is Outcome.FINDINGS) == (result.score >= result.calibration.threshold)
    assert bool(result.findings) == (result.outcome is Outcome.FINDINGS)
    assert len(result.planes) == len(given.planes)
    for plane, answer in zip(given.planes, result.planes, strict=True):
        assert answer.heat.shape == plane.shape
        assert answer.heat.dtype == np.float32
        assert answer.heat.min() >= 0
        assert answer.heat.max() <= 1
        assert 0 <= answer.score <= 1


def test_regions_are_closed_outlines_inside_their_image(name, loaded):
    """What a viewer draws lies on the image, and mask, box and outline agree."""
    given = own_volume(name)
    findings = loaded.detect(given).findings
    assert len({finding.tracking_id for finding in findings}) == len(findings)
    for region in (region for finding in findings for region in finding.regions):
        rows, columns = given.planes[region.plane].shape
        assert region.mask.shape == (rows, columns)
        assert region.mask.any()
        assert (region.contour[0] == region.contour[-1]).all()
        assert len(region.contour) >= 4
        assert region.contour.min() >= 0
        assert (region.contour <= (columns, rows)).all()
        assert region.area_mm2 == pytest.approx(region.mask.sum() * 0.35)


def test_the_same_input_gives_the_same_answer(name, loaded):
    """Deterministic on the CPU: scores and heat are equal to the last bit."""
    first, second = (loaded.detect(own_volume(name)) for _ in range(2))
    assert first.score == second.score
    assert first.raw_score == second.raw_score
    for a, b in zip(first.planes, second.planes, strict=True):
        assert np.array_equal(a.heat, b.heat)


@pytest.mark.parametrize(
    "image",
    [np.zeros((128, 128), np.float32), np.full((128, 128), 40, np.float32), np.full((128, 128), np.nan, np.float32),
     np.arange(64, dtype=np.float32).reshape(8, 8)],
    ids=["blank", "constant", "not numbers", "tiny"],
)  # fmt: skip
def test_an_image_without_content_is_not_analysed_and_the_reason_is_told(loaded, image):
    """Never silence, never "normal" by default."""
    result = loaded.detect(volume([image]))
    assert result.outcome is Outcome.NOT_ANALYSED
    assert result.reason
    assert result.planes == ()
    assert result.score is None


def test_weights_with_a_wrong_hash_are_refused(detector, tmp_path):
    """One changed byte in the weights forbids the start."""
    folder = tmp_path / "model"
    shutil.copytree(ModelRegistry().get(detector.default_model).folder, folder)
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ConfigError, match="SHA-256"):
        detector.load(folder, "cpu")


def test_a_pickle_in_the_model_folder_is_refused_unread(detector, tmp_path):
    """Formats that can run code are not even opened."""
    folder = tmp_path / "model"
    shutil.copytree(ModelRegistry().get(detector.default_model).folder, folder)
    (folder / "weights.pt").write_bytes(pickle.dumps({"weights": [1, 2]}))
    with pytest.raises(ConfigError, match="only safetensors"):
        detector.load(folder, "cpu")


def test_a_model_of_another_detector_is_refused(name, detector, tmp_path):
    """A route cannot run a chest model on a head."""
    folder = tmp_path / "model"
    shutil.copytree(ModelRegistry().get(detector.default_model).folder, folder)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    (folder / "card.json").write_text(json.dumps(card | {"detector": f"not-{name}"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="is for the detector"):
        detector.load(folder, "cpu")


def test_listing_detectors_needs_no_torch(name):
    """The router asks ``accepts`` in a process that never imports torch."""
    code = (
        "import sys; from dicomnode.detectors.discovery import discover; found = discover(); "
        f"assert not found.broken, found.broken; assert {name!r} in found.detectors; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
