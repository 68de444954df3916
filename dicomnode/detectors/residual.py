"""The detector that all healthy-only models share: prepare, residual maps, calibrated scores, regions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicomnode.detectors.acquisition import measure_planes
from dicomnode.detectors.acquisition_features import geometry
from dicomnode.detectors.acquisition_gate import unseen
from dicomnode.detectors.calibration import ResidualCalibration, read_calibration
from dicomnode.detectors.contract import (
    Acquisition,
    Array,
    DetectionResult,
    Finding,
    ModelIdentity,
    Outcome,
    Plane,
    PlaneResult,
    Region,
    Volume,
)
from dicomnode.detectors.ensemble import FoldEnsemble, joined, map_words, planes_of, unpack_weights
from dicomnode.detectors.execution import ExecutionPlan
from dicomnode.detectors.methods.contract import Planes
from dicomnode.detectors.nearest_patch import Searched, with_nearest
from dicomnode.detectors.preprocess import Preparation, Prepared, Rejected, preparation_of
from dicomnode.detectors.regions import RegionRule, hottest_region, link_findings, plane_regions
from dicomnode.detectors.registration import registration_of, statement
from dicomnode.detectors.validation import validation_parameters
from dicomnode.errors import ConfigError
from dicomnode.models.registry import Model, open_model

P_VALUE, UNSEEN, MAP_SHOWS = "p-value", "header values not seen in training", "map shows"
REGISTRATION = "registration"
SUSPECT_PLANE = 0.9
"""Calibrated plane score from which a plane of a series with findings shows its regions."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the networks say of some planes. ``plane_raws``: shape (folds, n). ``combined``: shape (n, size, size)."""

    plane_raws: Array
    combined: Array


def score_planes(ensemble: FoldEnsemble, calibration: ResidualCalibration, planes: Planes) -> Scored:
    """Raw plane scores by every fold, and the combined map averaged over the folds."""
    judged = ensemble.judge(planes)
    raws = np.stack([calibration.plane_raws(fold, planes.masks, planes.shares) for fold in judged])
    combined = np.mean([calibration.combined(fold) for fold in judged], axis=0)
    return Scored(raws, combined.astype(np.float32))


def enough_organ(prepared: Prepared | Rejected, least: float) -> Prepared | Rejected:
    """``prepared``, or a rejection when the brain fills less than ``least`` of the head on this plane."""
    if isinstance(prepared, Prepared) and prepared.organ_share < least:
        return Rejected(f"the brain fills less than {least:.0%} of the head on this plane (vertex or skull base)")
    return prepared


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """One Volume and its planes on the network grid, or why a plane is not looked at."""

    volume: Volume
    prepared: list[Prepared | Rejected]

    @property
    def planes(self) -> list[Prepared]:
        return [item for item in self.prepared if isinstance(item, Prepared)]

    @property
    def usable(self) -> list[int]:
        return [i for i, item in enumerate(self.prepared) if isinstance(item, Prepared)]

    @property
    def left_out(self) -> list[str]:
        return [item.reason if isinstance(item, Rejected) else "" for item in self.prepared]

    @property
    def reasons(self) -> Counter[str]:
        return Counter(item.reason for item in self.prepared if isinstance(item, Rejected))

    def refusal(self) -> DetectionResult:
        """The answer when no plane can be used."""
        reason = self.reasons.most_common(1)[0][0]
        return DetectionResult(Outcome.NOT_ANALYSED, reason=f"no plane could be analysed: {reason}")


