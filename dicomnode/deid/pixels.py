"""The pixel policy: what the header says, then masks of known devices, then a look into the pixels (trust D21).

A risk that the header states is lifted by a mask for this device and geometry, and by nothing else: not finding
writing is no proof that there is none.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from pydicom.dataset import FileDataset

from dicomnode.deid.burned_in import ENCAPSULATED, risk
from dicomnode.deid.defacing_series import Faces
from dicomnode.deid.head import looks_like_a_head
from dicomnode.deid.masks import MaskRule, PixelSettings
from dicomnode.deid.ocr import Tesseract
from dicomnode.deid.pixel_decision import CLEAN_PIXEL_DATA, CLEAN_RECOGNIZABLE_VISUAL_FEATURES, PixelDecision
from dicomnode.deid.pixel_values import UNDECODABLE, Box, drop_embedded_overlays, overwrite, pictures
from dicomnode.deid.text_regions import text_regions
from dicomnode.dicom.sop_classes import is_image
from dicomnode.errors import Permanent

_SLICES = frozenset({"CT", "MR", "PT", "NM"})
_ULTRASOUND = frozenset(f"1.2.840.10008.5.1.4.1.1.{suffix}" for suffix in ("3", "3.1", "6", "6.1", "6.2"))
_ROUNDS = 3
"""How often found writing is overwritten and looked for again."""
NOT_LOOKED_AT = "the pixels could not be decoded and were not looked at"
FACE_LEFT = "a head in CT or MR: the face can be reconstructed, 113102 is not claimed"
MASKED_BY_LOOK = "writing was found and overwritten without a rule for the device; 113101 is not claimed"


class PixelCleaner:
    """Decides on pixels by ``settings``; see ``PixelPolicy``."""

    def __init__(self, settings: PixelSettings | None = None, faces: Faces | None = None) -> None:
        """``faces``: masks of the head series of a run, for Clean Recognizable Visual Features."""
        self.settings = PixelSettings() if settings is None else settings
        self._faces = faces
        self._ocr = None if self.settings.ocr == "none" else Tesseract.installed()

    def examine(self, dataset: FileDataset) -> PixelDecision:
        """Hold the object back, let it pass, or overwrite what must be hidden in ``dataset``.

        Raises Permanent when pixels that must be overwritten cannot be decoded.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pydicom, on pixels that are not as the header says
            try:
                return self._examined(dataset)
            except UNDECODABLE as error:  # pydicom decodes an element when it is asked for
                raise Permanent(f"the header of the pixels cannot be read: {type(error).__name__}") from None

    def _examined(self, dataset: FileDataset) -> PixelDecision:
        notes = (FACE_LEFT,) if looks_like_a_head(dataset) else ()
        danger = risk(dataset)
        if "PixelData" not in dataset or str(dataset.get("SOPClassUID")) in ENCAPSULATED:
            return PixelDecision(hold=danger, warnings=notes)
        masked = self._mask_by_rule(dataset)
        if danger is not None and not masked:
            return PixelDecision(hold=self._why(dataset, danger), warnings=notes)
        if masked:
            dataset.BurnedInAnnotation = "NO"
        codes = (CLEAN_PIXEL_DATA,) if masked else ()
        face = self._faces.of(str(dataset.get("SOPInstanceUID"))) if self._faces and notes else None
        if face is not None:
            overwrite(dataset, face.hidden, face.fill)
            codes, notes, masked = (*codes, CLEAN_RECOGNIZABLE_VISUAL_FEATURES), (), masked + 1
        masked += int(drop_embedded_overlays(dataset))
        hold, found, said = self._look(dataset)
        return PixelDecision(hold, codes, (*notes, *said), masked + found)

    def _mask_by_rule(self, dataset: FileDataset) -> int:
        """Apply all rules for the device and geometry; how many regions they name."""
        rules = [rule for rule in self.settings.masks if rule.applies(dataset)]
        for rule in rules:
            overwrite(dataset, rule.regions, rule.fill)
        kept = self._regions_to_keep(dataset)
        if kept:
            overwrite(dataset, kept, outside=True)
        return sum(len(rule.regions) for rule in rules) + bool(kept)

    def _regions_to_keep(self, dataset: FileDataset) -> Sequence[Box]:
        """Of Sequence of Ultrasound Regions (PS3.3 C.8.5.5), when they leave something to hide; else none."""
        if not self.settings.mask_outside_regions or str(dataset.get("SOPClassUID")) not in _ULTRASOUND:
            return ()
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
        boxes: list[Box] = []
        for item in dataset.get("SequenceOfUltrasoundRegions") or ():
            names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
            left, top, right, bottom = (item.get(name) for name in names)
            if None in (left, top, right, bottom) or not (0 <= left < right < columns and 0 <= top < bottom < rows):
                return ()
            boxes.append((left, top, right - left + 1, bottom - top + 1))
        return () if any(box[2:] == (columns, rows) for box in boxes) else boxes

    def _why(self, dataset: FileDataset, danger: str) -> str:
        known: Sequence[MaskRule] = [rule for rule in self.settings.masks if rule.device(dataset)]
        return f"{danger}; the masks of this device are for another geometry" if known else danger

    def _look(self, dataset: FileDataset) -> tuple[str | None, int, tuple[str, ...]]:
        """Why to hold it back after all, how many regions were overwritten, and what to say of it."""
        if self.settings.detect == "none" or not _shows_greys(dataset):
            return None, 0, ()
        try:
            found = self._writing(dataset)
        except Permanent:
            return None, 0, (NOT_LOOKED_AT,)
        if not found:
            return None, 0, ()
        if not self.settings.mask_found_text:
            return f"writing was found in the pixels ({len(found)} regions) that no mask covers", 0, ()
        for hidden in range(1, _ROUNDS + 1):
            overwrite(dataset, found)
            found = self._writing(dataset)
            if not found:
                return None, hidden, (MASKED_BY_LOOK,)
        return "writing is found in the pixels even after it was overwritten", 0, ()

    def _writing(self, dataset: FileDataset) -> list[Box]:
        engine = self._ocr
        if self.settings.ocr == "auto" and dataset.get("Modality") in _SLICES:
            engine = None
        found = set()
        for picture in pictures(dataset):
            regions = text_regions(picture) + (engine.regions(picture) if engine else [])
            found |= {(region.x, region.y, region.width, region.height) for region in regions}
        return sorted(found)


def _shows_greys(dataset: FileDataset) -> bool:
    """Whether the pixels are a picture of something: segmentations and maps hold labels and quantities."""
    return is_image(str(dataset.get("SOPClassUID"))) and int(dataset.get("BitsAllocated") or 0) in (8, 16, 32)
