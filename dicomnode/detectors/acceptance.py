"""Which series a detector takes, decided on header values alone (no pixels, no torch)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dicomnode.detectors.contract import Acceptance
from dicomnode.dicom.summary import SeriesSummary

DESCRIPTIONS = ("StudyDescription", "SeriesDescription", "ProtocolName")
"""Where a body part is looked for when Body Part Examined (0018,0015) is empty."""

KNOWN_BODY_PARTS: dict[str, tuple[str, ...]] = {
    "CHEST": ("CHEST", "THORAX", "LUNG", "CXR", "THORACIC"),
    "BRAIN": ("BRAIN", "CEREBRUM", "NEURO", "SCHADEL", "SCHAEDEL", "CRANIUM", "CEREBRAL", "GEHIRN"),
    "HEAD": ("HEAD", "SKULL", "KOPF", "CRANIAL", "TETE"),
    "KNEE": ("KNEE", "KNIE", "GENOU"),
    "SPINE": ("SPINE", "CSPINE", "TSPINE", "LSPINE", "SSPINE", "LUMBAR", "CERVICAL"),
    "NECK": ("NECK",),
    "ABDOMEN": ("ABDOMEN", "ABDOMINAL", "LIVER", "KIDNEY"),
    "PELVIS": ("PELVIS", "PROSTATE"),
    "HIP": ("HIP",),
    "SHOULDER": ("SHOULDER",),
    "ANKLE": ("ANKLE",),
    "FOOT": ("FOOT",),
    "HAND": ("HAND", "WRIST"),
    "ELBOW": ("ELBOW",),
    "BREAST": ("BREAST",),
    "HEART": ("HEART", "CARDIAC"),
    "ORBIT": ("ORBIT", "ORBITS"),
    "SINUS": ("SINUS", "SINUSES"),
}
"""Body part → words that name it, in Body Part Examined (PS3.16 annex L) or in a description."""


def words(summary: SeriesSummary, keywords: Iterable[str]) -> set[str]:
    """The words (letters and digits, upper case) of the values of ``keywords``."""
    text = " ".join(str(value) for keyword in keywords for value in summary.values(keyword))
    return set(re.findall(r"[A-Z0-9]+", text.upper()))


def body_parts(summary: SeriesSummary) -> set[str]:
    """The body parts that the series names: in Body Part Examined, else in its descriptions."""
    examined = words(summary, ("BodyPartExamined",))
    found = _named(examined)
    if examined:
        return found or {" ".join(sorted(examined))}
    return _named(words(summary, DESCRIPTIONS))


def require(
    summary: SeriesSummary, *, modalities: tuple[str, ...], parts: set[str], trained_on: str
) -> Acceptance | None:
    """None when modality and body part fit, otherwise the refusal with its reason."""
    if summary.Modality not in modalities:
        takes = " or ".join(modalities)
        return refuse(f"modality {summary.Modality or 'unknown'}; this detector takes {takes}", on="Modality")
    found = body_parts(summary)
    if not found:
        return refuse(f"no body part is named; this detector was trained on {trained_on}", on="BodyPartExamined")
    if not found & parts:
        named = ", ".join(sorted(found))
        return refuse(f"body part {named}; this detector was trained on {trained_on}", on="BodyPartExamined")
    return None


def numbers(summary: SeriesSummary, keyword: str) -> list[float]:
    """The values of ``keyword`` that are numbers."""
    found = []
    for value in summary.values(keyword):
        try:
            found.append(float(value))
        except ValueError:
            continue
    return found


def accept(reason: str) -> Acceptance:
    """A yes."""
    return Acceptance(accepted=True, reason=reason)


def refuse(reason: str, on: str = "") -> Acceptance:
    """A no, because of the value of the keyword ``on``."""
    return Acceptance(accepted=False, reason=reason, on=on)


def _named(found: set[str]) -> set[str]:
    return {part for part, names in KNOWN_BODY_PARTS.items() if found & set(names)}
