"""``[detect]``: how the detect workers use the accelerator."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dicomnode.config.table import Table


class DetectSettings(Table):
    """How much a worker takes on at once.

    ``batch_planes``: planes in one call on a GPU. ``series_at_once``: Series that one worker claims, decodes side by
    side and analyses together; 0 is one on the CPU and eight on a GPU. ``decoders``: threads that decode images.
    ``model_memory_mb``: memory for warm models, the one used longest ago goes first; 0 is no limit on the CPU and
    half of the memory of a GPU. ``compiled``: compile networks on a GPU where the result agrees.

    Received files are read by a child process: ``reader_memory_mb``: its memory beyond its own program;
    ``reader_cpu_s``, ``reader_wall_s``: seconds for one Series, of computing and in all; ``volume_memory_mb``: the
    images of one Series, four bytes a pixel.
    """

    batch_planes: Annotated[int, Field(ge=1, le=1024)] = 64
    series_at_once: Annotated[int, Field(ge=0, le=64)] = 0
    decoders: Annotated[int, Field(ge=1, le=64)] = 2
    model_memory_mb: Annotated[int, Field(ge=0)] = 0
    compiled: bool = True
    reader_memory_mb: Annotated[int, Field(ge=128, le=65536)] = 1024
    reader_cpu_s: Annotated[int, Field(ge=1, le=3600)] = 120
    reader_wall_s: Annotated[float, Field(ge=1, le=3600)] = 300.0
    volume_memory_mb: Annotated[int, Field(ge=1, le=65536)] = 2048

    def series_on(self, accelerator: str) -> int:
        """How many Series a worker takes at once on ``accelerator``."""
        return self.series_at_once or (8 if accelerator.startswith("cuda") else 1)
