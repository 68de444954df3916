"""A made-up head above the orbits, as tissue labels per axial slice.

Coordinates are patient coordinates in mm: x to the left, y to the back, z to the vertex, origin in the midline.
Sulci and cortex are level sets of a smooth random field, which folds much as gyri do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from dicomnode.demo.phantoms_texture import Field, enlarge, ramp, smooth_noise

Labels = npt.NDArray[np.uint8]
LESION_AXES_MM = (15.0, 19.0, 14.0)
SLICE_MM = 5.0
N_SLICES = 20
_COARSE = 128
_BASE_MM = 42.0
_WIDEST_MM = 52.0
_HEIGHT_MM = 92.0


class Tissue(IntEnum):
    """Labels of a head slice, in the order of the intensity tables."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    CORTICAL_BONE = 4
    DIPLOE = 5
    CSF = 6
    GREY_MATTER = 7
    WHITE_MATTER = 8
    DEEP_GREY = 9
    FALX = 10
    OEDEMA = 11
    LESION = 12


@dataclass(frozen=True, slots=True)
class HeadSlice:
    """One axial slice: ``z`` (mm), tissue ``labels`` (size, size), ``depth`` below the skin (mm)."""

    z: float
    labels: Labels
    depth: Field
    x: Field
    y: Field


@dataclass(frozen=True, slots=True)
class _Fields:
    folds: Field
    wobble: Field
    border: Field


def head_slices(rng: np.random.Generator, size: int, spacing: float, oedema_mm: float) -> Iterator[HeadSlice]:
    """Yield the slices of one head from the suprasellar level to the vertex, with one lesion and its oedema.

    ``size``: pixels per side, ``spacing``: mm per pixel. The lesion is an irregular ellipsoid in the white matter
    of one hemisphere, the side drawn from ``rng``.
    """
    fields = _draw_fields(rng, size * spacing)
    side = float(rng.choice([-1.0, 1.0]))
    centre = np.array([side * rng.uniform(30, 34), rng.uniform(-6, 10), rng.uniform(76, 82)])
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * np.float32(spacing)
    x, y = np.meshgrid(axis, axis)
    for index in range(N_SLICES):
        z = _BASE_MM + SLICE_MM * index
        here = _Fields(*(enlarge(field[index], size) for field in (fields.folds, fields.wobble, fields.border)))
        head = _layers(x, y, z, here)
        _brain(head, here)
        _add_lesion(head, here.border, centre, oedema_mm)
        yield head


def _draw_fields(rng: np.random.Generator, extent: float) -> _Fields:
    """Draw the folds (about 5 mm), the wobble of surfaces (14 mm) and the ragged lesion border (6 mm)."""
    pixel = extent / _COARSE
    shape = (N_SLICES, _COARSE, _COARSE)

    def draw(plane_mm: float, z_mm: float) -> Field:
        return smooth_noise(rng, shape, (z_mm / SLICE_MM, plane_mm / pixel, plane_mm / pixel))

    return _Fields(draw(4.2, 7.0), draw(14.0, 12.0), draw(5.0, 6.0))


def _layers(x: Field, y: Field, z: float, fields: _Fields) -> HeadSlice:
    """Skin, fat, temporal muscle and skull; a slice near the vertex cuts them obliquely and shows them thicker."""
    above = max(0.0, z - _WIDEST_MM) / _HEIGHT_MM
    scale = float(np.sqrt(1 - above**2))
    half_y = 95 * scale
    half_x = 76 * scale * (1 + 0.09 * np.clip(y / half_y, -1, 1))
    radius = (np.abs(x / half_x) ** 2.25 + np.abs(y / half_y) ** 2.25) ** (1 / 2.25)
    depth = np.hypot(x, y) * (1 / np.maximum(radius, 1e-3) - 1)
    oblique = 1 / scale**0.8
    low = float(ramp(z, 85, 50))
    temporal = 8 * low * np.exp(-(((y + 25) / 24) ** 2)) * ramp(np.abs(x), 35, 60)
    scalp = (5.0 + 0.6 * fields.wobble) * oblique + temporal
    skull = (5.8 + 0.8 * fields.wobble + 2.5 * ramp(np.abs(y), 60, 85)) * oblique
    labels = np.zeros(x.shape, np.uint8)
    labels[depth > 0] = Tissue.SKIN
    labels[depth > (1.6 + 0.4 * fields.border) * oblique] = Tissue.FAT
    labels[(depth > scalp - temporal) & (temporal > 1.5)] = Tissue.MUSCLE
    inside = depth - scalp
    labels[inside > 0] = Tissue.CORTICAL_BONE
    labels[(inside > 0.30 * skull) & (inside < 0.68 * skull)] = Tissue.DIPLOE
    brain_depth = np.asarray(inside - skull, np.float32)
    labels[brain_depth > 0] = Tissue.CSF
    return HeadSlice(z, labels, brain_depth, x, y)


