"""From the files of a Series to the planes of ``contract.Volume``, or the reason why it cannot be analysed.

Runs in the child process (``reading``); ``reader`` makes the Volume of what it says.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dicomnode.detect.header_plain import PlainLimits
from dicomnode.detect.pixels import Grey, expressible_range, inverted_window, is_inverted, to_grey
from dicomnode.detect.pixels_codec import Stored, Words, stored_frames
from dicomnode.detect.source_bytes import read_source
from dicomnode.detect.volume_frames import Frame, frames_of
from dicomnode.detect.volume_screen import PROJECTION, left_out, only_unsuitable, unsuitable
from dicomnode.detect.volume_stack import Stack, build_stack
from dicomnode.detect.volume_terms import Limits, LoadedVolume, NotAnalysable, SourceFile

__all__ = ["Arranged", "Limits", "LoadedVolume", "NotAnalysable", "SourceFile", "arrange"]

_BYTES_OF_FLOAT32 = 4


@dataclass(frozen=True, slots=True, eq=False)
class Arranged:
    """The images of a Series in the order of its Volume, pixels still undecoded, with the Volume's notes."""

    frames: tuple[Frame, ...]
    spacing: float | None
    notes: tuple[str, ...]
    limits: Limits

    def by_file(self) -> list[list[int]]:
        """Places in ``frames``, those of one file together: a file is decoded in one go."""
        return _by_file(self.frames)

    def decoded(self, places: Sequence[int]) -> Iterator[tuple[int, Grey]]:
        """The images at ``places``, which are all of one file, as their place and their pixels.

        Raises NotAnalysable with a reason free of patient data, Transient when the file system fails.
        """
        place = {id(self.frames[index]): index for index in places}
        for frame, words in _decoded([self.frames[index] for index in places], self.limits):
            yield place[id(frame)], to_grey(frame.header, frame.form, frame.lut, words)


def arrange(sources: Sequence[SourceFile], limits: Limits) -> Arranged:
    """Read the headers of one Series, whatever the order of its files, and put its images in order.

    Slices (CT, MR, PET, single- and multi-frame): one stack in anatomical order, see ``volume_stack.build_stack``
    and ``geometry.examine_stack``. Projections: each image is a plane, in the order of Instance Number.
    Raises NotAnalysable with a reason free of patient data, Transient when the file system fails.
    """
    frames, notes = _suitable_frames(sources, limits)
    if all(frame.source.reference.SOPClassUID in PROJECTION for frame in frames):
        stack = Stack(tuple(sorted(frames, key=lambda frame: frame.order)), None, ())
    else:
        stack = build_stack(frames, lambda chosen: _stored(chosen, limits))
    _refuse_too_large(stack.frames, limits)
    return Arranged(stack.frames, stack.spacing, (*notes, *stack.notes), limits)


def _suitable_frames(sources: Sequence[SourceFile], limits: Limits) -> tuple[list[Frame], tuple[str, ...]]:
    frames: list[Frame] = []
    excluded: list[str] = []
    budget = PlainLimits()
    for source in _each_once(sources):
        image = read_source(source.path, limits, budget)
        why_not = unsuitable(source, image.dataset)
        if why_not is None:
            frames += frames_of(source, image, limits)
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


def _refuse_too_large(frames: Sequence[Frame], limits: Limits) -> None:
    if len(frames) > limits.max_planes:
        raise NotAnalysable(f"the series has more than {limits.max_planes} images")
    if sum(frame.form.rows * frame.form.columns for frame in frames) * _BYTES_OF_FLOAT32 > limits.max_series_bytes:
        raise NotAnalysable(f"the series needs more than {limits.max_series_bytes} bytes of memory")
    for frame in frames:
        if not all(map(math.isfinite, expressible_range(frame.form, frame.lut))):
            raise NotAnalysable("the rescale of an image gives values that are no numbers")


def window_of(frame: Frame) -> tuple[float, float] | None:
    """(centre, width) of the image as its plane shows it (MONOCHROME2), or None."""
    if frame.window is None or not is_inverted(frame.header):
        return frame.window
    return inverted_window(frame.window, expressible_range(frame.form, frame.lut), linear=frame.linear_window)


def _stored(frames: Sequence[Frame], limits: Limits) -> Iterator[tuple[Frame, Stored]]:
    for frame, (stored, _) in _decoded(frames, limits):
        yield frame, stored


def _by_file(frames: Sequence[Frame]) -> list[list[int]]:
    files: dict[str, list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        files[frame.source.reference.SOPInstanceUID].append(index)
    return list(files.values())


def _decoded(frames: Sequence[Frame], limits: Limits) -> Iterator[tuple[Frame, Words]]:
    """Each frame with its (stored values, whole words); every file is read once."""
    for places in _by_file(frames):
        members = sorted((frames[place] for place in places), key=lambda frame: frame.index)
        first = members[0]
        arrays = stored_frames(first.image, first.form, [frame.index for frame in members], limits)
        yield from zip(members, arrays, strict=True)
