"""Planes are aligned to a template by one code path for training and node, and maps come back to where they belong."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from time import process_time

import numpy as np
import pytest
import safetensors.numpy
import torch
from click.testing import CliRunner
from PIL import Image
from scipy import ndimage

from dicomnode.cli import cli
from dicomnode.detectors.contract import Outcome, Plane, Volume
from dicomnode.detectors.preprocess import Prepared, Rejected, preparation_of, prepare_radiograph
from dicomnode.detectors.registration import KINDS, TEMPLATE_KEY, Registration, aligned, registration_of, statement
from dicomnode.detectors.resample import Alignment, Box
from dicomnode.detectors.residual import load_residual_detector
from dicomnode.dicom.references import InstanceReference, SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.errors import ConfigError
from dicomnode.train.build import add_acquisition, load_healthy, train_model
from dicomnode.train.calibrate import ScoreRule
from dicomnode.train.recipes import NetworkRecipe, recipe_for

SOURCE = InstanceReference("2.25.1", "2.25.2", "1.2.840.10008.5.1.4.1.1.2", "2.25.3")
SUMMARY = SeriesSummary(SeriesReference("2.25.1", "2.25.2"), 1)


def phantom(size: int) -> np.ndarray:
    """An ellipse with two unequal holes: no symmetry that a turn could hide behind."""
    rows, columns = np.mgrid[:size, :size] / (size - 1) - 0.5
    image = 0.8 * (((rows / 0.42) ** 2 + (columns / 0.33) ** 2) < 1)
    image -= 0.5 * ((((rows + 0.05) / 0.14) ** 2 + ((columns - 0.12) / 0.08) ** 2) < 1)
    image -= 0.3 * ((((rows - 0.18) / 0.08) ** 2 + ((columns + 0.1) / 0.07) ** 2) < 1)
    return ndimage.gaussian_filter(image, size / 90).astype(np.float32)


def pose(degrees: float, shift: tuple[float, float], size: int) -> Alignment:
    """A turn about the middle and a shift in pixels."""
    angle, middle = np.deg2rad(degrees), np.full(2, (size - 1) / 2)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = middle + shift - matrix @ middle
    return Alignment(tuple(map(tuple, matrix.tolist())), tuple(offset.tolist()))


def moved(image: np.ndarray, how: Alignment, seed: int | None = None) -> np.ndarray:
    noise = 0.0 if seed is None else np.random.default_rng(seed).normal(0, 0.02, image.shape)
    return np.clip(how.forward(image) + noise, 0, 1).astype(np.float32)


def plane_of(image: np.ndarray) -> Prepared:
    return Prepared(image, image > 0.1, Box(0, 0, *image.shape))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("degrees", "shift"), [(12.0, (5.0, -7.0)), (-16.0, (-4.0, 3.0)), (3.0, (9.0, 2.0))])
def test_a_turned_and_shifted_phantom_lies_like_the_template(kind, degrees, shift):
    """Less than a pixel and a degree off, image and mask alike."""
    template = phantom(128)
    truth = pose(degrees, shift, 128)
    found = Registration(kind, template).align(plane_of(moved(template, truth, seed=1)))
    both = np.asarray(truth.matrix) @ np.asarray(found.alignment.matrix)
    assert abs(np.rad2deg(np.arctan2(both[1, 0] - both[0, 1], both[0, 0] + both[1, 1]))) < 1.0
    for place in ((64, 64), (40, 45), (85, 80)):
        there = truth.point_before(*found.alignment.point_before(*place))
        assert np.hypot(*np.subtract(there, place)) < 1.0
    assert np.mean(found.mask != (template > 0.1)) < 0.02
    assert np.abs(found.image - template).mean() < 0.03


def test_aligning_is_quick():
    """A plane of 128 pixels costs the node a few hundredths of a second of one core; what else runs adds to that."""
    registration = Registration("rigid", phantom(128))
    planes = [plane_of(moved(phantom(128), pose(angle, (3.0, -4.0), 128), seed=1)) for angle in (-10, -5, 5, 10)]
    registration.align(planes[0])

    def cost(plane: Plane) -> float:
        start = process_time()
        registration.align(plane)
        return process_time() - start

    assert sum(min(cost(plane) for _ in range(3)) for plane in planes) / len(planes) < 0.15


def test_the_same_plane_gets_the_same_bytes_twice():
    """Nothing is drawn, and no thread adds up in another order."""
    plane = plane_of(moved(phantom(96), pose(9, (3, 4), 96), seed=2))
    first, second = (Registration("affine", phantom(96)).align(plane) for _ in range(2))
    assert first.alignment == second.alignment
    assert first.image.tobytes() == second.image.tobytes()
    assert first.mask.tobytes() == second.mask.tobytes()


def test_a_map_comes_back_to_where_the_lesion_is():
    """Through the alignment and the box, onto the pixels of the plane; an outline goes the other way."""
    template = phantom(64)
    truth = pose(14, (4, -3), 64)
    image = moved(template, truth)
    lesion = np.hypot(*(np.mgrid[:64, :64] - np.array([22, 20])[:, None, None])) < 4
    plane = replace(plane_of(np.clip(image + 0.2 * lesion, 0, 1).astype(np.float32)), box=Box(10, 20, 138, 148))
    found = Registration("rigid", template).align(plane)
    on_grid = np.argwhere(found.image - template > 0.1).mean(axis=0)
    assert np.hypot(*(on_grid - (22, 20))) > 4
    heat = (np.hypot(*(np.mgrid[:64, :64] - on_grid[:, None, None])) < 4).astype(np.float32)
    back = found.on_plane(heat, (160, 170))
    assert back.shape == (160, 170)
    assert ndimage.center_of_mass(back) == pytest.approx((10 + 2 * 22.5 - 0.5, 20 + 2 * 20.5 - 0.5), abs=1.0)
    again = found.from_plane((back > 0.5).astype(np.float32))
    assert 2 * (again * heat).sum() / (again.sum() + heat.sum()) > 0.85
    row, column = found.point_on_plane(float(on_grid[0]) + 0.5, float(on_grid[1]) + 0.5)
    assert (row, column) == pytest.approx((10 + 2 * 22.5, 20 + 2 * 20.5), abs=1.0)
    assert found.point_on_grid(row, column) == pytest.approx(tuple(on_grid + 0.5))
    assert found.organ_pixels == pytest.approx(plane.organ_pixels, rel=0.05)


def test_a_plane_that_cannot_be_aligned_stays_as_it_is_and_says_so():
    """Nothing on it, or already in its best place; the report counts both."""
    registration = Registration("affine", phantom(64))
    flat = plane_of(np.zeros((64, 64), np.float32))
    best = plane_of(registration.template)
    for plane in (flat, best):
        same = registration.align(plane)
        assert same.alignment.identity
        assert same.alignment.note
        assert same.image.tobytes() == plane.image.tobytes()
        assert np.array_equal(same.on_plane(plane.image, (64, 64)), plane.on_plane(plane.image, (64, 64)))
    told = statement("affine", [registration.align(plane) for plane in (flat, best)])
    assert told.startswith("affine: 0 of 2 planes aligned; ")


def test_a_template_of_another_size_or_kind_is_refused():
    """A wrong card is told before a plane is looked at."""
    weights = safetensors.numpy.save({TEMPLATE_KEY: phantom(64).astype(np.float16)})
    assert registration_of({"size": 64}, weights) is None
    assert registration_of({"size": 64, "registration": "rigid"}, weights).template.shape == (64, 64)
    for card, content in (
        ({"size": 32, "registration": "rigid"}, weights),
        ({"size": 64, "registration": "elastic"}, weights),
        ({"size": 64, "registration": "rigid"}, safetensors.numpy.save({"x": np.zeros(1, np.float16)})),
    ):
        with pytest.raises(ConfigError):
            registration_of(card, content)
    with pytest.raises(ConfigError, match="side 64"):
        Registration("rigid", phantom(64)).align(plane_of(phantom(32)))


def test_one_refinement_makes_the_template_sharper():
    """The mean of aligned planes has more contrast than the mean of planes as they lie."""
    draw = np.random.default_rng(4)
    poses = [pose(draw.uniform(-12, 12), tuple(draw.uniform(-4, 4, 2)), 64) for _ in range(10)]
    planes = [plane_of(moved(phantom(64), how, seed)) for seed, how in enumerate(poses)]
    on_template, template = aligned(planes, "rigid")
    plain = np.mean([plane.image for plane in planes], axis=0)
    assert template.std() > plain.std()
    assert np.array_equal(template, template.astype(np.float16).astype(np.float32))
    spread = np.std([plane.image for plane in on_template], axis=0).mean()
    assert spread < 0.6 * np.std([plane.image for plane in planes], axis=0).mean()
    assert aligned(planes, None) == (planes, None)


def test_clahe_is_a_step_of_radiographs_only():
    """Local contrast rises, values stay 0..1, and what was rejected stays so."""
    image = 100 + 20 * moved(phantom(96), pose(0, (0, 0), 96), seed=0)
    prepare = preparation_of("radiograph", clahe=True)
    plain, equalised = prepare_radiograph(image, 64), prepare(image, 64)
    assert equalised.box == plain.box
    assert np.array_equal(equalised.mask, plain.mask)
    assert 0 <= equalised.image.min() <= equalised.image.max() <= 1
    inside = (slice(28, 40), slice(8, 20))
    assert equalised.image[inside].std() > plain.image[inside].std()
    assert isinstance(prepare(np.zeros((64, 64), np.float32), 64), Rejected)
    with pytest.raises(ConfigError, match="radiographs"):
        preparation_of("brain-flair", clahe=True)
    with pytest.raises(ConfigError, match="no preparation"):
        preparation_of("toe")


RECIPE = replace(
    recipe_for("cxr"),
    model="cxr-aligned",
    preparation="radiograph",
    size=48,
    networks=(
        NetworkRecipe({"kind": "dae", "size": 48, "width": 4, "bright_only": True, "smooth": 3, "batch": 16}, 300),
    ),
    folds=2,
    mixed=None,
    registration="rigid",
    rule=ScoreRule(plane=(("dae", 0.05, 1.0),), map=(("dae", 1.0),), top_planes=1, raw_unit="test unit"),
)


def picture(seed: int, degrees: float | None = None, shift: tuple[float, float] | None = None) -> np.ndarray:
    """The phantom, turned and shifted, dark in a bright field (so that no border is cut); 8 bit, 96 pixels."""
    draw = np.random.default_rng(seed)
    angle = draw.uniform(-12, 12) if degrees is None else degrees
    place = tuple(draw.uniform(-5, 5, 2)) if shift is None else shift
    image = 190 - 130 * pose(angle, place, 96).forward(phantom(96)) + draw.normal(0, 3, (96, 96))
    return np.clip(image, 0, 255).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "patient_id", "split", "label"])
        for i in range(24):
            Image.fromarray(picture(i).astype(np.uint8)).save(root / f"{i}.png")
            writer.writerow([f"{i}.png", f"p{i}", "train_normal", 0])
    return root


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    torch.set_num_threads(1)
    return train_model(RECIPE, data, tmp_path_factory.mktemp("out"))


def test_a_trained_model_finds_a_lesion_on_a_turned_plane_where_it_is(folder):
    """Train, load, detect: the template stands in the weights file, the region on the plane's own pixels."""
    card = json.loads((folder / "card.json").read_text())
    assert card["preprocessing"]["registration"] == "rigid"
    detector = load_residual_detector("cxr", folder, "cpu")
    for seed, degrees, place in ((100, 15.0, (34, 40)), (101, -14.0, (62, 56))):
        image = picture(seed, degrees, (6.0, -5.0))
        healthy = detector.detect(Volume(SUMMARY, (Plane(image, SOURCE, stored_min=0, stored_max=255),)))
        rows, columns = np.mgrid[:96, :96]
        sick = np.clip(image + 60 * (np.hypot(rows - place[0], columns - place[1]) < 7), 0, 255).astype(np.float32)
        result = detector.detect(Volume(SUMMARY, (Plane(sick, SOURCE, stored_min=0, stored_max=255),)))
        assert result.outcome is Outcome.FINDINGS
        assert result.parameters["registration"] == "rigid: 1 of 1 planes aligned"
        assert result.raw_score > healthy.raw_score
        column, row = result.findings[0].regions[0].contour.mean(axis=0)
        assert np.hypot(row - place[0] - 0.5, column - place[1] - 0.5) < 5
        nearest = result.findings[0].nearest
        if nearest is not None:
            left, top, right, bottom = nearest.finding_box
            assert left <= column <= right
            assert top <= row <= bottom


