"""STAT first: what a Series says of its urgency."""

from __future__ import annotations

import pytest

from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.route.urgency import urgency


@pytest.mark.parametrize(
    ("values", "expected"),
    [((), 0), (("STAT",), 10), ((" stat ",), 10), (("ROUTINE", "HIGH"), 5), (("LOW",), -5), (("soon",), 0)],
)
def test_the_requested_procedure_priority_counts_and_anything_else_does_not(values, expected):
    """PS3.3 C.4.11: STAT, HIGH, ROUTINE, MEDIUM, LOW; other words change nothing."""
    header = {"RequestedProcedurePriority": values} if values else {}
    assert urgency(SeriesSummary(SeriesReference("2.25.1", "2.25.2"), 1, header)) == expected
