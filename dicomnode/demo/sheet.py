"""From what the PACS received to the rows of the contact sheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from dicomnode.demo.contact_sheet import SheetRow

Picture = npt.NDArray[np.uint8]
PAIRS = 2


def sheet_rows(
    series: Iterable[dict[str, Any]], sources: Sequence[Path], results: Sequence[Path], names: Mapping[str, str]
) -> list[SheetRow]:
    """One row per result: the pictures with most colour beside their source. ``names``: study UID to words."""
    headers = [dcmread(path, stop_before_pixels=True) for path in results]
    captures = [(path, header) for path, header in zip(results, headers, strict=True) if header.Modality == "OT"]
    places = {str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): path for path in sources}
    rows: list[SheetRow] = []
    for item in series:
        study = item["StudyInstanceUID"]
        own = [path for path, header in captures if _source_of(header) in places and header.StudyInstanceUID == study]
        name = names.get(study, study)
        rows.extend(_row(name, item, result, own, places) for result in item["results"])
    return rows


def _row(
    name: str, item: dict[str, Any], result: dict[str, Any], captures: list[Path], places: dict[str, Path]
) -> SheetRow:
    shown = sorted(captures, key=_colourfulness, reverse=True)[:PAIRS]
    pairs = [_pair(path, places) for path in sorted(shown, key=_position)]
    facts = [f"outcome: {result['outcome']}", f"{item['instances']} image(s)"]
    if result["score"] is not None:
        facts.append(f"score {result['score']:.3f}, threshold {result['threshold']:.3f} (healthy percentile, 0..1)")
    if result["detector"]:
        facts.append(f"detector {result['detector']}, model {result['model']} {result['model_version']}")
    if result["reason"]:
        facts.append(result["reason"])
    seconds = result["seconds_from_last_instance"]
    if seconds is not None:
        facts.append(f"delivered {seconds:.1f} s after the last instance")
    return SheetRow(title=name, facts=facts, pairs=pairs)


def _pair(path: Path, places: dict[str, Path]) -> tuple[Picture, Picture, str]:
    capture = dcmread(path)
    source = dcmread(places[_source_of(capture)])
    return (
        _grey(source),
        np.asarray(capture.pixel_array, dtype=np.uint8),
        f"instance {source.get('InstanceNumber', '')}",
    )


def _source_of(capture: Dataset) -> str:
    """The one image that an overlay shows; "" for what shows many (a montage) or none (a status page)."""
    sequence: Sequence[Dataset] = capture.get("SourceImageSequence") or ()
    return str(sequence[0].ReferencedSOPInstanceUID) if len(sequence) == 1 else ""


def _position(path: Path) -> int:
    return int(dcmread(path, specific_tags=["InstanceNumber"]).get("InstanceNumber") or 0)


def _colourfulness(path: Path) -> float:
    """Share of the picture's pixels that are not grey."""
    pixels = np.asarray(dcmread(path).pixel_array, dtype=np.int16)
    return float(np.mean(pixels.max(axis=-1) - pixels.min(axis=-1) > 30))


def _grey(dataset: Dataset) -> Picture:
    """The first frame as a viewer shows it: its own window, MONOCHROME1 inverted."""
    pixels = dataset.pixel_array
    frame = pixels[0] if int(dataset.get("NumberOfFrames") or 1) > 1 else pixels
    values = np.asarray(apply_voi_lut(apply_modality_lut(frame, dataset), dataset), dtype=np.float64)
    low, high = _range(values, dataset)
    grey = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    return (255 - grey if inverted else grey).astype(np.uint8)


def _range(values: npt.NDArray[np.float64], dataset: Dataset) -> tuple[float, float]:
    if "WindowWidth" in dataset:
        return float(values.min()), float(values.max())
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(high)
