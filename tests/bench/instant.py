"""A detector that answers at once, as a plugin of its own package, and the CT study that it is given.

What a node needs around inference is what is left when inference needs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset

from dicomnode.demo.phantoms_ct import make_ct_head
from dicomnode.detectors.contract import Acceptance, DetectionResult, PlaneResult, Region, SeriesSummary, Volume
from dicomnode.dicom.uids import derived_uid
from tests.plugin import Unweighted, one_finding

NAME = "instant"
ENTRY = "tests.bench.instant:DETECTOR"
MARKED = 20
"""Planes with a region, where the Series has so many."""
_LOW, _HIGH = 236, 276


class Instant(Unweighted):
    """The plugin and, loaded, the detector: a square on each of the middle planes, nothing else."""

    name, default_model, description = NAME, NAME, "answers at once, for measurements"

    def accepts(self, summary: SeriesSummary) -> Acceptance:
        return Acceptance(summary.Modality == "CT", "CT only")

    def detect(self, volume: Volume) -> DetectionResult:
        """One finding with a region on each of up to ``MARKED`` planes in the middle."""
        shape, n = volume.planes[0].shape, len(volume.planes)
        mask = np.zeros(shape, dtype=bool)
        mask[_LOW:_HIGH, _LOW:_HIGH] = True
        corners = [[_LOW, _LOW], [_HIGH, _LOW], [_HIGH, _HIGH], [_LOW, _HIGH], [_LOW, _LOW]]
        contour, box = np.array(corners, np.float32), (float(_LOW), float(_LOW), float(_HIGH), float(_HIGH))
        first = max(0, (n - MARKED) // 2)
        marked = range(first, min(n, first + MARKED))
        regions = tuple(Region(plane, mask, contour, box, 0.97, 300.0) for plane in marked)
        hot, cold = np.where(mask, 0.97, 0.1).astype(np.float32), np.full(shape, 0.1, np.float32)
        planes = tuple(PlaneResult(0.97, hot) if plane in marked else PlaneResult(0.2, cold) for plane in range(n))
        return one_finding(planes, regions, "none, a measurement")


DETECTOR = Instant()


class Phantom:
    """The demo's synthetic head CT, each of its slices several times at its own height, 512 x 512."""

    def __init__(self, slices: int) -> None:
        base = make_ct_head(7).datasets
        self._slices = [base[min(len(base) - 1, number * len(base) // slices)] for number in range(slices)]

    def write(self, folder: Path, run: str) -> list[Path]:
        """Write the study as files in ``folder``; another ``run`` is another patient."""
        folder.mkdir(parents=True)
        return [self._write(folder, run, number, dataset) for number, dataset in enumerate(self._slices, 1)]

    def _write(self, folder: Path, run: str, number: int, dataset: Dataset) -> Path:
        dataset.PatientID, dataset.AccessionNumber = f"BENCH-{run}", f"B{run}"[:16]
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid(run, "study"), _uid(run, "series")
        dataset.FrameOfReferenceUID, dataset.SOPInstanceUID = _uid(run, "frame"), _uid(run, "slice", str(number))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.InstanceNumber, dataset.SliceThickness, dataset.SliceLocation = number, 0.6, 0.6 * number
        dataset.ImagePositionPatient = [*dataset.ImagePositionPatient[:2], 0.6 * number]
        dataset.ImagesInAcquisition = len(self._slices)
        path = folder / f"{number:05d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return path


def _uid(*parts: Sequence[str] | str) -> str:
    return derived_uid("dicomnode bench overhead", *(str(part) for part in parts))
