"""Clean Descriptors: of a free text only known words stay (PS3.15 E.3.5). What is not known may be a name."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_TOKEN = re.compile(r"[0-9]+(?:\.[0-9]+)?[^\W\d_]*|[^\W_]+")
_MEASURE = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,2})?(?:mm|cm|s|sec|ms|min|kv|mas|ml|b|x|d)|b[0-9]{1,4}|[ctl][0-9]{1,2}")
_NAME_LENGTH = 2
_TOLD_LENGTH = 4
_NOBODY = frozenset({"anon", "anonymous", "anonymized", "demo", "name", "none", "null", "patient", "test", "unknown"})
"""Names of patients who are none."""


@cache
def known_words() -> frozenset[str]:
    """Words of radiology in lower case that name no person, place or institution."""
    return frozenset((files("dicomnode.deid") / "data" / "words.txt").read_text(encoding="utf-8").split())


def names_in(*texts: str) -> frozenset[str]:
    """The parts of names and identifiers, lower case: they never stay, also where they are known words."""
    return frozenset(
        part.lower() for text in texts for part in re.findall(r"[^\W_]+", text) if len(part) >= _NAME_LENGTH
    )


def tells_identity(text: str, names: frozenset[str]) -> bool:
    """Whether a text that stays holds a part of ``names`` of four signs and more that is no word of radiology."""
    parts = {part.lower() for part in re.findall(r"[^\W_]+", text) if len(part) >= _TOLD_LENGTH}
    return bool(parts & names - known_words() - _NOBODY)


def cleaned(text: str, words: frozenset[str], names: frozenset[str]) -> str:
    """The words of ``text`` that are known to the package or to ``words`` and are none of ``names``, and measures.

    A number without a unit goes: it may be an age, a date or an identifier.
    """
    kept = []
    for token in _TOKEN.findall(text):
        plain = token.lower()
        if plain not in names and (plain in known_words() or plain in words or _MEASURE.fullmatch(plain)):
            kept.append(token)
    return " ".join(kept)
