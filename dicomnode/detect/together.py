"""Several Series at a time: decoded side by side, grouped by what analyses them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from dicomnode.detect.case import Case
from dicomnode.detect.volume_terms import LoadedVolume
from dicomnode.detectors.contract import DetectionResult, LoadedDetector
from dicomnode.jobs import Job


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A claimed job with its case and its warm detector. ``started_at``: of the first attempt, seconds since 1970."""

    job: Job
    case: Case
    detector: LoadedDetector
    version: str
    started_at: float


@dataclass(frozen=True, slots=True, eq=False)
class Decoding:
    """A begun job whose images are being decoded."""

    begun: Begun
    decoded: Future[tuple[LoadedVolume | DetectionResult, float]]
    """The Volume, or why there is none, and how many seconds that took."""

    @property
    def planes(self) -> int:
        """Planes of the decoded Volume; 0 where there is none."""
        if self.decoded.exception() is not None:
            return 0
        result, _ = self.decoded.result()
        return len(result.volume.planes) if isinstance(result, LoadedVolume) else 0


def ready_group(waiting: Sequence[Decoding], most_planes: int) -> list[Decoding]:
    """The first of ``waiting``, once it is decoded, and those after it that are decoded too and go to the same
    detector and model; together at most ``most_planes`` planes, the first in any case."""
    first = waiting[0]
    group, planes = [first], first.planes
    for item in waiting[1:]:
        if item.begun.detector is first.begun.detector and item.decoded.done() and planes + item.planes <= most_planes:
            group.append(item)
            planes += item.planes
    return group
