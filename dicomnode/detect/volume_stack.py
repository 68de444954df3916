"""From the frames of a CT, MR or PET series to one stack of planes, or the reason why there is none."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from dicomnode.detect.geometry import (
    Orientation,
    Spot,
    Vector,
    along,
    examine_stack,
    places,
    same_orientation,
    stacking_axis,
)
from dicomnode.detect.pixels_codec import Stored
from dicomnode.detect.volume_frames import DISTINGUISHING, Frame
from dicomnode.detect.volume_header import integer, number
from dicomnode.detect.volume_screen import LOCALISER, left_out, only_unsuitable
from dicomnode.detect.volume_terms import NotAnalysable

_STRAYS, _STRAY_SHARE, _SPACING_TOLERANCE = 3, 5, 0.01
_MAX_TAGS = 3
_PHASE = frozenset({"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY", "SW_P", "VELOCITY"})

Decode = Callable[[Sequence[Frame]], Iterable[tuple[Frame, Stored]]]
"""Stored values of frames, used to compare images at one place."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Frames in anatomical order, with their spacing in mm when they are evenly spaced, and notes."""

    frames: tuple[Frame, ...]
    spacing: float | None
    notes: tuple[str, ...]


def build_stack(frames: Sequence[Frame], decode: Decode) -> Stack:
    """Pick and order the one stack of a Series.

    Localisers are left out. Other orientations, matrices or pixel spacings are left out when they are at most three
    images and the rest is five times as many; otherwise the Series is refused. Images sent twice are kept once. Of
    several images at each place (echoes, time points, b values, ...) the first complete set is taken, magnitude
    and original images before others; each choice leaves a note. The result does not depend on the order of
    ``frames``. Raises NotAnalysable with the reason.
    """
    ordered = sorted(frames, key=lambda frame: frame.order)
    images = [frame for frame in ordered if "LOCALIZER" not in frame.image_type]
    if not images:
        raise only_unsuitable([LOCALISER])
    notes = list(left_out([LOCALISER] * (len(ordered) - len(images))))
    _require_geometry(images)
    images, strays = _main_group(images)
    axis = stacking_axis(_orientation(images[0]))
    images, doubles = _without_doubles(images, _by_place(images, axis), decode)
    stack, split = _one_per_place(images, _by_place(images, axis))
    report = examine_stack(axis, [_spot(frame) for frame in stack])
    return Stack(tuple(stack), report.spacing, (*notes, *strays, *doubles, *split, *report.notes))


def _require_geometry(frames: Sequence[Frame]) -> None:
    for name, attribute in (
        ("Image Position (Patient)", "position"),
        ("valid Image Orientation (Patient)", "orientation"),
        ("valid Pixel Spacing", "spacing"),
    ):
        missing = sum(getattr(frame, attribute) is None for frame in frames)
        if missing:
            raise NotAnalysable(f"{missing} of {len(frames)} images have no {name}")


def _orientation(frame: Frame) -> Orientation:
    if frame.orientation is None:
        raise NotAnalysable("an image has no valid Image Orientation (Patient)")
    return frame.orientation


def _position(frame: Frame) -> tuple[float, float, float]:
    if frame.position is None:
        raise NotAnalysable("an image has no Image Position (Patient)")
    return frame.position


def _same_grid(one: Frame, other: Frame) -> bool:
    shape = (one.form.rows, one.form.columns) == (other.form.rows, other.form.columns)
    pairs = zip(one.spacing or (), other.spacing or (), strict=True)
    return shape and all(abs(a - b) <= _SPACING_TOLERANCE * abs(b) for a, b in pairs)


def _groups(frames: Sequence[Frame], alike: Callable[[Frame, Frame], bool]) -> list[list[Frame]]:
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if alike(group[0], frame):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return sorted(groups, key=len, reverse=True)


def _main_group(frames: list[Frame]) -> tuple[list[Frame], tuple[str, ...]]:
    notes: list[str] = []
    tests: tuple[tuple[str, Callable[[Frame, Frame], bool]], ...] = (
        ("orientations", lambda a, b: same_orientation(_orientation(a), _orientation(b))),
        ("image sizes or pixel spacings", _same_grid),
    )
    for what, alike in tests:
        groups = _groups(frames, alike)
        rest = len(frames) - len(groups[0])
        if rest and (rest > _STRAYS or len(groups[0]) < _STRAY_SHARE * rest):
            sizes = ", ".join(str(len(group)) for group in groups[:6])
            raise NotAnalysable(
                f"mixed {what}: {len(groups)} groups ({sizes} images{'' if len(groups) < 7 else ', …'})"
            )
        if rest:
            notes.append(f"left out: {rest} stray images (mixed {what})")
        frames = groups[0]
    return frames, tuple(notes)


