"""The contact sheet shows what it was given, all of it, with the research banner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicomnode.demo.contact_sheet import MAX_PAIRS, WIDTH, SheetRow, contact_sheet


def picture(colour: tuple[int, int, int], rows: int = 256, columns: int = 256) -> np.ndarray:
    return np.full((rows, columns, 3), colour, np.uint8)


def render(rows: list[SheetRow], path: Path) -> np.ndarray:
    contact_sheet(rows, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((sheet == np.array(colour, np.uint8)).all(-1).sum())


def test_source_and_overlay_are_shown_side_by_side(tmp_path: Path) -> None:
    red, blue = (201, 3, 7), (5, 9, 203)
    sheet = render(
        [SheetRow("Head CT", ["outcome: findings"], [(picture(red), picture(blue), "slice 9")])], tmp_path / "s"
    )
    assert sheet.shape[1] == WIDTH
    assert count(sheet, red) == count(sheet, blue) > 500 * 500
    red_columns, blue_columns = (np.where((sheet == np.array(c)).all(-1).any(0))[0] for c in (red, blue))
    assert red_columns.max() < blue_columns.min()


def test_pixels_of_tile_size_are_shown_unchanged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (720, 720), dtype=np.uint8)
    sheet = render([SheetRow("DX", [], [(pixels, picture((0, 0, 0)), "")])], tmp_path / "s")
    grey = sheet[..., 0]
    windows = np.lib.stride_tricks.sliding_window_view(grey, 40, axis=1)
    rows, columns = np.where((windows == pixels[0, :40]).all(-1))
    assert len(rows) == 1
    y, x = int(rows[0]), int(columns[0])
    assert np.array_equal(grey[y : y + 720, x : x + 720], pixels)


def test_oblong_pictures_keep_their_aspect(tmp_path: Path) -> None:
    green = (2, 190, 4)
    pair = (picture(green, 400, 200), picture((9, 9, 9), 400, 200), "")
    sheet = render([SheetRow("DX", [], [pair])], tmp_path / "s")
    rows, columns = np.where((sheet == np.array(green)).all(-1))
    assert np.ptp(rows) + 1 == 2 * (np.ptp(columns) + 1)


def test_as_many_pairs_as_fit_the_width_are_shown_and_more_are_left_out(tmp_path: Path) -> None:
    colours = [(200, 10 * n, 1) for n in range(1, 6)]
    pairs = [(picture((60, 60, 60)), picture(colour), str(n)) for n, colour in enumerate(colours)]
    sheet = render([SheetRow("CT", ["fact"] * 30, pairs)], tmp_path / "s")
    areas = [count(sheet, colour) for colour in colours]
    assert len(set(areas[:MAX_PAIRS])) == 1
    assert areas[0] > 300 * 300
    assert areas[MAX_PAIRS:] == [0] * (len(colours) - MAX_PAIRS)


def test_each_study_adds_a_card_and_a_study_without_overlay_is_not_silent(tmp_path: Path) -> None:
    one = SheetRow("CT", ["outcome: findings"], [(picture((1, 2, 3)), picture((1, 2, 3)), "")])
    none = SheetRow("Knie – MR", ["outcome: not analysed, because no detector accepts KNEE"])
    short, long = render([one], tmp_path / "a"), render([one, none], tmp_path / "b")
    assert long.shape[0] > short.shape[0] + 100
    amber = (255, 176, 32)
    assert count(long, amber) > count(short, amber) > 10_000  # the banner, and the note on the missing overlay


def test_an_empty_sheet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([], tmp_path / "s")
