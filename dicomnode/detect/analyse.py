"""One analysis, from files to result objects. No database: what comes out is written by ``outcome``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

import dicomnode
from dicomnode.config import Config
from dicomnode.detect.case import Case
from dicomnode.detect.drift_record import Observed, observe
from dicomnode.detect.reader import Reader
from dicomnode.detect.volume_terms import LoadedVolume, NotAnalysable
from dicomnode.detectors.acquisition_gate import GATE as ACQUISITION_GATE
from dicomnode.detectors.acquisition_gate import gated
from dicomnode.detectors.contract import DetectionResult, LoadedDetector, ManyAtOnce, ModelIdentity, Outcome, Volume
from dicomnode.errors import Permanent
from dicomnode.report import DerivedObject, ReportContext, iter_results
from dicomnode.report.legend import REGION_HEAT
from dicomnode.report.selfcheck import Evidence, checked
from dicomnode.report.transcribe import legible
from dicomnode.store.stages import Took

T = TypeVar("T")
COLOURED_FROM = 0.7
ANALYSED = (Outcome.FINDINGS, Outcome.NO_FINDINGS)
VOLUME_GATE, DETECTOR_GATE = "volume", "detector"
"""What may refuse a Series that a route took: its images do not make a Volume, or the detector declines the Volume;
``ACQUISITION_GATE``: the images were acquired unlike those that the score is calibrated on."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """A detector's answer and the objects that say it, made one by one as they are asked for.

    ``detector_version``: of the plugin, not of its model. ``objects`` is empty unless the Series was analysed; each
    has passed the self-check when it comes. ``stand_ins``: likewise, what may have to replace some of them at a peer.
    ``sources``: SOP Instance UIDs that the detector saw. ``notes``: what was left out or chosen on the way to the
    Volume. ``gate``: what refused the Series, None when it was analysed. ``observed``: what drift is told from, None
    when there is no score. ``took``: how long it took to get here.
    """

    result: DetectionResult
    detector_version: str
    objects: Iterable[DerivedObject] = ()
    stand_ins: Iterable[DerivedObject] = ()
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    gate: str | None = None
    observed: Observed | None = None
    took: Took = field(default_factory=Took)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What ``work`` answers, and how many seconds it took."""
    started = time.monotonic()
    return work(), time.monotonic() - started


def load(reader: Reader, case: Case) -> LoadedVolume | DetectionResult:
    """The Volume of ``case``, or the answer that it cannot be analysed. Raises Transient when the disk fails,
    Permanent when the files break a limit of the process that reads them."""
    try:
        return reader.load(case.summary, case.sources)
    except NotAnalysable as reason:
        return DetectionResult(Outcome.NOT_ANALYSED, reason=str(reason))


def detect_all(detector: LoadedDetector, volumes: Sequence[Volume]) -> list[DetectionResult]:
    """One answer per Volume; together where the detector can."""
    if len(volumes) > 1 and isinstance(detector, ManyAtOnce):
        return detector.detect_many(volumes)
    return [detector.detect(volume) for volume in volumes]


def analyse(
    reader: Reader, config: Config, case: Case, detector: LoadedDetector, detector_version: str, started_at: float
) -> Analysis:
    """Load the Volume of ``case``, run ``detector``, build what its destinations want; see ``told``."""
    loaded, load_s = timed(lambda: load(reader, case))
    if isinstance(loaded, DetectionResult):
        return Analysis(loaded, detector_version, gate=VOLUME_GATE, took=Took(load_s))
    volume = loaded.volume
    result, inference_s = timed(lambda: detector.detect(volume))
    analysis = told(config, case, detector, detector_version, started_at, loaded, result)
    return replace(analysis, took=Took(load_s, inference_s))


def told(
    config: Config,
    case: Case,
    detector: LoadedDetector,
    detector_version: str,
    started_at: float,
    loaded: LoadedVolume,
    result: DetectionResult,
) -> Analysis:
    """What ``case``'s destinations want, from the detector's answer.

    ``started_at``: start of the first attempt, seconds since the epoch; it stamps the objects, so that a retry
    makes the same bytes. Raises Permanent when the detector answers *failed*; taking the objects raises NonConformant
    at the first one that breaks the standard.
    """
    if result.outcome is Outcome.FAILED:
        raise Permanent(result.reason)
    references = tuple(dict.fromkeys(plane.source for plane in loaded.volume.planes))
    sources = tuple(reference.SOPInstanceUID for reference in references)
    observed = observe(loaded.volume, result)
    result, withheld = gated(result, config.gates.acquisition)
    if result.outcome not in ANALYSED:
        gate = ACQUISITION_GATE if withheld else DETECTOR_GATE
        notes = loaded.volume.notes
        return Analysis(result, detector_version, sources=sources, notes=notes, gate=gate, observed=observed)
    when = datetime.fromtimestamp(started_at, UTC)
    origin = Origin(detector.model, detector_version, detector.accelerator, dict(result.parameters))
    context = report_context(config, case, origin, when)
    peers = case.assignment.send_to
    sent = config.results.sent_to(peers)
    headers = legible(loaded.headers)
    evidence = Evidence(references, headers, context)
    objects, stand_ins = (
        checked(iter_results(loaded.volume, headers, result, context, kinds), evidence)
        for kinds in (sent, config.results.built_for(peers) - sent)
    )
    return Analysis(
        result, detector_version, objects, stand_ins, sources=sources, notes=loaded.volume.notes, observed=observed
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """What answered: weights, version of the plugin, accelerator and the parameters it states."""

    model: ModelIdentity
    detector_version: str
    accelerator: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def report_context(config: Config, case: Case, origin: Origin, analysed_at: datetime) -> ReportContext:
    """What the objects about ``case`` say of themselves; ``analysed_at``: timezone-aware."""
    return ReportContext(
        detector=case.assignment.detector or "",
        detector_version=origin.detector_version,
        model=origin.model,
        parameters=origin.parameters,
        software_version=dicomnode.__version__,
        ae_title=config.node.ae_title,
        uid_root=config.node.uid_root,
        generation=case.assignment.generation,
        analysed_at=analysed_at,
        banner=config.results.banner,
        supersedes=case.supersedes,
        replaces_earlier=case.replaces_earlier,
        incomplete=case.series.incomplete,
        accelerator=origin.accelerator,
        display_threshold=coloured_from(origin.parameters),
        taken_series_numbers=case.series_numbers,
        picture_all_up_to=config.results.picture_all_up_to,
    )


def coloured_from(parameters: Mapping[str, str]) -> float:
    """Heat from which overlays are coloured: 0.7, or where the model's outlines begin when that is lower."""
    try:
        return min(COLOURED_FROM, max(0.0, float(parameters[REGION_HEAT])))
    except (KeyError, ValueError):
        return COLOURED_FROM
