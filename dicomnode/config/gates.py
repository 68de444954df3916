"""``[gates]`` and ``[drift]``: what may refuse a result, and when scores are said to have drifted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dicomnode.config.table import Table


class GateSettings(Table):
    """``[gates]``: ``acquisition``: what happens to a score below the threshold from unusually acquired images.

    "withhold": not analysed; "note": the result with a notice on every output; "off": the gate is not asked.
    """

    acquisition: Literal["withhold", "note", "off"] = "note"


class DriftSettings(Table):
    """``[drift]``: when the scores of one scanner and protocol are compared with its first ones.

    ``window``: Series that are judged together, ``min_series``: the first Series of a stratum, with which they are
    compared. ``alpha``: chance of a false alarm per window, over all strata and measures together.
    """

    window: Annotated[int, Field(ge=20, le=10000)] = 50
    min_series: Annotated[int, Field(ge=20, le=10000)] = 100
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
