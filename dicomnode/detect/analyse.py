"""One analysis, from files to result objects. No database: what comes out is written by ``outcome``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import dicomnode
from dicomnode.config import Config
from dicomnode.detect.case import Case
from dicomnode.detect.volume import NotAnalysable, load_volume
from dicomnode.detectors.contract import DetectionResult, LoadedDetector, Outcome
from dicomnode.report import DerivedObject, ReportContext, iter_results

ANALYSED = (Outcome.FINDINGS, Outcome.NO_FINDINGS)


@dataclass(frozen=True, slots=True)
class Analysis:
    """A detector's answer and the objects that say it, made one by one as they are asked for.

    ``detector_version``: of the plugin, not of its model. ``objects`` is empty unless the Series was analysed.
    ``sources``: SOP Instance UIDs that the detector saw. ``notes``: what was left out or chosen on the way to the
    Volume.
    """

    result: DetectionResult
    detector_version: str
    objects: Iterable[DerivedObject] = ()
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def analyse(config: Config, case: Case, detector: LoadedDetector, detector_version: str, started_at: float) -> Analysis:
    """Load the Volume of ``case``, run ``detector``, build what its destinations want.

    ``started_at``: start of the first attempt, seconds since the epoch; it stamps the objects, so that a retry
    makes the same bytes.
    """
    try:
        loaded = load_volume(case.summary, case.sources)
    except NotAnalysable as reason:
        return Analysis(DetectionResult(Outcome.NOT_ANALYSED, reason=str(reason)), detector_version)
    result = detector.detect(loaded.volume)
    sources = tuple(dict.fromkeys(plane.source.SOPInstanceUID for plane in loaded.volume.planes))
    if result.outcome not in ANALYSED:
        return Analysis(result, detector_version, (), sources, loaded.volume.notes)
    wanted = frozenset(kind for peer in case.assignment.send_to for kind in config.results.objects_for(peer))
    context = _context(config, case, detector, detector_version, result, started_at)
    objects = iter_results(loaded.volume, loaded.headers, result, context, wanted)
    return Analysis(result, detector_version, objects, sources, loaded.volume.notes)


def _context(
    config: Config,
    case: Case,
    detector: LoadedDetector,
    detector_version: str,
    result: DetectionResult,
    started_at: float,
) -> ReportContext:
    return ReportContext(
        detector=case.assignment.detector or "",
        detector_version=detector_version,
        model=detector.model,
        parameters=dict(result.parameters),
        software_version=dicomnode.__version__,
        ae_title=config.node.ae_title,
        uid_root=config.node.uid_root,
        generation=case.assignment.generation,
        analysed_at=datetime.fromtimestamp(started_at, UTC),
        banner=config.results.banner,
        supersedes=case.supersedes,
        incomplete=case.series.incomplete,
        accelerator=detector.accelerator,
        taken_series_numbers=case.series_numbers,
    )
