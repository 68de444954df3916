"""Faces of a folder, series by series: a child process finds them, the parent keeps them as files for the run.

All slices of a series or none: a face on half of them would be no claim.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import FileDataset

from dicomnode.deid.defacing import Geometry, Mask, NotAWholeHead, face
from dicomnode.deid.head import looks_like_a_head
from dicomnode.deid.pixel_values import UNDECODABLE
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.errors import Permanent
from dicomnode.sandbox import Room, Sandbox, SandboxLimits

_HEADER = "dicomnode.deid.defacing_series:header_in_child"
_FACE = "dicomnode.deid.defacing_series:face_in_child"
_CLASSES = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.4": "MR"}
_MOST_SLICES = 2000
_UNEVEN = 0.1
"""Of the step between slices: how much one may differ from the others."""
_AIR_HU = -1000.0
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class FaceMask:
    """Which pixels of one slice become air: ``hidden`` (rows, columns), and the stored value of air."""

    hidden: Mask
    fill: int


class Faces:
    """Masks of slices by SOP Instance UID, as files in ``folder``; their names say nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, instance: str) -> FaceMask | None:
        """The mask of a slice, or None when no face was found for its series. Raises Quarantined on a damaged file."""
        try:
            head, _, bits = self._path(instance).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        rows, columns, fill = json.loads(head)
        hidden = np.unpackbits(np.frombuffer(bits, np.uint8), count=rows * columns)
        if len(bits) != -(-rows * columns // 8):
            raise Quarantined(Reason.PIXELS, "the mask of its face is damaged")
        return FaceMask(hidden.reshape(rows, columns).astype(bool), fill)

    def keep(self, instance: str, rows: int, columns: int, fill: int, bits: bytes) -> None:
        """Write the mask of one slice; ``bits`` are packed row by row."""
        self._folder.parent.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self._folder.parent, self._folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._path(instance).write_bytes(json.dumps([rows, columns, fill]).encode() + b"\n" + bits)

    def _path(self, instance: str) -> Path:
        return self._folder / f"{hashlib.sha256(instance.encode()).hexdigest()}.face"


def find_faces(files: Iterable[Path], folder: Path, jobs: int = 1, limits: SandboxLimits | None = None) -> Counter[str]:
    """Look for the face in every head series among ``files`` and keep the masks in ``folder``.

    Returns how many series ended how: "face found", or why not. Raises Transient when no child process can be had.
    """
    outcome: Counter[str] = Counter()
    with Sandbox((_HEADER, _FACE), limits or SandboxLimits(), jobs) as box, ThreadPoolExecutor(jobs) as workers:
        series: dict[str, list[str]] = {}
        paths = [str(path) for path in files]
        for path, uid in zip(paths, workers.map(lambda path: _series_of(box, path), paths), strict=True):
            if uid:
                series.setdefault(uid, []).append(path)
        outcome.update(workers.map(lambda group: _one_series(box, group, Faces(folder)), series.values()))
    return outcome


def _series_of(box: Sandbox, path: str) -> str:
    try:
        return str(json.loads(box.call(_HEADER, path).content))
    except Permanent:
        return ""


def _one_series(box: Sandbox, paths: list[str], faces: Faces) -> str:
    try:
        answer = box.call(_FACE, paths)
    except Permanent as error:
        return str(error)
    said, bits = json.loads(answer.content), memoryview(answer.blocks[0])
    rows, columns, size = int(said["rows"]), int(said["columns"]), -(-int(said["rows"]) * int(said["columns"]) // 8)
    for number, (instance, fill) in enumerate(said["slices"]):
        faces.keep(str(instance), rows, columns, int(fill), bytes(bits[number * size : (number + 1) * size]))
    return "face found"


def header_in_child(request: Any, room: Room) -> str:  # noqa: ARG001 - the sandbox decides the signature
    """The Series Instance UID of a slice of a head in CT or MR; empty for everything else."""
    try:
        dataset = pydicom.dcmread(request, force=True, stop_before_pixels=True)
        wanted = str(dataset.get("SOPClassUID")) in _CLASSES and looks_like_a_head(dataset)
        uid = str(dataset.get("SeriesInstanceUID") or "")
    except UNDECODABLE as error:
        raise Permanent("a file cannot be read") from error
    return uid if wanted and _UID.fullmatch(uid) else ""


def face_in_child(request: Any, room: Room) -> dict[str, Any]:
    """The masks of all slices of a series, packed into lent memory. Raises Permanent with the reason why not."""
    if len(request) > _MOST_SLICES:
        raise Permanent("it has too many slices")
    try:
        slices = _sorted([pydicom.dcmread(path) for path in request])
        first = slices[0]
        stored = np.stack([dataset.pixel_array for dataset in slices])
        slopes = np.array(
            [[float(one.get("RescaleSlope", 1)), float(one.get("RescaleIntercept", 0))] for one in slices]
        )
        values = stored * slopes[:, 0, None, None] + slopes[:, 1, None, None]
        modality = _CLASSES[str(first.SOPClassUID)]
        found = face(values.astype(np.float32), _geometry(slices), modality)
        fills = [_air(one, modality, slope) for one, slope in zip(stored, slopes, strict=True)]
    except NotAWholeHead as reason:
        raise Permanent(f"no whole head: {reason}") from None
    except UNDECODABLE as error:
        raise Permanent(f"the series cannot be read: {type(error).__name__}") from None
    packed = [np.packbits(one).tobytes() for one in found]
    block = room.block(sum(map(len, packed)))
    for number, bits in enumerate(packed):
        block.write(number * len(bits), bits)
    names = [str(dataset.SOPInstanceUID) for dataset in slices]
    return {"rows": int(first.Rows), "columns": int(first.Columns), "slices": list(zip(names, fills, strict=True))}


def _sorted(slices: list[FileDataset]) -> list[FileDataset]:
    """Along their normal. Raises NotAWholeHead when they are no even stack (PS3.3 C.7.6.2)."""
    alike = {
        (int(one.Rows), int(one.Columns), tuple(np.round(np.array(one.ImageOrientationPatient, float), 2)))
        for one in slices
    }
    if len(alike) != 1:
        raise NotAWholeHead("its slices differ in size or orientation")
    normal = _normal(slices[0])
    slices = sorted(slices, key=lambda one: float(normal @ np.array(one.ImagePositionPatient, float)))
    steps = np.diff([float(normal @ np.array(one.ImagePositionPatient, float)) for one in slices])
    if len(steps) == 0 or steps.min() <= 0 or np.ptp(steps) > _UNEVEN * np.median(steps):
        raise NotAWholeHead("its slices do not lie at even distances")
    return slices


def _normal(dataset: FileDataset) -> npt.NDArray[np.float64]:
    along, down = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    return np.asarray(np.cross(along, down))


def _geometry(slices: list[FileDataset]) -> Geometry:
    first = slices[0]
    along, down = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    places = [float(_normal(first) @ np.array(one.ImagePositionPatient, float)) for one in slices]
    step = float(np.median([after - before for before, after in pairwise(places)]))
    rows, columns = (float(value) for value in first.PixelSpacing)
    return Geometry(np.stack([_normal(first), down, along]), (step, rows, columns))


def _air(stored: npt.NDArray[Any], modality: str, slope: npt.NDArray[np.float64]) -> int:
    """The stored value of air: -1000 HU as far as the slice has it, or in MR the median of the darkest tenth."""
    if modality == "CT" and slope[0]:
        wanted = (_AIR_HU - slope[1]) / slope[0]
        return int(np.clip(round(wanted), stored.min(), stored.max()))
    dark = stored[stored <= np.quantile(stored, 0.1)]
    return int(np.median(dark))
