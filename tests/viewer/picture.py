"""What can be said of a photograph of the screen without knowing what it shows."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

LIT, WHITE, COLOURED = 40, 230, 40
"""8-bit levels: brighter than black, as bright as paper, and how far channels differ in a colour."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Shares 0..1 of the pixels: not black, nearly white, coloured."""

    lit: float = 0.0
    white: float = 0.0
    coloured: float = 0.0


def measured(png: bytes) -> Picture:
    """The shares in a picture, by the brightest and the darkest channel of each pixel."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.int16)
    high, low = pixels.max(axis=2), pixels.min(axis=2)
    return Picture(float((high > LIT).mean()), float((low > WHITE).mean()), float((high - low > COLOURED).mean()))
