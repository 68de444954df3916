"""Colours of the overlay. Heat is told apart by lightness alone, so it reads with any colour vision and in grey."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_INFERNO = (
    (0x00, 0x00, 0x04),
    (0x21, 0x0C, 0x4A),
    (0x57, 0x10, 0x6E),
    (0x8A, 0x22, 0x6A),
    (0xBC, 0x37, 0x54),
    (0xE4, 0x5A, 0x31),
    (0xF9, 0x8E, 0x09),
    (0xF9, 0xCB, 0x35),
    (0xFC, 0xFF, 0xA4),
)
"""Nine stops of "inferno" (S. van der Walt, N. Smith, 2015, CC0): lightness rises evenly from stop to stop."""

CONTOUR = (120, 230, 255)
CONTOUR_EDGE = (0, 40, 60)
PANEL = (18, 18, 20)
TEXT = (236, 236, 236)
DIM_TEXT = (168, 168, 172)
FINDINGS = (255, 190, 60)
BANNER = (255, 214, 0)
NOTICE = (255, 150, 90)
RULE = (70, 70, 74)


_FIRST = 0.35
_TABLE_SIZE = 256
_ALPHA = (0.25, 0.5)


def heat_colours(heat: npt.NDArray[np.floating], lowest: float) -> Bytes:
    """The colours of ``heat``, shape (n,) in ``lowest``..1, as RGB of shape (n, 3).

    The lighter two thirds of the table are stretched over what is shown: its dark end would vanish on grey.
    """
    stops = np.linspace(0.0, 1.0, len(_INFERNO))
    places = np.linspace(_FIRST, 1.0, _TABLE_SIZE)
    table = np.stack([np.interp(places, stops, [stop[c] for stop in _INFERNO]) for c in range(3)], axis=1)
    reach = np.clip((heat - lowest) / max(1.0 - lowest, 1e-6), 0.0, 1.0)
    colours: Bytes = np.rint(table[np.rint(reach * (_TABLE_SIZE - 1)).astype(np.intp)]).astype(np.uint8)
    return colours


def blended(base: Bytes, heat: npt.NDArray[np.floating], lowest: float) -> Bytes:
    """The colours of ``heat``, shape (n,), laid over ``base``, shape (n, 3): the hotter, the less of it is left."""
    reach = np.clip((heat - lowest) / max(1.0 - lowest, 1e-6), 0.0, 1.0)
    alpha = (_ALPHA[0] + (_ALPHA[1] - _ALPHA[0]) * reach)[:, None]
    mixed: Bytes = np.rint(base * (1.0 - alpha) + heat_colours(heat, lowest) * alpha).astype(np.uint8)
    return mixed
