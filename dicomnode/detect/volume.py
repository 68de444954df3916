"""From the files of a Series to ``contract.Volume``, or the reason why it cannot be analysed."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from pydicom import Dataset

from dicomnode.detect.pixels import expressible_range, inverted_window, is_inverted, to_grey
from dicomnode.detect.pixels_codec import Stored, stored_frames
from dicomnode.detect.volume_frames import Frame, frames_of
from dicomnode.detect.volume_header import read_header, read_whole
from dicomnode.detect.volume_screen import PROJECTION, left_out, only_unsuitable, unsuitable
from dicomnode.detect.volume_stack import Stack, build_stack
from dicomnode.detect.volume_terms import Limits, LoadedVolume, NotAnalysable, SourceFile
from dicomnode.detectors.contract import Plane, Volume
from dicomnode.dicom.summary import SeriesSummary

__all__ = ["Limits", "LoadedVolume", "NotAnalysable", "SourceFile", "load_volume"]

_BYTES_OF_FLOAT32 = 4


def load_volume(summary: SeriesSummary, sources: Sequence[SourceFile], limits: Limits | None = None) -> LoadedVolume:
    """Build the Volume of one Series from its files, whatever their order.

    Slices (CT, MR, PET, single- and multi-frame): one stack in anatomical order, see ``volume_stack.build_stack``
    and ``geometry.examine_stack``. Projections: each image is a plane, in the order of Instance Number. Pixels as
    ``contract.Plane`` says, see ``pixels.to_grey``. What was left out or chosen is in ``Volume.notes``.
    Raises NotAnalysable with a reason free of patient data, Transient when the file system fails.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes element values in its warnings
        return _load(summary, sources, limits or Limits())


def _load(summary: SeriesSummary, sources: Sequence[SourceFile], limits: Limits) -> LoadedVolume:
    frames, notes = _suitable_frames(sources, limits)
    if all(frame.source.reference.SOPClassUID in PROJECTION for frame in frames):
        stack = Stack(tuple(sorted(frames, key=lambda frame: frame.order)), None, ())
    else:
        stack = build_stack(frames, lambda chosen: _stored(chosen, limits))
    planes = _planes(stack.frames, limits)
    volume = Volume(summary, planes, stack.spacing, (*notes, *stack.notes))
    return LoadedVolume(volume, tuple(frame.header for frame in stack.frames))


def _suitable_frames(sources: Sequence[SourceFile], limits: Limits) -> tuple[list[Frame], tuple[str, ...]]:
    frames: list[Frame] = []
    excluded: list[str] = []
    for source in _each_once(sources):
        header = read_header(source.path, limits)
        why_not = unsuitable(source, header)
        if why_not is None:
            frames += frames_of(source, header, limits)
        else:
            excluded.append(why_not)
    if not frames:
        raise only_unsuitable(excluded) if excluded else NotAnalysable("the series has no instances")
    _refuse_mixture(frames)
    return frames, left_out(excluded)


def _each_once(sources: Sequence[SourceFile]) -> Iterable[SourceFile]:
    """One file of each Instance, in an order that does not depend on the order of ``sources``."""
    first: dict[str, SourceFile] = {}
    for source in sorted(sources, key=lambda source: (source.reference.SOPInstanceUID, str(source.path))):
        first.setdefault(source.reference.SOPInstanceUID, source)
    return first.values()


def _refuse_mixture(frames: Sequence[Frame]) -> None:
    kinds = {frame.source.reference.SOPClassUID in PROJECTION for frame in frames}
    if len(kinds) > 1:
        raise NotAnalysable("the series mixes projections and slices")


def _planes(frames: Sequence[Frame], limits: Limits) -> tuple[Plane, ...]:
    if len(frames) > limits.max_planes:
        raise NotAnalysable(f"the series has more than {limits.max_planes} images")
    if sum(frame.form.rows * frame.form.columns for frame in frames) * _BYTES_OF_FLOAT32 > limits.max_series_bytes:
        raise NotAnalysable(f"the series needs more than {limits.max_series_bytes} bytes of memory")
    made = {id(frame): _plane(frame, decoded) for frame, decoded in _decoded(frames, limits)}
    return tuple(made[id(frame)] for frame in frames)


def _plane(frame: Frame, decoded: tuple[Stored, Stored]) -> Plane:
    grey = to_grey(frame.header, frame.form, frame.lut, decoded)
    return Plane(
        pixels=grey.pixels,
        source=frame.source.reference,
        frame=frame.number,
        spacing=frame.spacing,
        position=frame.position,
        orientation=frame.orientation,
        window=_window(frame),
        stored_min=grey.stored_min,
        stored_max=grey.stored_max,
    )


def _window(frame: Frame) -> tuple[float, float] | None:
    if frame.window is None or not is_inverted(frame.header):
        return frame.window
    return inverted_window(frame.window, expressible_range(frame.form, frame.lut), linear=frame.linear_window)


def _stored(frames: Sequence[Frame], limits: Limits) -> Iterator[tuple[Frame, Stored]]:
    for frame, (stored, _) in _decoded(frames, limits):
        yield frame, stored


def _decoded(frames: Sequence[Frame], limits: Limits) -> Iterator[tuple[Frame, tuple[Stored, Stored]]]:
    """Each frame with its (stored values, whole words); every file is read once."""
    by_instance: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_instance[frame.source.reference.SOPInstanceUID].append(frame)
    for members in by_instance.values():
        members.sort(key=lambda frame: frame.index)
        dataset: Dataset = read_whole(members[0].source.path, limits)
        arrays = stored_frames(dataset, members[0].form, [frame.index for frame in members])
        yield from zip(members, arrays, strict=True)
