"""What a Series says of itself: the values of its headers, drawn from all its Instances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dicomnode.dicom.references import SeriesReference

Value = str | int | float
Header = Mapping[str, tuple[Value, ...]]


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """The distinct values of each DICOM keyword over all Instances of one Series.

    ``attributes`` maps a keyword to its distinct values in order of first appearance; a multi-valued element
    contributes each of its values. Absent and empty elements have no entry.
    """

    reference: SeriesReference
    n_instances: int
    attributes: Header = field(default_factory=dict)

    def values(self, keyword: str) -> tuple[Value, ...]:
        """All distinct values of ``keyword``; empty when no Instance has one."""
        return self.attributes.get(keyword, ())

    def first(self, keyword: str, default: str = "") -> str:
        """The first value of ``keyword`` as text."""
        values = self.values(keyword)
        return str(values[0]) if values else default

    @property
    def Modality(self) -> str:
        return self.first("Modality")


def summarise(reference: SeriesReference, headers: Iterable[Header]) -> SeriesSummary:
    """Merge the headers of all Instances of a Series into one summary."""
    merged: dict[str, dict[Value, None]] = {}
    count = 0
    for header in headers:
        count += 1
        for keyword, values in header.items():
            known = merged.setdefault(keyword, {})
            for value in values:
                known[value] = None
    attributes = {keyword: tuple(values) for keyword, values in merged.items() if values}
    return SeriesSummary(reference, count, attributes)
