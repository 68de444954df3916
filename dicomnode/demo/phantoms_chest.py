"""Attenuation of a made-up chest, seen from behind: body, lungs, heart, bones, vessels, one consolidation.

Coordinates in mm on the detector: x to the patient's left (right on the image), y down from the top edge, x = 0 in
the middle. Attenuation is in units in which the abdomen is about 1 and a lung about 0.35.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from dicomnode.demo.phantoms_texture import Field, blur, ramp, smooth_noise

_BODY = 0.88
_LUNG_AIR = 0.36
_Bool = npt.NDArray[np.bool_]


def chest_attenuation(rng: np.random.Generator, size: int, spacing: float) -> tuple[Field, Field]:
    """Return (attenuation, opacity 0..1), both (size, size); ``spacing`` in mm per pixel."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(spacing)
    x, y = np.meshgrid(axis - axis.mean(), axis)
    x = x + rng.uniform(-4, 4)
    wobble = smooth_noise(rng, (size, size), 18.0)
    total = _BODY * _body(x, y, wobble)
    lungs, air = _lungs(x, y, wobble, spacing)
    total -= _LUNG_AIR * air * (1 + 0.04 * wobble)
    total += _mediastinum(x, y, wobble)
    total += _bones(x, y, lungs)
    vessels = _vessels(rng, size, spacing, float(axis.mean()))
    total += 0.11 * vessels * ramp(air, 0.05, 0.4)
    opacity = _opacity(rng, x, y, lungs, spacing)
    grain = 1 + 0.10 * smooth_noise(rng, (size, size), 4.0)
    total += 0.36 * opacity * grain
    return np.asarray(total, np.float32), opacity


def _body(x: Field, y: Field, wobble: Field) -> Field:
    """Thickness of soft tissue (abdomen 1): neck, sloping shoulders, trunk; air beside the neck and the trunk."""
    neck = 56 + 4 * wobble
    slope = ramp(y, 5, 95)
    half_width = neck + (178 - neck) * slope**0.55 - 22 * ramp(y, 130, 330) + 1.2 * wobble
    inside = np.clip(1 - (np.abs(x) / half_width) ** 2, 0, 1)
    height = 0.72 + 0.10 * ramp(y, 20, 120) + 0.18 * ramp(y, 170, 300)
    return np.asarray(inside**0.36 * height, np.float32)


def _lungs(x: Field, y: Field, wobble: Field, spacing: float) -> tuple[_Bool, Field]:
    """Both lungs as a mask, and their air along the beam (0..1)."""
    lateral = 134 * np.sqrt(np.clip(1 - (np.minimum(y - 172, 0) / 136) ** 2, 0, 1)) + 8 * ramp(y, 172, 280)
    right_dome = 252 - 26 * np.clip(1 - ((x + 74) / 76) ** 2, -1.6, 1) + 3 * wobble
    left_dome = 260 - 22 * np.clip(1 - ((x - 84) / 70) ** 2, -1.6, 1) + 3 * wobble
    right_edge = -(24 + 10 * ramp(y, 150, 210))
    left_edge = 22 + 10 * ramp(y, 60, 90)
    right = (x < right_edge) & (x > -lateral) & (y < right_dome)
    left = (x > left_edge) & (x < lateral) & (y < left_dome)
    apex = 46 + 0.016 * (np.abs(x) - 48) ** 2
    lungs = (right | left) & (y > apex)
    distance = ndimage.distance_transform_edt(lungs).astype(np.float32) * np.float32(spacing)
    air = np.sqrt(np.clip(1 - (1 - np.minimum(distance, 45) / 45) ** 2, 0, 1))
    return lungs, blur(air * (0.82 + 0.18 * ramp(y, 240, 120)), 1.6)


def _oval(x: Field, y: Field, centre: tuple[float, float], axes: tuple[float, float], tilt: float = 0.0) -> Field:
    """Thickness (0..1) of an ellipsoid seen along the beam."""
    u, v = x - centre[0], y - centre[1]
    cos, sin = np.cos(tilt), np.sin(tilt)
    radius2 = ((u * cos + v * sin) / axes[0]) ** 2 + ((v * cos - u * sin) / axes[1]) ** 2
    return np.asarray(np.sqrt(np.clip(1 - radius2, 0, 1)), np.float32)


def _mediastinum(x: Field, y: Field, wobble: Field) -> Field:
    """Heart, great vessels, aortic knob, hila, less the air of the trachea and the stomach bubble."""
    total = 0.30 * _oval(x, y, (30, 205), (48, 66), 0.70) + 0.14 * _oval(x, y, (-14, 200), (36, 52), -0.15)
    total *= ramp(y, 272, 222)
    total += 0.16 * _oval(x, y, (20, 112), (19, 22)) + 0.10 * _oval(x, y, (-18, 115), (16, 60))
    total += 0.08 * _oval(x, y, (30, 140), (17, 22))
    strip = ramp(np.abs(x + 2 * wobble), 38, 18) * ramp(y, 20, 90)
    total += 0.07 * strip
    for side in (-1, 1):
        total += 0.08 * _oval(x, y, (side * 43, 146), (15, 24), side * 0.4)
    trachea = ramp(np.abs(x + 3), 10, 7) * ramp(y, 135, 115)
    total -= 0.10 * trachea
    return blur(total - 0.07 * _oval(x, y, (66, 268), (24, 12)), 2.2)


