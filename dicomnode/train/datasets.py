"""Picture folders with a ``labels.csv``, read as the planes that the node would see."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dicomnode.detectors.contract import Array, Mask, Plane
from dicomnode.detectors.ensemble import shares_of
from dicomnode.detectors.methods.contract import Planes
from dicomnode.detectors.preprocess import Prepared, Rejected, preparation_of
from dicomnode.dicom.references import InstanceReference
from dicomnode.errors import ConfigError

LABELS_FILE = "labels.csv"
BOXES_FILE = "boxes.csv"
_OFFLINE = InstanceReference("2.25.1", "2.25.1", "1.2.840.10008.5.1.4.1.1.7", "2.25.1")
_ABOUT = ("sex", "age", "view", "site")
_UNITS = {"head-ct-2": 80.0 / 255.0, "ct-head": 80.0 / 255.0}

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Picture:
    """One row of ``labels.csv``. ``label``: 1 abnormal, 0 normal, 2 neither, None not given.

    ``patient_label``: whether the patient has the abnormality anywhere (None when not given). ``position``: place in
    the head, 0 base to 1 vertex (None for projections). ``mask_file``: outline of the abnormality, when there is one.
    ``boxes``: (column, row, width, height) around abnormalities, in pixels. ``about``: sex, age, view, site where
    given. ``pixel_mm``, ``slice_mm``: distance of pixel centres and of slices in mm, where given.
    """

    path: Path
    patient: str
    split: str
    label: int | None
    patient_label: int | None = None
    position: float | None = None
    mask_file: Path | None = None
    boxes: tuple[Box, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)
    pixel_mm: float | None = None
    slice_mm: float | None = None


def read_pictures(root: Path, splits: Collection[str]) -> list[Picture]:
    """The pictures of ``splits`` in the order of ``root``/labels.csv.

    Only the column ``file`` must be there: without ``split`` every picture belongs to any split, without
    ``patient_id`` each is a patient of its own. Raises ConfigError when it cannot be read or holds no such picture.
    """
    path = root / LABELS_FILE
    try:
        boxes = _boxes(root / BOXES_FILE)
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row.get("split") is None or row["split"] in splits]
        found = [_picture(root, row, boxes) for row in rows]
    except KeyError as error:
        raise ConfigError(f"{LABELS_FILE} lacks the column {error}") from error
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{LABELS_FILE} cannot be read: {type(error).__name__}: {error}") from error
    if not found:
        raise ConfigError(f"{LABELS_FILE} has no picture of the split {', '.join(sorted(splits))}")
    return found


def splits_of(root: Path) -> tuple[str, ...]:
    """The splits that ``root``/labels.csv names, in order. Raises ConfigError when it cannot be read."""
    try:
        with (root / LABELS_FILE).open(encoding="utf-8", newline="") as stream:
            return tuple(dict.fromkeys(row.get("split") or "" for row in csv.DictReader(stream)))
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{LABELS_FILE} cannot be read: {type(error).__name__}: {error}") from error


def unit_of(preprocessing: Mapping[str, object], detector: str) -> float:
    """Modality units per grey value of 8-bit pictures: what the card's preprocessing says, 80/255 HU for head CT."""
    stated = preprocessing.get("unit")
    if isinstance(stated, (int, float)):
        return float(stated)
    return _UNITS.get(str(preprocessing.get("preparation", detector)), _UNITS.get(detector, 1.0))


def _picture(root: Path, row: dict[str, str], boxes: Mapping[str, tuple[Box, ...]]) -> Picture:
    mask = row.get("mask_file") or ""
    return Picture(
        path=root / row["file"],
        patient=row.get("patient_id") or row["file"],
        split=row.get("split") or "",
        label=_integer(row.get("label")),
        patient_label=_integer(row.get("patient_label")),
        position=float(row["rel_pos"]) if row.get("rel_pos") else None,
        mask_file=root / mask if mask else None,
        boxes=boxes.get(row["file"], ()),
        about={name: row[name] for name in _ABOUT if row.get(name)},
        pixel_mm=_number(row.get("pixel_mm")),
        slice_mm=_number(row.get("slice_mm")),
    )


