"""A text without the values of a header: what others wrote about a Series, for a log that keeps no patient data."""

from __future__ import annotations

import re

from dicomnode.dicom.summary import Header

CODED = frozenset(
    {
        "Modality",
        "SOPClassUID",
        "TransferSyntaxUID",
        "ImageType",
        "BodyPartExamined",
        "Laterality",
        "ImageLaterality",
        "PatientPosition",
        "PhotometricInterpretation",
        "ViewPosition",
    }
)
"""Keywords whose values are terms of the standard (PS3.3, VR CS and UI), as long as they look like them."""
_TERM = re.compile(r"[A-Z0-9_]{1,16}|[0-9.]{1,64}")
_PART = re.compile(r"[\s^=,;/\\]+")
_SHORTEST = 3


def unquoted(text: str, header: Header) -> str:
    """``text`` with each value that ``header`` has, and each word of one, replaced by the name of its attribute.

    Numbers and standard terms stay; so do words of one or two letters.
    """
    found: dict[str, str] = {}
    for keyword, values in header.items():
        for value in values:
            for quoted in _quotable(keyword, value):
                for spelled in (quoted, quoted.upper(), quoted.casefold()):
                    found.setdefault(spelled, keyword)
    if not found:
        return text
    longest_first = sorted(found, key=len, reverse=True)
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(quoted)}(?!\w)" for quoted in longest_first), re.IGNORECASE)
    return pattern.sub(lambda match: f"[{found.get(match[0]) or found.get(match[0].casefold(), 'value')}]", text)


def _quotable(keyword: str, value: str | int | float) -> set[str]:
    if not isinstance(value, str):
        return set()
    whole = value.strip()
    if keyword in CODED and _TERM.fullmatch(whole):
        return set()
    return {part for part in (whole, *_PART.split(whole)) if len(part) >= _SHORTEST}