def _by_place(frames: Sequence[Frame], axis: Vector) -> list[list[Frame]]:
    found = places(along(axis, [_position(frame) for frame in frames]))
    return [[frames[index] for index in sorted(place)] for place in found]


def _without_doubles(
    frames: Sequence[Frame], at_place: Sequence[Sequence[Frame]], decode: Decode
) -> tuple[list[Frame], tuple[str, ...]]:
    """Drop images that have the same place, the same tags and the same pixels as an earlier one."""
    suspects: list[Frame] = []
    for place in at_place:
        alike = Counter(_tag_key(frame) for frame in place)
        suspects += [frame for frame in place if alike[_tag_key(frame)] > 1]
    if not suspects:
        return list(frames), ()
    digests = {id(frame): hashlib.sha256(stored.tobytes()).digest() for frame, stored in decode(suspects)}
    drop: set[int] = set()
    for place in at_place:
        seen: set[tuple[object, ...]] = set()
        for frame in place:
            key = (_tag_key(frame), digests.get(id(frame), frame.order))
            if key in seen:
                drop.add(id(frame))
            seen.add(key)
    note = (f"left out: {len(drop)} images that were sent twice",) if drop else ()
    return [frame for frame in frames if id(frame) not in drop], note


def _tag_key(frame: Frame) -> tuple[str, ...]:
    return tuple(frame.tags.get(keyword, "") for keyword in DISTINGUISHING)


def _one_per_place(frames: Sequence[Frame], at_place: Sequence[Sequence[Frame]]) -> tuple[list[Frame], tuple[str, ...]]:
    """The first complete set of images, told apart by as few tags as possible."""
    if all(len(place) == 1 for place in at_place):
        return [place[0] for place in at_place], ()
    varying = [keyword for keyword in DISTINGUISHING if len({frame.tags.get(keyword, "") for frame in frames}) > 1]
    for size in range(1, _MAX_TAGS + 1):
        for keywords in combinations(varying, size):
            chosen = _first_complete(keywords, at_place)
            if chosen is not None:
                return chosen, (_split_note(keywords, frames, at_place),)
    most = max(len(place) for place in at_place)
    raise NotAnalysable(
        f"up to {most} images lie at the same place ({len(frames)} images, {len(at_place)} places), and no tag tells "
        "complete sets apart"
    )


def _first_complete(keywords: tuple[str, ...], at_place: Sequence[Sequence[Frame]]) -> list[Frame] | None:
    sets: dict[tuple[str, ...], list[Frame]] = defaultdict(list)
    for place in at_place:
        for frame in place:
            sets[tuple(frame.tags.get(keyword, "") for keyword in keywords)].append(frame)
    whole = [
        members
        for members in sets.values()
        if len(members) == len(at_place) and all(any(m in place for m in members) for place in at_place)
    ]
    return min(whole, key=lambda members: _preference(keywords, members[0])) if whole else None


def _preference(keywords: tuple[str, ...], frame: Frame) -> tuple[object, ...]:
    kinds = set(frame.image_type) | {value.rsplit("_", 1)[0] for value in frame.image_type}
    unwanted = (bool(kinds & _PHASE), "ORIGINAL" not in kinds)
    return (*unwanted, *(_sortable(frame.tags.get(keyword, "")) for keyword in keywords), frame.order)


def _sortable(value: str) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return float("inf"), value


def _split_note(keywords: tuple[str, ...], frames: Sequence[Frame], at_place: Sequence[Sequence[Frame]]) -> str:
    rest = len(frames) - len(at_place)
    names = " and ".join(keywords)
    return f"several images at each place, told apart by {names}: the first complete set is analysed, {rest} left out"


def _spot(frame: Frame) -> Spot:
    return Spot(
        _position(frame),
        number=integer(frame.header, "InstanceNumber") if frame.number is None else frame.number,
        thickness=frame.thickness,
        between=number(frame.header, "SpacingBetweenSlices") if frame.number is None else None,
    )
