"""Decoding side by side: the same answer, the same reason, the same bounds as one after the other."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomnode.detect.reading import at_once, decode_all
from dicomnode.detect.volume import Arranged, Limits, NotAnalysable, arrange
from tests.unit.volume_fixtures import stack, write

MIB = 1 << 20


class Kept:
    """A block that keeps what is written, and by which threads."""

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}
        self.threads: set[int] = set()

    def write(self, offset: int, values: Any) -> None:
        self.pieces[offset] = bytes(values)
        self.threads.add(threading.get_ident())


def series(folder: Path, count: int, **elements: Any) -> Arranged:
    return arrange([write(ds, folder) for ds in stack(count, **elements)], Limits())


def test_planes_lie_where_they_belong_however_many_decode(tmp_path: Path) -> None:
    """Issue part 4: every plane is told at its place, whichever thread came first."""
    arranged = series(tmp_path, 40)
    places = list(range(0, 40 * 320, 320))
    alone, together = Kept(), Kept()
    stored = [decode_all(arranged, block, places, threads) for block, threads in ((alone, 1), (together, 4))]
    assert alone.pieces == together.pieces
    assert sorted(together.pieces) == places
    assert stored[0] == stored[1] == [(-1024.0, 64511.0)] * 40
    first = np.frombuffer(together.pieces[0], np.float32)
    assert first.min() >= -1024


def test_the_reason_is_that_of_the_first_bad_file(tmp_path: Path) -> None:
    """R10: a retry says the same, whichever thread was first."""
    datasets = stack(12)
    for number in (5, 7, 9):
        datasets[number].PixelData = datasets[number].PixelData[:-10]
    del datasets[4].PixelData
    arranged = arrange([write(ds, tmp_path) for ds in datasets], Limits())
    for threads in (1, 4):
        with pytest.raises(NotAnalysable, match="no Pixel Data"):
            decode_all(arranged, Kept(), list(range(0, 12 * 320, 320)), threads)


def test_large_files_are_decoded_one_by_one(tmp_path: Path) -> None:
    """S11: the child's memory is bounded for one image; several large ones at a time would break it."""
    arranged = series(tmp_path, 3)
    frame = arranged.frames[1]
    large = replace(frame, form=replace(frame.form, rows=4096, columns=2048))
    assert at_once(replace(arranged, frames=(arranged.frames[0], large)), 4) == 1
    fits = replace(frame, form=replace(frame.form, rows=2048, columns=2048))
    assert at_once(replace(arranged, frames=(arranged.frames[0], fits)), 4) == 4
    assert at_once(arranged, 1) == 1
    assert at_once(arranged, 64) == 4
