"""What a pixel policy answers about one object, and what the engine asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import FileDataset

CLEAN_PIXEL_DATA = "113101"
CLEAN_RECOGNIZABLE_VISUAL_FEATURES = "113102"


@dataclass(frozen=True, slots=True)
class PixelDecision:
    """``hold``: why the object is held back, free of patient data; None to let it pass.

    ``codes``: the CID 7050 codes of what was really done to the pixels (PS3.16). ``warnings``: what a reader of the
    report should know; ``masked``: how many regions were overwritten, on all frames.
    """

    hold: str | None = None
    codes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    masked: int = 0


class PixelPolicy(Protocol):
    """Decides on the pixels of an object before the table is applied to its attributes."""

    def examine(self, dataset: FileDataset) -> PixelDecision:
        """Look at the object as it was received; pixels that must be hidden are overwritten in ``dataset`` itself."""
        ...