def _integer(text: str | None) -> int | None:
    return int(float(text)) if text else None


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _boxes(path: Path) -> dict[str, tuple[Box, ...]]:
    if not path.is_file():
        return {}
    found: dict[str, tuple[Box, ...]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            box = (float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"]))
            found[row["file"]] = (*found.get(row["file"], ()), box)
    return found


def read_plane(picture: Picture, unit: float) -> Plane:
    """The picture as a Plane: grey value times ``unit`` (80/255 gives HU for windowed head CT pictures).

    Raises ConfigError when the file is not a readable picture.
    """
    try:
        with Image.open(picture.path) as image:
            pixels = _grey(image) * np.float32(unit)
    except OSError as error:
        raise ConfigError(f"{picture.path.name} cannot be read as a picture") from error
    return Plane(pixels=pixels, source=_OFFLINE, stored_min=0.0, stored_max=255.0 * unit)


def _grey(image: Image.Image) -> Array:
    """Grey values 0..255, float32; 16-bit pictures keep their steps."""
    if image.mode.startswith("I"):
        return np.asarray(image, dtype=np.float32) / np.float32(257)
    return np.asarray(image.convert("L"), dtype=np.float32)


def read_mask(path: Path) -> Mask:
    """A mask picture, shape (rows, columns), True where it is not black. Raises ConfigError when it is none."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L")) > 0
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read as a picture") from error


def truth_of(picture: Picture, shape: tuple[int, int]) -> Mask | None:
    """Where the abnormality is, shape ``shape``: its mask, else its boxes, nothing on a normal picture.

    None where it is not known (an abnormal picture without mask and boxes). Raises ConfigError for a mask of
    another shape.
    """
    if picture.mask_file is not None:
        mask = read_mask(picture.mask_file)
        if mask.shape != shape:
            raise ConfigError(f"{picture.mask_file.name} has another shape than its picture")
        return mask
    if picture.label == 0:
        return np.zeros(shape, dtype=bool)
    if not picture.boxes:
        return None
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    truth = np.zeros(shape, dtype=bool)
    for left, top, width, height in picture.boxes:
        truth |= (columns > left) & (columns < left + width) & (rows > top) & (rows < top + height)
    return truth


def prepare_pictures(
    pictures: Iterable[Picture], preparation: str, size: int, unit: float, *, clahe: bool = False
) -> list[Prepared | Rejected]:
    """The pictures on the network grid, by the node's own preprocessing."""
    prepare = preparation_of(preparation, clahe=clahe)
    return [prepare(read_plane(picture, unit).pixels, size) for picture in pictures]


def stacks_of(pictures: Sequence[Picture]) -> tuple[tuple[int, ...], ...]:
    """Indices of the pictures of each patient by position; pictures without a position stand alone."""
    groups: dict[object, list[int]] = {}
    for index, picture in enumerate(pictures):
        groups.setdefault(index if picture.position is None else picture.patient, []).append(index)
    return tuple(tuple(sorted(group, key=lambda i: pictures[i].position or 0.0)) for group in groups.values())


def training_planes(planes: Sequence[Prepared], pictures: Sequence[Picture]) -> Planes:
    """Prepared pictures as methods learn from them, in 256 steps, with their projections where given."""
    fields = [plane.fields for plane in planes if plane.fields is not None]
    views = tuple(picture.about.get("view", "") for picture in pictures)
    return Planes(
        eight_bit(planes),
        np.stack([plane.mask for plane in planes]),
        stacks_of(pictures),
        fields=np.stack(fields) if len(fields) == len(planes) else None,
        views=views if any(views) else None,
        shares=shares_of(planes),
    )


def eight_bit(planes: Sequence[Prepared]) -> Array:
    """The images of ``planes`` in 256 steps, shape (n, size, size), 0..1: what training keeps in memory."""
    stored = np.stack([np.rint(plane.image * 255).astype(np.uint8) for plane in planes])
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