class ResidualDetector:
    """A healthy-only model with its weights on the accelerator (a ``LoadedDetector``)."""

    def __init__(self, name: str, model: Model, accelerator: str) -> None:
        card = model.card
        self.model = ModelIdentity(card.name, card.version, card.sha256, card.licence)
        self.accelerator = accelerator
        self.calibration = read_calibration(model.read_calibration())
        weights = model.read_weights()
        self.ensemble = FoldEnsemble(unpack_weights(weights, card.architecture), accelerator)
        self.size = int(card.preprocessing["size"])
        self._prefix = name
        self._validation = validation_parameters(card.metrics)
        self._map_shows = map_words(card.architecture, [term.kind for term in self.calibration.map])
        self._min_share = float(card.preprocessing.get("min_organ_share", 0.0))
        self._seen, self._seen_counts = card.seen, card.seen_counts
        self._axial = bool(card.preprocessing.get("axial", False))
        clahe = bool(card.preprocessing.get("clahe", False))
        self._prepare: Preparation = preparation_of(str(card.preprocessing["preparation"]), clahe=clahe)
        self.registration = registration_of(card.preprocessing, weights)
        if len(self.ensemble.folds) != len(self.calibration.healthy_series):
            raise ConfigError(f"{card.name}: weights and calibration have different numbers of folds")

    def run_with(self, plan: ExecutionPlan) -> None:
        """Use the accelerator by ``plan`` (detect.warm.Planned)."""
        self.ensemble.run_with(plan)

    def prepare(self, plane: Plane) -> Prepared | Rejected:
        """The plane on the network grid, or why this detector does not look at it."""
        if self._axial and not _is_axial(plane):
            return Rejected("the plane is not axial; this detector was trained on axial planes")
        prepared = enough_organ(self._prepare(plane.pixels, self.size), self._min_share)
        if self.registration is None or isinstance(prepared, Rejected):
            return prepared
        return self.registration.align(prepared)

    def detect(self, volume: Volume) -> DetectionResult:
        """Analyse one Volume; NOT_ANALYSED with a reason when no plane can be used. Deterministic on the CPU."""
        return self.detect_many((volume,))[0]

    def detect_many(self, volumes: Sequence[Volume]) -> list[DetectionResult]:
        """Analyse several Volumes together (contract.ManyAtOnce): their planes share the batches of the accelerator."""
        looks = [_Look(volume, [self.prepare(plane) for plane in volume.planes]) for volume in volumes]
        usable = [look for look in looks if look.usable]
        if not usable:
            return [look.refusal() for look in looks]
        batches = [planes_of(look.planes, stacked=look.volume.slice_spacing is not None) for look in usable]
        scored = score_planes(self.ensemble, self.calibration, joined(batches))
        answers, start = {}, 0
        for look, batch in zip(usable, batches, strict=True):
            part = slice(start, start + len(batch))
            answers[id(look)] = self._result(look, batch, Scored(scored.plane_raws[:, part], scored.combined[part]))
            start += len(batch)
        return [answers[id(look)] if look.usable else look.refusal() for look in looks]

    def _result(self, look: _Look, batch: Planes, scored: Scored) -> DetectionResult:
        results = self._plane_results(look.volume, look.left_out, look.planes, scored)
        raws = [self.calibration.series_raw(fold, batch.shares) for fold in scored.plane_raws]
        score = self.calibration.series_score(raws)
        found = score >= self.calibration.threshold
        stated = self._parameters(look.volume, look.usable, look.reasons)
        return DetectionResult(
            outcome=Outcome.FINDINGS if found else Outcome.NO_FINDINGS,
            score=score,
            raw_score=float(np.mean(raws)),
            raw_unit=self.calibration.raw_unit,
            calibration=self.calibration.statement(),
            planes=tuple(results),
            findings=self._explained(look, results, scored) if found else (),
            parameters={P_VALUE: f"{self.calibration.p_value(raws):.4f}", **stated, **self._registered(look.planes)},
            acquisition=self._acquisition(look.volume, look.usable, batch),
        )

    def _registered(self, planes: list[Prepared]) -> dict[str, str]:
        return {} if self.registration is None else {REGISTRATION: statement(self.registration.kind, planes)}

    def _acquisition(self, volume: Volume, usable: list[int], planes: Planes) -> Acquisition | None:
        """How unusual the analysed planes were acquired; None when the model's calibration does not tell."""
        gate = self.calibration.acquisition
        if gate is None:
            return None
        spacings = [volume.planes[i].spacing for i in usable]
        known = [geometry(float(np.mean(pair)) if pair else None, volume.slice_spacing) for pair in spacings]
        measured = measure_planes(planes.images, planes.masks, tuple(gate.features), known)
        return gate.judge(measured, unseen(volume.summary, self._seen), notes_count=self._seen_counts)

    def _plane_results(
        self, volume: Volume, left_out: list[str], planes: list[Prepared], scored: Scored
    ) -> list[PlaneResult]:
        results = [
            PlaneResult(0.0, np.zeros(plane.shape, np.float32), reason)
            for plane, reason in zip(volume.planes, left_out, strict=True)
        ]
        usable = [index for index, reason in enumerate(left_out) if not reason]
        for i, (index, plane) in enumerate(zip(usable, planes, strict=True)):
            heat = self.calibration.heat_of(scored.combined[i]) * plane.mask
            pasted = np.clip(plane.on_plane(heat, volume.planes[index].shape), 0.0, 1.0)
            score = self.calibration.plane_score_of([float(fold[i]) for fold in scored.plane_raws])
            results[index] = PlaneResult(score, pasted)
        return results

    def _explained(self, look: _Look, results: list[PlaneResult], scored: Scored) -> tuple[Finding, ...]:
        """The findings, each with the nearest healthy patch of the same Series."""
        findings = self._findings(look.volume, results, look.usable, look.planes)
        heats = self.calibration.heat_of(scored.combined) * np.stack([plane.mask for plane in look.planes])
        return with_nearest(findings, Searched(look.usable, look.planes, heats, self.calibration.region_heat), results)

    def _findings(
        self, volume: Volume, results: list[PlaneResult], usable: list[int], planes: list[Prepared]
    ) -> tuple[Finding, ...]:
        """Regions of the suspect planes; at least the hottest place of the highest plane."""
        smallest = {i: self.min_pixels(plane) for i, plane in zip(usable, planes, strict=True)}
        top = max(usable, key=lambda i: (results[i].score, float(results[i].heat.max())))
        regions: list[Region] = []
        for i in usable:
            if results[i].score >= SUSPECT_PLANE or i == top:
                rule = RegionRule(self.calibration.region_heat, smallest[i])
                regions += plane_regions(i, volume.planes[i], results[i].heat, rule)
        if not regions:
            regions = [hottest_region(top, volume.planes[top], results[top].heat, smallest[top])]
        return link_findings(regions, self._prefix, stacked=volume.slice_spacing is not None)

    def min_pixels(self, plane: Prepared) -> float:
        """The smallest region that counts, in pixels of the plane itself."""
        return max(4.0, self.calibration.region_share * plane.organ_pixels)

    def _parameters(self, volume: Volume, usable: list[int], reasons: Counter[str]) -> dict[str, str]:
        left_out = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        return {
            "planes analysed": f"{len(usable)} of {len(volume.planes)}",
            "planes left out": left_out or "none",
            "folds": str(len(self.ensemble.folds)),
            "networks": " + ".join(self.ensemble.kinds),
            MAP_SHOWS: self._map_shows,
            "region heat": f"{self.calibration.region_heat:g}",
            **({UNSEEN: ", ".join(new)} if (new := unseen(volume.summary, self._seen)) else {}),
            **self._validation,
        }


def load_residual_detector(name: str, model_folder: Path, accelerator: str) -> ResidualDetector:
    """Load and verify a model folder for the detector ``name`` on ``accelerator`` ("cpu", "cuda:0").

    Raises ConfigError for a wrong hash, a missing file, a card of another detector, or an accelerator that is absent.
    """
    model = open_model(model_folder)
    if model.card.detector != name:
        raise ConfigError(f"model {model.name} is for the detector {model.card.detector}, not for {name}")
    try:
        return ResidualDetector(name, model, accelerator)
    except KeyError as error:
        raise ConfigError(f"model {model.name}: the card's preprocessing entry lacks or misnames {error}") from error
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"accelerator {accelerator} cannot be used: {type(error).__name__}") from error


def _is_axial(plane: Plane) -> bool:
    """Whether the plane's normal is within 45 degrees of the body axis; a plane without orientation passes."""
    if plane.orientation is None:
        return True
    normal = np.cross(plane.orientation[:3], plane.orientation[3:])
    return bool(abs(normal[2]) >= np.cos(np.pi / 4))
