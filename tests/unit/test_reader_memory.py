"""R20, S11: Series that come into memory made beforehand are what they were, and only sound ones have it made."""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dicomnode.detect.reader import Reader
from dicomnode.detect.volume import LoadedVolume, NotAnalysable, SourceFile
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.sandbox import spare
from tests.lent_blocks import blocks_of
from tests.unit.volume_fixtures import SERIES, STUDY, picture, set_pixels, stack, write

SIDE = 512


def ct(folder: Path, count: int, seed: int, cut: int = 0) -> list[SourceFile]:
    """A CT of ``count`` slices of 1 MiB; its last file lacks the last ``cut`` bytes of pixels."""
    folder.mkdir()
    slices = stack(count)
    for number, ds in enumerate(slices):
        set_pixels(ds, picture(seed + number, (SIDE, SIDE)))
    if cut:
        slices[-1].PixelData = slices[-1].PixelData[:-cut]
    return [write(ds, folder) for ds in slices]


def load(reader: Reader, sources: Sequence[SourceFile]) -> LoadedVolume:
    return reader.load(SeriesSummary(SeriesReference(STUDY, SERIES), len(sources)), sources)


def pixels(loaded: LoadedVolume) -> np.ndarray:
    return np.stack([plane.pixels for plane in loaded.volume.planes])


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[mmap.mmap]]:
    """Every block that was prepared."""
    return blocks_of(spare, monkeypatch)


def test_a_series_in_prepared_memory_is_the_same_and_so_is_the_one_before(
    tmp_path: Path, made: list[weakref.ref[mmap.mmap]]
) -> None:
    """S11: larger, smaller, the same: pixels are those of the files, and those of earlier Series stay."""
    with Reader() as reader:
        held = []
        for run, count in enumerate((18, 18, 24, 17)):
            sources = ct(tmp_path / str(run), count, 100 * run)
            loaded = load(reader, sources)
            wanted = np.stack([picture(100 * run + number, (SIDE, SIDE)) for number in range(count)]) - 1024
            assert np.array_equal(pixels(loaded), wanted.astype(np.float32))
            held.append((loaded, wanted))
            reader.prepare()
        assert len(made) == 4
        assert all(np.array_equal(pixels(loaded), wanted) for loaded, wanted in held)
    del loaded, held
    assert [memory() for memory in made] == [None] * 4


def test_memory_is_prepared_only_for_what_was_loaded(tmp_path: Path, made: list[weakref.ref[mmap.mmap]]) -> None:
    """S11, R20: a file that asks for much and breaks then has no memory kept in its name."""
    with Reader() as reader:
        reader.prepare()
        with pytest.raises(NotAnalysable, match="cannot be decoded"):
            load(reader, ct(tmp_path / "cut", 30, 1, cut=100))
        reader.prepare()
        assert made == []
        load(reader, ct(tmp_path / "sound", 17, 2))
        with pytest.raises(NotAnalysable, match="cannot be decoded"):
            load(reader, ct(tmp_path / "again", 30, 3, cut=100))
        reader.prepare()
        (memory,) = (known() for known in made)
        assert memory is not None
        assert len(memory) == 17 << 20
