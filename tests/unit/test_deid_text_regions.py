"""Writing in pixels is found, anatomy is not taken for writing."""

from __future__ import annotations

import random

import numpy as np
import pytest

from dicomnode.deid.text_regions import text_regions
from dicomnode.demo.phantoms import make_mr_flair
from tests.deid_pictures import smooth_picture, written

TEXTS = ("DOE^JOHN", "Name: Smith, Anna", "1965-03-12", "ID 4711-0815", "MUELLER HANS 12.03.1965")
TEXT = "SAMPLE, QUENTIN 88321"


@pytest.fixture(scope="module")
def phantoms() -> list[np.ndarray]:
    """Five head slices of MR (256 x 256)."""
    return [dataset.pixel_array for dataset in make_mr_flair(3).datasets[::4]][:5]


def covered(picture: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """How much of ``box`` the found regions cover."""
    found = np.zeros(picture.shape[:2], bool)
    for region in text_regions(picture):
        found[region.y : region.y + region.height, region.x : region.x + region.width] = True
    left, top, right, bottom = box
    return float(found[top:bottom, left:right].mean())


def test_no_writing_is_seen_in_phantoms(phantoms):
    """D21: false alarms on pictures without writing: none of five."""
    assert [len(text_regions(picture)) for picture in phantoms] == [0] * len(phantoms)


@pytest.mark.parametrize(("size", "least"), [(12, 8), (16, 8), (24, 8)])
def test_most_writing_is_found_anywhere_in_phantoms(phantoms, size, least):
    """D21: of ten texts at random places, at full and at half contrast, at least eight are found."""
    rng, hits, tried = random.Random(size), 0, 0
    for picture in phantoms:
        for contrast in (1.0, 0.5):
            text = rng.choice(TEXTS)
            rows, columns = picture.shape
            at = (rng.randrange(2, max(3, columns - int(0.62 * size * len(text)))), rng.randrange(2, rows - 2 * size))
            drawn, box = written(picture, text, at, size, contrast=contrast)
            hits += covered(drawn, box) > 0.5
            tried += 1
    assert (tried, hits >= least) == (10, True), hits


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "inverted", "rgb", "red", "upwards"])
def test_every_kind_of_pixels_is_read(kind, smooth):
    """D21: 8 and 16 bits, signed, dark on bright, colours, colour on grey of the same brightness, upwards."""
    drawn, box = written(smooth_picture(), TEXT, (8, 8), 15, smooth=smooth)
    if kind == "inverted":
        drawn = 255 - drawn
    elif kind in ("uint16", "int16"):
        drawn = drawn.astype(kind) * 12 - (1000 if kind == "int16" else 0)
    elif kind == "rgb":
        drawn = np.stack([drawn] * 3, axis=-1)
    elif kind == "red":
        plate, box = written(np.pad(np.full((1, 1), 255, np.uint8), ((0, 239), (0, 319))), TEXT, (8, 8), 15)
        drawn = np.where(plate[..., None] > 128, (180, 45, 45), (90, 90, 90)).astype(np.uint8)
    elif kind == "upwards":
        drawn, box = drawn.T, (box[1], box[0], box[3], box[2])
    assert covered(np.ascontiguousarray(drawn), box) > 0.5


def test_confidence_and_boxes_are_within_bounds():
    """Regions lie inside the picture, and their confidence between 0 and 1."""
    drawn, _ = written(smooth_picture(), "Bottom right corner", (180, 222), 14)
    regions = text_regions(drawn)
    assert regions
    for region in regions:
        assert 0 <= region.x < region.x + region.width <= 320
        assert 0 <= region.y < region.y + region.height <= 240
        assert 0 < region.confidence <= 1


def test_rulers_and_flat_pictures_are_no_writing():
    """The marks of a ruler, noise and a picture of one value hold no letters."""
    ruler = np.zeros((200, 300), np.uint8)
    ruler[50:60, 20:280:8] = 255
    noise = np.random.default_rng(5).integers(0, 255, (200, 300)).astype(np.uint8)
    assert [text_regions(picture) for picture in (ruler, noise, np.full((64, 64), 7, np.uint16))] == [[], [], []]