def test_training_and_node_see_the_same_plane(folder, data):
    """What the networks learned from is what the detector prepares, to the step of 8 bits."""
    detector = load_residual_detector("cxr", folder, "cpu")
    healthy = load_healthy(RECIPE, data, "train_normal")
    assert np.array_equal(healthy.template, detector.registration.template)
    for index in (0, 7):
        with Image.open(data / f"{index}.png") as image:
            pixels = np.asarray(image, dtype=np.float32)
        prepared = detector.prepare(Plane(pixels, SOURCE, stored_min=0, stored_max=255))
        assert np.abs(prepared.image - healthy.planes.images[index]).max() <= 0.5 / 255 + 1e-6
        assert np.array_equal(prepared.mask, healthy.planes.masks[index])


def test_a_gate_added_later_uses_the_template_of_the_model(folder, data):
    """Only the calibration changes; the template and so the weights stay."""
    before = (folder / "weights.safetensors").read_bytes()
    assert add_acquisition(folder, RECIPE, data) is not None
    assert (folder / "weights.safetensors").read_bytes() == before
    load_residual_detector("cxr", folder, "cpu")


def test_the_command_takes_a_registration(data, tmp_path):
    """``dicomnode train --register`` ends in the card; CLAHE on a head is refused with a reason."""
    run = ["train", str(data), "--method", "ae-u", "--set", "size=32", "--set", "width=4", "--set", "latent=4",
           "--steps", "2", "--folds", "2", "--out", str(tmp_path), "--no-previews", "--accelerator", "cpu",
           "--threads", "1"]  # fmt: skip
    done = CliRunner().invoke(cli, [*run, "--detector", "cxr", "--register", "affine", "--clahe", "--json"])
    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "cxr-ae-u" / "card.json").read_text())
    assert card["preprocessing"]["registration"] == "affine"
    assert card["preprocessing"]["clahe"] is True
    load_residual_detector("cxr", tmp_path / "cxr-ae-u", "cpu")
    refused = CliRunner().invoke(cli, [*run, "--detector", "ct-head", "--clahe"])
    assert isinstance(refused.exception, ConfigError)
    assert "CLAHE is for radiographs" in str(refused.exception)
