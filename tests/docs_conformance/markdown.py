"""Markdown tables, and the marked places of a document that hold generated text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_PLACE = re.compile(r"(<!-- generated: (?P<name>[a-z0-9-]+) -->\n)(?P<body>.*?)(<!-- /generated -->)", re.DOTALL)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; cells are text, a bar in a cell is escaped."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def fill(document: str, sections: Mapping[str, str]) -> str:
    """``document`` with every marked place filled anew.

    Raises ValueError when a place has no section, or a section no place.
    """
    places = [match["name"] for match in _PLACE.finditer(document)]
    if sorted(places) != sorted(sections):
        raise ValueError(f"places and sections differ: {sorted(set(places) ^ set(sections)) or 'a place comes twice'}")
    return _PLACE.sub(lambda match: f"{match[1]}{sections[match['name']]}\n{match[4]}", document)
