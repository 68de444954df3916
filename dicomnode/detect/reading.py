"""What the child process does for ``reader``: it alone opens received files. No torch in here."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dicomnode.detect.header_plain import PlainLimits
from dicomnode.detect.source_bytes import SourceHeader, read_source
from dicomnode.detect.volume import Arranged, arrange, window_of
from dicomnode.detect.volume_terms import Limits, NotAnalysable, SourceFile
from dicomnode.dicom.references import InstanceReference
from dicomnode.sandbox import Room

ALIGNMENT = 64
"""Planes begin at multiples of so many bytes in the block that holds them."""
_MOST_AT_ONCE, _SMALL_FILE = 4, 8 << 20


def read_series(request: dict[str, Any], room: Room) -> dict[str, Any]:
    """The planes of a Series: a block of headers, a block of pixels (float32), and about each plane what it is.

    ``request``: what ``reader`` asks. A Series that cannot be analysed gives ``{"not_analysable": why}``.
    Raises Transient when the file system fails.
    """
    sources, limits = _asked(request)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes element values in its warnings
        try:
            series = arrange(sources, limits)
            return _said(series, sources, room)
        except NotAnalysable as why:
            return {"not_analysable": why.reason}


def read_first_header(request: dict[str, Any], room: Room) -> dict[str, Any]:
    """The first of the files whose header can be read: its place in the request, and the header as a block."""
    sources, limits = _asked(request)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes element values in its warnings
        for index, source in enumerate(sources):
            try:
                header = read_source(source.path, limits, PlainLimits())
            except NotAnalysable:
                continue
            return {"source": index, "headers": _write_headers([header], room)}
    return {"not_analysable": "none of the files is readable"}


def _asked(request: dict[str, Any]) -> tuple[list[SourceFile], Limits]:
    study, series = request["series"]
    sources = [
        SourceFile(InstanceReference(study, series, sop_class, sop_instance), Path(path))
        for sop_class, sop_instance, path in request["sources"]
    ]
    return sources, Limits(**request["limits"])


def _said(series: Arranged, sources: Sequence[SourceFile], room: Room) -> dict[str, Any]:
    images = list({id(frame.image): frame.image for frame in series.frames}.values())
    header_of = {id(image): index for index, image in enumerate(images)}
    source_of = {id(source): index for index, source in enumerate(sources)}
    offsets, size = [], 0
    for frame in series.frames:
        offsets.append(size)
        size += -(-4 * frame.form.rows * frame.form.columns // ALIGNMENT) * ALIGNMENT
    headers = _write_headers(images, room)
    block = room.block(size)
    stored = decode_all(series, block, offsets, at_once(series, len(os.sched_getaffinity(0))))
    planes = [
        {
            "source": source_of[id(frame.source)],
            "header": header_of[id(frame.image)],
            "frame": frame.number,
            "shape": (frame.form.rows, frame.form.columns),
            "spacing": frame.spacing,
            "position": frame.position,
            "orientation": frame.orientation,
            "window": window_of(frame),
            "stored": ends,
        }
        for frame, ends in zip(series.frames, stored, strict=True)
    ]
    return {"planes": planes, "headers": headers, "spacing": series.spacing, "notes": series.notes}


class Writable(Protocol):
    """A ``sandbox.Block``."""

    def write(self, offset: int, values: bytes | memoryview) -> None:
        """Copy ``values`` to ``offset``, from any thread."""
        ...


def decode_all(series: Arranged, block: Writable, offsets: Sequence[int], threads: int) -> list[tuple[float, float]]:
    """Write each image of ``series`` to its place in ``offsets`` (bytes), float32; answers what stored bits express.

    Files are decoded by ``threads`` threads. A failure is the first bad file's, in the order of the images.
    Raises NotAnalysable, Transient.
    """

    def decode(places: Sequence[int]) -> None:
        for index, grey in series.decoded(places):
            block.write(offsets[index], np.ascontiguousarray(grey.pixels).data)
            stored[index] = grey.stored_min, grey.stored_max

    stored = [(0.0, 0.0)] * len(offsets)
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(decode, series.by_file()):
            pass
    return stored


def at_once(series: Arranged, cores: int) -> int:
    """How many files are decoded at once: large ones one by one, so that they take no more memory than one does."""
    forms = (frame.form for frame in series.frames)
    largest = max(form.rows * form.columns * form.frames * form.bits_allocated // 8 for form in forms)
    return min(_MOST_AT_ONCE, cores) if largest <= _SMALL_FILE else 1


def _write_headers(images: Sequence[SourceHeader], room: Room) -> list[tuple[str, int]]:
    """Headers one after the other in a block; answers the Transfer Syntax UID and the length of each."""
    plain = b"".join(image.plain for image in images)
    room.block(max(1, len(plain))).write(0, plain)
    return [(image.syntax, len(image.plain)) for image in images]
