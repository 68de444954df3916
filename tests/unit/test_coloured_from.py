"""Colour begins where outlines do, or earlier."""

from __future__ import annotations

import pytest

from dicomnode.detect.analyse import coloured_from


@pytest.mark.parametrize(
    ("said", "expected"),
    [({}, 0.7), ({"region heat": "0.9"}, 0.7), ({"region heat": "0.51"}, 0.51), ({"region heat": "?"}, 0.7)],
)
def test_an_outlined_region_is_never_without_colour(said, expected):
    """A model with a low region threshold lowers the display threshold with it."""
    assert coloured_from(said) == expected
