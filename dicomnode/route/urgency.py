"""How urgent a Series is by what it says itself (Requested Procedure Priority (0040,1003), PS3.3 C.4.11)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dicomnode.dicom.summary import SeriesSummary

LEVELS: Mapping[str, int] = MappingProxyType({"STAT": 10, "HIGH": 5, "ROUTINE": 0, "MEDIUM": 0, "LOW": -5})


def urgency(summary: SeriesSummary) -> int:
    """What the Series adds to the priority of its route; the most urgent of several values, 0 for none."""
    said = [LEVELS.get(str(value).strip().upper(), 0) for value in summary.values("RequestedProcedurePriority")]
    return max(said, default=0)