def _brain(head: HeadSlice, fields: _Fields) -> None:
    labels, depth = head.labels, head.depth
    high = float(ramp(head.z, 80, 130))
    midline = np.abs(head.x + 1.2 * fields.wobble)
    surface = np.minimum(depth, midline + 3 - 2 * high)
    brain = depth > 1.3 + 1.2 * high + 0.6 * fields.wobble
    labels[brain] = Tissue.WHITE_MATTER
    fold = np.abs(fields.folds)
    cortical = ramp(surface, 30, 20)
    labels[brain & ((fold < 0.50 * cortical) | (surface < 4.5))] = Tissue.GREY_MATTER
    _deep_grey(head, brain)
    sulcus = (0.07 + 0.07 * high) * ramp(surface, 24, 8)
    labels[brain & (fold < sulcus)] = Tissue.CSF
    _fluid_spaces(head, fields, brain)
    joined = 27 * float(ramp(head.z, 98, 86))  # half length of the part where the hemispheres join
    fissure = brain & (np.abs(head.y - 3) > joined + 1.5 * fields.border)
    labels[fissure & (midline < 1.3 + 0.4 * high)] = Tissue.CSF
    labels[fissure & (midline < 0.7)] = Tissue.FALX


def _ellipse(head: HeadSlice, centre: tuple[float, float], axes: tuple[float, float], tilt: float = 0.0) -> Field:
    """Radius in units of ``axes`` (1 on the outline) of an ellipse that is mirrored on the midline."""
    u = np.abs(head.x) - centre[0]
    v = head.y - centre[1]
    cos, sin = np.cos(tilt), np.sin(tilt)
    return np.asarray(np.hypot((u * cos + v * sin) / axes[0], (v * cos - u * sin) / axes[1]), np.float32)


def _present(z: float, low: float, high: float) -> float:
    """Size (0..1) at height ``z`` of a structure that lives between ``low`` and ``high`` mm."""
    middle, half = (low + high) / 2, (high - low) / 2
    return float(np.sqrt(max(0.0, 1 - ((z - middle) / half) ** 2)))


def _deep_grey(head: HeadSlice, brain: npt.NDArray[np.bool_]) -> None:
    nuclei = (
        ((13.0, -17.0), (4.5, 8.0), 0.2, 50, 86),  # caudate
        ((25.0, -2.0), (6.5, 16.0), -0.25, 48, 76),  # lentiform
        ((10.5, 13.0), (8.0, 12.0), -0.4, 54, 78),  # thalamus
    )
    for centre, axes, tilt, low, high in nuclei:
        size = _present(head.z, low, high)
        if size > 0:
            head.labels[brain & (_ellipse(head, centre, axes, tilt) < size)] = Tissue.DEEP_GREY


def _fluid_spaces(head: HeadSlice, fields: _Fields, brain: npt.NDArray[np.bool_]) -> None:
    """Ventricles, cisterns and Sylvian fissures."""
    spaces = (
        ((7.5, -26.0), (3.6, 12.0), -0.35, 52, 92),  # frontal horn
        ((11.0, 2.0), (4.2, 24.0), 0.22, 74, 96),  # body
        ((22.0, 34.0), (4.5, 12.0), 0.45, 52, 84),  # trigone
        ((0.0, 8.0), (2.4, 12.0), 0.0, 44, 68),  # third ventricle
        ((0.0, -8.0), (15.0, 7.0), 0.0, 20, 50),  # suprasellar cistern
        ((0.0, 26.0), (11.0, 4.0), 0.0, 30, 56),  # quadrigeminal cistern
    )
    for centre, axes, tilt, low, high in spaces:
        size = _present(head.z, low, high)
        if size > 0:
            head.labels[brain & (_ellipse(head, centre, axes, tilt) + 0.10 * fields.border < size)] = Tissue.CSF
    width = 2.2 * _present(head.z, 34, 74)
    lateral = np.abs(head.x)
    course = head.y + 14 - 0.25 * (62 - lateral) - 2 * fields.border
    head.labels[brain & (lateral > 38) & (np.abs(course) < width)] = Tissue.CSF


def _add_lesion(head: HeadSlice, border: Field, centre: npt.NDArray[np.float64], oedema_mm: float) -> None:
    a, b, c = LESION_AXES_MM
    radius = np.sqrt(
        ((head.x - centre[0]) / a) ** 2 + ((head.y - centre[1]) / b) ** 2 + ((head.z - centre[2]) / c) ** 2
    )
    ragged = radius + 0.10 * border
    brain = np.isin(head.labels, (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.DEEP_GREY, Tissue.CSF))
    brain &= head.depth > 4
    halo = 1 + oedema_mm / (a + b) * 2 * (1 + 0.35 * border)
    head.labels[brain & (ragged < halo) & (head.labels == Tissue.WHITE_MATTER)] = Tissue.OEDEMA
    head.labels[brain & (ragged < 1)] = Tissue.LESION
