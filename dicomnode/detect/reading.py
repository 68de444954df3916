"""What the child process does for ``reader``: it alone opens received files. No torch in here."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dicomnode.detect.header_plain import PlainLimits
from dicomnode.detect.source_bytes import SourceHeader, read_source
from dicomnode.detect.volume import Arranged, arrange, window_of
from dicomnode.detect.volume_terms import Limits, NotAnalysable, SourceFile
from dicomnode.dicom.references import InstanceReference
from dicomnode.sandbox import Room

ALIGNMENT = 64
"""Planes begin at multiples of so many bytes in the block that holds them."""


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
    planes: list[dict[str, Any]] = [{}] * len(offsets)
    for index, grey in series.decoded():
        frame = series.frames[index]
        block.write(offsets[index], np.ascontiguousarray(grey.pixels).data)
        planes[index] = {
            "source": source_of[id(frame.source)],
            "header": header_of[id(frame.image)],
            "frame": frame.number,
            "shape": (frame.form.rows, frame.form.columns),
            "spacing": frame.spacing,
            "position": frame.position,
            "orientation": frame.orientation,
            "window": window_of(frame),
            "stored": (grey.stored_min, grey.stored_max),
        }
    return {"planes": planes, "headers": headers, "spacing": series.spacing, "notes": series.notes}


def _write_headers(images: Sequence[SourceHeader], room: Room) -> list[tuple[str, int]]:
    """Headers one after the other in a block; answers the Transfer Syntax UID and the length of each."""
    block, at = room.block(max(1, sum(len(image.plain) for image in images))), 0
    for image in images:
        block.write(at, image.plain)
        at += len(image.plain)
    return [(image.syntax, len(image.plain)) for image in images]
