"""Picture folders with a ``labels.csv``, read as the planes that the node would see."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dicomnode.detectors.contract import Array, Mask, Plane
from dicomnode.detectors.preprocess import PREPARATIONS, Prepared, Rejected
from dicomnode.dicom.references import InstanceReference
from dicomnode.errors import ConfigError

LABELS_FILE = "labels.csv"
_OFFLINE = InstanceReference("2.25.1", "2.25.1", "1.2.840.10008.5.1.4.1.1.7", "2.25.1")


@dataclass(frozen=True, slots=True)
class Picture:
    """One row of ``labels.csv``. ``label``: 1 abnormal, 0 normal, 2 neither, None not given.

    ``patient_label``: whether the patient has the abnormality anywhere (None when not given). ``position``: place in
    the head, 0 base to 1 vertex (None for projections). ``mask_file``: outline of the abnormality, when there is one.
    """

    path: Path
    patient: str
    split: str
    label: int | None
    patient_label: int | None = None
    position: float | None = None
    mask_file: Path | None = None


def read_pictures(root: Path, splits: Collection[str]) -> list[Picture]:
    """The pictures of ``splits`` in the order of ``root``/labels.csv. Raises ConfigError when there are none."""
    path = root / LABELS_FILE
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            found = [_picture(root, row) for row in csv.DictReader(stream) if row["split"] in splits]
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{LABELS_FILE} cannot be read: {type(error).__name__}: {error}") from error
    if not found:
        raise ConfigError(f"{LABELS_FILE} has no picture of the split {', '.join(sorted(splits))}")
    return found


def _picture(root: Path, row: dict[str, str]) -> Picture:
    mask = row.get("mask_file") or ""
    return Picture(
        path=root / row["file"],
        patient=row["patient_id"],
        split=row["split"],
        label=int(row["label"]) if row["label"] else None,
        patient_label=int(row["patient_label"]) if row.get("patient_label") else None,
        position=float(row["rel_pos"]) if row.get("rel_pos") else None,
        mask_file=root / mask if mask else None,
    )


def read_plane(picture: Picture, unit: float) -> Plane:
    """The picture as a Plane: grey value times ``unit`` (80/255 gives HU for windowed head CT pictures).

    Raises ConfigError when the file is not a readable picture.
    """
    try:
        with Image.open(picture.path) as image:
            pixels = np.asarray(image.convert("L"), dtype=np.float32) * np.float32(unit)
    except OSError as error:
        raise ConfigError(f"{picture.path.name} cannot be read as a picture") from error
    return Plane(pixels=pixels, source=_OFFLINE, stored_min=0.0, stored_max=255.0 * unit)


def read_mask(path: Path) -> Mask:
    """A mask picture, shape (rows, columns), True where it is not black."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L")) > 0


def prepare_pictures(
    pictures: Iterable[Picture], preparation: str, size: int, unit: float
) -> list[Prepared | Rejected]:
    """The pictures on the network grid, by the node's own preprocessing."""
    prepare = PREPARATIONS[preparation]
    return [prepare(read_plane(picture, unit).pixels, size) for picture in pictures]


def stacks_of(pictures: Sequence[Picture]) -> tuple[tuple[int, ...], ...]:
    """Indices of the pictures of each patient by position; pictures without a position stand alone."""
    groups: dict[object, list[int]] = {}
    for index, picture in enumerate(pictures):
        groups.setdefault(index if picture.position is None else picture.patient, []).append(index)
    return tuple(tuple(sorted(group, key=lambda i: pictures[i].position or 0.0)) for group in groups.values())


def eight_bit(planes: Sequence[Prepared]) -> Array:
    """The images of ``planes`` in 256 steps, shape (n, size, size), 0..1: what training keeps in memory."""
    stored = np.stack([(plane.image * 255).astype(np.uint8) for plane in planes])
    return stored.astype(np.float32) / np.float32(255)


def patient_folds(patients: Iterable[str], count: int) -> dict[str, int]:
    """A fold number for every patient, drawn with a fixed seed; each patient is held back by one fold.

    Raises ConfigError when there are fewer than two patients per fold.
    """
    names = sorted(set(patients))
    if len(names) < 2 * count:
        raise ConfigError(f"{len(names)} patients are too few for {count} folds")
    order = np.random.default_rng(0).permutation(len(names)) % count
    return {name: int(fold) for name, fold in zip(names, order, strict=True)}
