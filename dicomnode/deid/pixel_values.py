"""Frames of an object to look at, and its stored values to overwrite (PS3.3 C.7.6.3, PS3.5 8)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import iter_pixels, pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from dicomnode.dicom.faults import PYDICOM_FAULTS
from dicomnode.errors import Permanent

Stored = npt.NDArray[Any]
Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""
UNDECODABLE = (
    ValueError, RuntimeError, AttributeError, NotImplementedError, LookupError, TypeError, ArithmeticError, EOFError,
    OSError, struct.error, *PYDICOM_FAULTS,
)  # fmt: skip
"""What pydicom and its decoders raise on pixels they cannot read."""
_LOOKED_AT = 16
_PADDED = 2


def pictures(dataset: FileDataset) -> Iterator[Stored]:
    """Frames, shape (rows, columns) or (rows, columns, 3): up to 16 spread over the object, and of several frames the
    brightest and the darkest values of all, in which writing of any frame stays visible.

    Raises Permanent when they cannot be decoded.
    """
    try:
        count = int(dataset.get("NumberOfFrames") or 1)
        chosen = set(np.linspace(0, count - 1, min(count, _LOOKED_AT)).astype(int).tolist())
        brightest = darkest = None
        for index, frame in enumerate(iter_pixels(dataset)):
            if brightest is None or darkest is None:
                brightest, darkest = frame, frame
            else:
                brightest, darkest = np.maximum(brightest, frame), np.minimum(darkest, frame)
            if index in chosen:
                yield _coloured(frame, dataset)
        if count > 1 and brightest is not None and darkest is not None:
            yield from (_coloured(frame, dataset) for frame in (brightest, darkest))
    except UNDECODABLE as error:
        raise Permanent(f"the pixels cannot be decoded: {type(error).__name__}") from error


def _coloured(frame: Stored, dataset: FileDataset) -> Stored:
    """A palette gives equal greys to different indices, or hides writing among them: look at the colours."""
    if dataset.PhotometricInterpretation != "PALETTE COLOR":
        return frame
    return np.asarray(apply_color_lut(frame, dataset))


def overwrite(
    dataset: FileDataset,
    boxes: Sequence[Box] | npt.NDArray[np.bool_],
    fill: int | str = "black",
    *,
    outside: bool = False,
) -> None:
    """Overwrite ``boxes``, or the true pixels of a mask, on all frames; with ``outside`` everything but the boxes.

    Compressed pixels are decompressed to Explicit VR Little Endian; the attributes on lossy compression stay as they
    are, for what was lost stays lost (PS3.3 C.7.6.1.1.5). Raises Permanent when they cannot be decoded.
    """
    try:
        if dataset.file_meta.TransferSyntaxUID.is_compressed and dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            dataset.decompress(generate_instance_uid=False)
        if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian or dataset.BitsAllocated not in (8, 16, 32):
            raise Permanent("pixels of this encoding cannot be masked")
        values = _frames(dataset)
        if isinstance(boxes, np.ndarray) and boxes.shape != values.shape[1:3]:
            raise Permanent("the mask has another size than the frames")
        hidden = boxes if isinstance(boxes, np.ndarray) else _hidden(values.shape[1:3], boxes, outside=outside)
        values[:, hidden] = _black(values, dataset) if fill == "black" else fill
        _put(dataset, values)
    except UNDECODABLE as error:
        raise Permanent(f"the pixels cannot be decoded: {type(error).__name__}") from error


def _frames(dataset: FileDataset) -> Stored:
    """Shape (frames, rows, columns) or (frames, rows, columns, samples); a copy that can be written to."""
    values = np.array(pixel_array(dataset, raw=True, correct_unused_bits=False), copy=True)
    samples = int(dataset.SamplesPerPixel)
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        dataset.PhotometricInterpretation = "YBR_FULL"
    shape = (-1, int(dataset.Rows), int(dataset.Columns), *((samples,) if samples > 1 else ()))
    return values.reshape(shape)


def _hidden(shape: tuple[int, ...], boxes: Sequence[Box], *, outside: bool) -> npt.NDArray[np.bool_]:
    hidden = np.zeros(shape, bool)
    for x, y, width, height in boxes:
        hidden[y : y + height, x : x + width] = True
    return ~hidden if outside else hidden


def _black(values: Stored, dataset: FileDataset) -> Any:
    """What is displayed darkest, of the values that the object has."""
    kind = dataset.PhotometricInterpretation
    if kind == "MONOCHROME1":
        return values.max()
    if kind.startswith("YBR"):
        return np.array([0, 1 << dataset.BitsStored - 1, 1 << dataset.BitsStored - 1], values.dtype)
    if kind == "PALETTE COLOR":
        return _darkest_index(values, dataset)
    return 0 if kind == "RGB" else values.min()


def _darkest_index(values: Stored, dataset: FileDataset) -> Any:
    used = np.unique(values)
    colours = np.asarray(apply_color_lut(used.reshape(1, -1), dataset)).astype(np.int64)
    return used[int(colours.sum(axis=-1).argmin())]


def _put(dataset: FileDataset, values: Stored) -> None:
    if values.ndim == 4 and int(dataset.get("PlanarConfiguration") or 0) == 1:
        values = values.transpose(0, 3, 1, 2)
    content = np.ascontiguousarray(values).tobytes()
    kind = "OB" if dataset.BitsAllocated == 8 and dataset["PixelData"].VR == "OB" else "OW"
    dataset.PixelData = content + b"\0" * (len(content) % _PADDED)
    dataset["PixelData"].VR = kind
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            del dataset[keyword]
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def drop_embedded_overlays(dataset: FileDataset) -> bool:
    """Clear the bits above Bits Stored when a retired overlay lives there (PS3.3 C.9.2, retired 2004); True: cleared.

    Such an overlay would outlast its group 60xx, which is removed. Raises Permanent when the pixels cannot be read.
    """
    if not _embedded(dataset):
        return False
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated or dataset.BitsAllocated not in (8, 16):
        raise Permanent("an overlay is embedded in pixels of an encoding that cannot be cleaned")
    try:
        order = ">" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
        words = np.frombuffer(dataset.PixelData, f"{order}u{dataset.BitsAllocated // 8}")
        lowest = int(dataset.HighBit) + 1 - int(dataset.BitsStored)
        kept = ((1 << int(dataset.BitsStored)) - 1) << lowest
        lifted = words & kept
        if dataset.PixelRepresentation == 1:
            sign = 1 << int(dataset.HighBit)
            upper = ((1 << int(dataset.BitsAllocated)) - 1) & ~(2 * sign - 1)
            lifted = np.where(lifted & sign, lifted | upper, lifted).astype(words.dtype)
        kind = dataset["PixelData"].VR
        dataset.PixelData = lifted.astype(words.dtype).tobytes()
        dataset["PixelData"].VR = kind
    except UNDECODABLE as error:
        raise Permanent(f"the pixels cannot be decoded: {type(error).__name__}") from error
    return True


def _embedded(dataset: FileDataset) -> bool:
    groups = range(0x6000, 0x6020, 2)
    return any((group, 0x0010) in dataset and (group, 0x3000) not in dataset for group in groups)
