"""Files on their way to a detector: read in the child, judged by the parent, headers touched as reports touch them."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from dicomnode.config.detect import DetectSettings
from dicomnode.detect.reader import Reader
from dicomnode.detect.volume_terms import SourceFile
from dicomnode.dicom.references import InstanceReference, SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.errors import Permanent
from tests.fuzz.pure import DICOM_WORDS
from tests.fuzz.seeds import files, whole_images
from tests.fuzz.target import Finding, Target

_PIXEL_WORDS = (
    b"\x28\x00\x10\x00US\x02\x00\xff\xff",
    b"\x28\x00\x11\x00US\x02\x00\xff\xff",
    b"\x28\x00\x10\x00UL\x04\x00\xff\xff\xff\xff",
    b"\x28\x00\x08\x00IS\x0a\x002147483647",
    b"\x28\x00\x00\x01US\x02\x00\x01\x00",
    b"\x28\x00\x04\x00CS\x0e\x00PALETTE COLOR ",
    b"\x28\x00\x53\x10DS\x04\x001e99",
    b"\xff\x4f\xff\x51",
    b"\xff\xd8\xff\xc3",
)
GROWTH = 128 * 2**20
CALL_S = 90.0


class Images(Target):
    """A file becomes a Volume or ends with a reason; the process that asks neither grows nor waits for ever."""

    name = "images"
    words = (*DICOM_WORDS, *_PIXEL_WORDS)
    pure = False

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="dicomnode-fuzz-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._path = Path(folder) / "input.dcm"
        self.notes: dict[str, float] = {}

    def seeds(self) -> Sequence[bytes]:
        """Images with their pixels in several encodings, and data sets that are none."""
        return [*whole_images(), *files()]

    @contextmanager
    def running(self, folder: Path) -> Iterator[None]:
        """A reader with small limits, so that what is too large is found soon."""
        settings = DetectSettings(decoders=1, volume_memory_mb=64)
        with Reader(settings) as self._reader:
            self._reader.start()
            before = psutil.Process().memory_info().rss
            yield
            grown = psutil.Process().memory_info().rss - before
            self.notes["memory_growth_mib"] = grown / 2**20
            if grown > GROWTH:
                raise Finding(f"memory: the reading process grew by {grown // 2**20} MiB")

    def check(self, data: bytes) -> None:
        """What is loaded is what a detector may get."""
        self._path.write_bytes(data)
        summary = SeriesSummary(SeriesReference("1.2", "1.3"), 1, {"Modality": ("CT",)})
        source = SourceFile(InstanceReference("1.2", "1.3", "1.2.840.10008.5.1.4.1.1.2", "1.4"), self._path)
        began = time.monotonic()
        try:
            loaded = self._reader.load(summary, [source])
        except Permanent as error:
            if not str(error):
                raise Finding("refused without a reason") from error
            return
        finally:
            if time.monotonic() - began > CALL_S:
                raise Finding(f"hang: a file took {time.monotonic() - began:.0f} s")
        for plane in loaded.volume.planes:
            assert plane.pixels.dtype == np.float32
            assert np.isfinite(plane.pixels).all()
