"""The gate for burned-in text: held back on suspicion, never marked as de-identified (trust D21)."""

from __future__ import annotations

import re

from pydicom.dataset import Dataset, FileDataset

from dicomnode.deid.pixel_decision import PixelDecision

_ROOT = "1.2.840.10008.5.1.4.1.1."
RISKY_SOP_CLASSES = frozenset(
    _ROOT + suffix
    for suffix in (
        "3", "3.1", "6", "6.1", "6.2", "6.3",  # ultrasound
        "7", "7.1", "7.2", "7.3", "7.4",  # secondary capture
        "12.1", "12.1.1", "12.2", "12.2.1", "12.3",  # XA and XRF
        "77.1", "77.2", "77.1.1", "77.1.1.1", "77.1.2", "77.1.2.1", "77.1.3", "77.1.4", "77.1.4.1",  # visible light
        "77.1.5.1", "77.1.5.2", "77.1.5.4", "77.1.6", "77.1.7",
        "104.1", "104.2",  # encapsulated PDF and CDA
    )
)  # fmt: skip
"""SOP Classes whose images often carry text; documents are nothing else."""
_SCREEN_TERMS = re.compile("SCREEN|DOSE[ _]?INFO|PROTOCOL|REPORT")
"""Within the values of Image Type: pictures of screens, and the pages that scanners send along with a series."""
ENCAPSULATED = frozenset({_ROOT + suffix for suffix in ("104.1", "104.2", "104.3", "104.4", "104.5")})

VOICE = frozenset({_ROOT + "9.4.1", _ROOT + "9.4.2"})
"""Recordings of speech: who speaks can be recognised, and what is said may be a name."""


def risk(dataset: Dataset) -> str | None:
    """Why the pixels of ``dataset`` may show who the patient is; None when nothing speaks for it. Holds no values."""
    annotation = str(dataset.get("BurnedInAnnotation") or "").strip().upper()
    if annotation == "YES":
        return "Burned In Annotation is YES"
    sop_class = str(dataset.get("SOPClassUID") or "")
    if sop_class in ENCAPSULATED:
        return "it is an encapsulated document"
    if sop_class in VOICE:
        return "it is a recording of speech"
    if "PixelData" not in dataset and not dataset.get("Rows"):
        return None
    if annotation == "NO":
        return None
    if sop_class in RISKY_SOP_CLASSES:
        return "the SOP Class often carries text and Burned In Annotation is not NO"
    values = dataset.get("ImageType") or ()
    said = " ".join(str(value).upper() for value in ([values] if isinstance(values, str) else values))
    if _SCREEN_TERMS.search(said):
        return "Image Type says screen save or report"
    return None


class PixelGate:
    """The policy without any cleaning: pass, or hold back."""

    def examine(self, dataset: FileDataset) -> PixelDecision:
        """See ``PixelPolicy``."""
        return PixelDecision(hold=risk(dataset))