def _tube(distance: Field, radius: float) -> Field:
    """Thickness profile of a tube with a dense cortex, 0 outside ``radius`` mm."""
    outer = np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1))
    inner = np.sqrt(np.clip(1 - (distance / (0.72 * radius)) ** 2, 0, 1))
    return np.asarray(outer - 0.55 * inner, np.float32)


def _along(y: Field, course: npt.NDArray[np.floating[Any]], spacing: float) -> Field:
    """Distance from a curve y = course(x), across the curve (mm)."""
    slope = np.gradient(course, spacing, axis=1)
    return np.asarray(np.abs(y - course) / np.sqrt(1 + slope**2), np.float32)


def _bones(x: Field, y: Field, lungs: _Bool) -> Field:
    spacing = float(x[0, 1] - x[0, 0])
    lateral = np.abs(x)
    total = np.zeros_like(x)
    for number in range(10):
        total += _rib_pair(y, lateral, number, spacing)
    discs = 0.5 + 0.5 * np.cos(2 * np.pi * (y - 10) / (17 + 0.03 * y))
    total += (0.06 + 0.03 * discs) * ramp(lateral, 23, 12)
    total += 0.03 * ramp(np.abs(lateral - 17), 2.5, 0.5)
    course = 84 - 26 * ramp(lateral, 15, 120) + 5 * np.sin(lateral / 24)
    clavicle = _tube(_along(y, course, spacing), 7.5) * ramp(lateral, 12, 16) * ramp(lateral, 158, 152)
    total += 0.16 * clavicle
    scapula = ramp(lateral, 118, 130) * ramp(y, 62, 80) * ramp(y, 170, 120)
    total += 0.07 * scapula + 0.10 * _oval(lateral, y, (172, 74), (22, 26))
    wall = ramp(ndimage.distance_transform_edt(~lungs).astype(np.float32) * spacing, 9, 1) * (~lungs)
    return blur(total + 0.05 * wall * (y < 240) * (lateral > 60), 0.9)


def _rib_pair(y: Field, lateral: Field, number: int, spacing: float) -> Field:
    """One rib on both sides: the back part rises from the spine and falls to the side, the front part runs inwards."""
    start = 40 + 21.5 * number
    reach = min(62 + 16 * number, 142) - 3 * max(0, number - 6)
    s = lateral / reach
    back = start + (16 + 4 * number) * s**2.6 - 9 * np.sin(np.pi * np.clip(s, 0, 1)) * (number > 0)
    fade = ramp(lateral, 16, 22) * ramp(s, 1.02, 0.97)
    total = 0.125 * _tube(_along(y, back, spacing), 6.2) * fade
    if 1 <= number <= 6:
        end = start + 16 + 4 * number
        front = end + (34 + 3 * number) * np.clip(1 - s, 0, 1) ** 0.8
        fade = ramp(s, 0.42, 0.52) * ramp(s, 1.02, 0.97)
        total = total + 0.07 * _tube(_along(y, front, spacing), 7.0) * fade
    return np.asarray(total, np.float32)


def _vessels(rng: np.random.Generator, size: int, spacing: float, middle: float) -> Field:
    """Pulmonary vessels: trees that branch from both hila and thin out."""
    canvas = Image.new("F", (size, size), 0)
    draw = ImageDraw.Draw(canvas)
    stack = [(side * 38.0, 146.0 + rng.uniform(-18, 18), angle, 5.0)
             for side in (-1, 1) for angle in _fan(rng, side)]  # fmt: skip
    while stack:
        x, y, angle, width = stack.pop()
        length = rng.uniform(8, 15)
        x1, y1 = x + length * np.cos(angle), y + length * np.sin(angle)
        points = [((px + middle) / spacing, py / spacing) for px, py in ((x, y), (x1, y1))]
        draw.line(points, fill=min(1.0, width / 4), width=max(1, round(width / spacing)))
        width *= 0.80
        if width > 0.7:
            stack.append((x1, y1, angle + rng.normal(0, 0.16), width))
            if rng.random() < 0.45:
                stack.append((x1, y1, angle + rng.choice([-1, 1]) * rng.uniform(0.4, 0.8), width * 0.75))
    return blur(np.asarray(canvas, np.float32), 1.3)


def _fan(rng: np.random.Generator, side: int) -> list[float]:
    """Directions of the first branches, in radians, on one side."""
    fan = np.linspace(-1.25, 1.25, 8) + rng.normal(0, 0.08, 8)
    return [float(angle if side > 0 else np.pi - angle) for angle in fan]


def _opacity(rng: np.random.Generator, x: Field, y: Field, lungs: _Bool, spacing: float) -> Field:
    """An irregular consolidation in the middle or lower zone of one lung (0..1)."""
    side = float(rng.choice([-1.0, 1.0]))
    centre_x = side * rng.uniform(80, 92)
    centre_y = rng.uniform(165, 190)
    radius = np.hypot((x - centre_x) / rng.uniform(30, 36), (y - centre_y) / rng.uniform(28, 34))
    ragged = (
        radius + 0.16 * smooth_noise(rng, x.shape, 8.0 / spacing) + 0.05 * smooth_noise(rng, x.shape, 2.5 / spacing)
    )
    inside = blur(lungs.astype(np.float32), 2.5)
    return np.asarray(ramp(ragged, 1.25, 0.35) * inside, np.float32)
