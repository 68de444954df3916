"""Whether an object shows a head in slices, of which a face could be reconstructed."""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

_HEAD_PARTS = frozenset({
    "BRAIN", "CEREBRUM", "CEREBELLUM", "EAR", "EYE", "FACE", "FACIALBONES", "HEAD", "HEADNECK", "IAC", "JAW", "MAXILLA",
    "MANDIBLE", "NECK", "NOSE", "ORBIT", "PITUITARY", "SINUS", "SKULL", "SELLA", "TMJ", "ZYGOMA", "WHOLEBODY",
})  # fmt: skip
_WORDS = re.compile(
    r"head|brain|skull|crani|cerebr|neuro|orbit|face|facial|sinus|sch[aä]del|kopf|gehirn|hirn|t[eê]te|cerveau|cabeza",
    re.IGNORECASE,
)
_SLICES = frozenset({"CT", "MR", "PT"})
_DESCRIPTIONS = ("StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription")


def looks_like_a_head(dataset: Dataset) -> bool:
    """By Body Part Examined (PS3.16 annex L) or, without it, by the words of the descriptions; only CT, MR and PT."""
    if str(dataset.get("Modality") or "").strip().upper() not in _SLICES:
        return False
    part = re.sub(r"[^A-Z]", "", str(dataset.get("BodyPartExamined") or "").upper())
    if part:
        return part in _HEAD_PARTS or bool(_WORDS.search(part))
    return any(_WORDS.search(str(dataset.get(keyword) or "")) for keyword in _DESCRIPTIONS)
