"""Scores in words: never rounded across their threshold."""

from __future__ import annotations

_LEAST, _MOST = 2, 9


def score_texts(score: float, threshold: float, digits: int = 0) -> tuple[str, str]:
    """``score`` and ``threshold`` with the same number of decimals, at least two and at least ``digits``.

    As many as show the threshold to four decimals, and more where the score would else seem to lie on the other
    side of it.
    """
    digits = max(_LEAST, digits, len(f"{threshold:.4f}".rstrip("0").partition(".")[2]))
    while digits < _MOST and (round(score, digits) >= round(threshold, digits)) != (score >= threshold):
        digits += 1
    return f"{score:.{digits}f}", f"{threshold:.{digits}f}"


def percent(share: float) -> str:
    """A share, 0 to 1, with two significant digits: "4.9 %"."""
    value = 100.0 * share
    return f"{value:.0f} %" if value >= 10.0 else f"{value:.2g} %"
