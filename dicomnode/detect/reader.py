"""Loads Volumes: the files are read by a child process, whose answer is checked before anything is made of it."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import asdict, replace
from types import TracebackType
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydicom import Dataset

from dicomnode.config.detect import DetectSettings
from dicomnode.detect.header_plain import NotPlain, PlainLimits, dataset_of
from dicomnode.detect.reading import ALIGNMENT
from dicomnode.detect.volume_terms import Limits, LoadedVolume, NotAnalysable, SourceFile
from dicomnode.detectors.contract import Plane, Volume
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.errors import Permanent
from dicomnode.sandbox import Answer, Sandbox, SandboxLimits

_SERIES, _HEADER = "dicomnode.detect.reading:read_series", "dicomnode.detect.reading:read_first_header"
_MIB, _HEADER_BYTES = 1 << 20, 256 << 20
_Length = Annotated[int, Field(ge=0)]
_Side = Annotated[int, Field(gt=0, lt=1 << 16)]
_Millimetres = tuple[float, float]


class _Said(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class _SaidPlane(_Said):
    source: _Length
    header: _Length
    frame: Annotated[int, Field(ge=1)] | None
    shape: tuple[_Side, _Side]
    spacing: _Millimetres | None
    position: tuple[float, float, float] | None
    orientation: tuple[float, float, float, float, float, float] | None
    window: tuple[float, float] | None
    stored: tuple[float, float]


class _SaidSeries(_Said):
    planes: Annotated[list[_SaidPlane], Field(max_length=100_000)] = []
    headers: Annotated[list[tuple[Annotated[str, Field(max_length=64)], _Length]], Field(max_length=100_000)] = []
    spacing: float | None = None
    notes: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=100)] = []
    source: _Length = 0
    not_analysable: Annotated[str, Field(max_length=500)] | None = None


class Reader:
    """Reads received files in children of its own, as many at once as ``settings.decoders`` says.

    ``limits``: of the files themselves; the child's own come from ``settings``. Children start with the first call,
    or with ``start``, and end with this object.
    """

    def __init__(self, settings: DetectSettings | None = None, limits: Limits | None = None) -> None:
        settings = settings or DetectSettings()
        self._limits = limits or replace(Limits(), max_series_bytes=settings.volume_memory_mb * _MIB)
        bounds = SandboxLimits(
            memory_bytes=settings.reader_memory_mb * _MIB,
            cpu_s=settings.reader_cpu_s,
            wall_s=settings.reader_wall_s,
            shared_bytes=self._limits.max_series_bytes + ALIGNMENT * self._limits.max_planes + _HEADER_BYTES,
        )
        self._last_bytes = 0
        self._sandbox = Sandbox((_SERIES, _HEADER), bounds, settings.decoders)

    def start(self) -> None:
        """Start a child now, so that the first Series does not wait for it. Raises Transient."""
        self._sandbox.start()

    def prepare(self) -> None:
        """Make memory for a Series like the last that was loaded, while no analysis is going on; returns at once."""
        self._sandbox.prepare(self._last_bytes)

    def close(self) -> None:
        """End the children."""
        self._sandbox.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def load(self, summary: SeriesSummary, sources: Sequence[SourceFile], limits: Limits | None = None) -> LoadedVolume:
        """Build the Volume of one Series from its files, whatever their order; see ``volume.arrange``.

        Pixels as ``contract.Plane`` says, see ``pixels.to_grey``. What was left out or chosen is in ``Volume.notes``.
        Raises NotAnalysable with a reason free of patient data, Permanent when the files break a limit of the child,
        Transient when the file system fails.
        """
        answer = self._sandbox.call(_SERIES, _request(sources, limits or self._limits))
        said = _checked(answer.content)
        try:
            loaded = _loaded(summary, sources, said, answer)
            self._last_bytes = len(answer.blocks[1])  # of sound images only: what others ask for is not kept
        except (NotPlain, ValueError, LookupError) as error:
            raise Permanent("the reader gave an answer that makes no sense") from error
        return loaded

    def first_header(self, sources: Sequence[SourceFile]) -> tuple[SourceFile, Dataset]:
        """The first source whose header can be read, and that without pixels. Raises as ``load`` does."""
        answer = self._sandbox.call(_HEADER, _request(sources, self._limits))
        said = _checked(answer.content)
        try:
            return sources[said.source], _headers(said, answer.blocks[0])[0]
        except (NotPlain, ValueError, LookupError) as error:
            raise Permanent("the reader gave an answer that makes no sense") from error


def _request(sources: Sequence[SourceFile], limits: Limits) -> dict[str, Any]:
    """What ``reading`` is asked. Raises NotAnalysable without any source."""
    if not sources:
        raise NotAnalysable("the series has no instances")
    series = sources[0].reference.series
    files = [(one.reference.SOPClassUID, one.reference.SOPInstanceUID, str(one.path)) for one in sources]
    return {
        "series": (series.StudyInstanceUID, series.SeriesInstanceUID),
        "sources": files,
        "limits": asdict(limits),
    }


def _checked(content: bytes) -> _SaidSeries:
    try:
        said = _SaidSeries.model_validate_json(content)
    except ValidationError as error:
        raise Permanent("the reader gave an answer that makes no sense") from error
    if said.not_analysable is not None:
        raise NotAnalysable("".join(letter if letter.isprintable() else " " for letter in said.not_analysable))
    return said


def _loaded(summary: SeriesSummary, sources: Sequence[SourceFile], said: _SaidSeries, answer: Answer) -> LoadedVolume:
    headers = _headers(said, answer.blocks[0])
    planes, at = [], 0
    for plane in said.planes:
        rows, columns = plane.shape
        pixels = np.frombuffer(answer.blocks[1], np.float32, rows * columns, at).reshape(rows, columns)
        at += -(-4 * rows * columns // ALIGNMENT) * ALIGNMENT
        planes.append(
            Plane(
                pixels=pixels,
                source=sources[plane.source].reference,
                frame=plane.frame,
                spacing=plane.spacing,
                position=plane.position,
                orientation=plane.orientation,
                window=plane.window,
                stored_min=plane.stored[0],
                stored_max=plane.stored[1],
            )
        )
    volume = Volume(summary, tuple(planes), said.spacing, tuple(said.notes))
    return LoadedVolume(volume, tuple(headers[plane.header] for plane in said.planes))


def _headers(said: _SaidSeries, block: mmap.mmap) -> list[Dataset]:
    found, at, limits = [], 0, PlainLimits()
    for syntax, length in said.headers:
        if at + length > len(block):
            raise NotPlain
        found.append(dataset_of(block[at : at + length], syntax, limits))
        at += length
    return found
