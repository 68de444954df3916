"""The decision for one Series: which routes take it, and why the others do not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.datadict import tag_for_keyword

from dicomnode.config import Config, Route
from dicomnode.config.matching import unmet
from dicomnode.detectors.contract import Acceptance, Detector
from dicomnode.dicom.summary import SeriesSummary


@dataclass(frozen=True, slots=True)
class Reason:
    """One route's answer. ``matched``: its ``when`` holds. ``taken``: its detector accepts the Series as well.

    ``text`` is for operators and may quote the header; ``on``, the keyword that decided against it, may be kept.
    """

    route: str
    detector: str
    matched: bool
    taken: bool
    text: str
    on: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Every route's answer, in the order of the configuration."""

    reasons: tuple[Reason, ...]
    taken: tuple[Route, ...]

    @property
    def plain(self) -> str:
        """Why no route took the Series, without anything of its header: for the audit log (trust.md A6)."""
        if any(reason.matched for reason in self.reasons):
            return "no detector accepts this series"
        return "no route matches this series" if self.reasons else "no route is configured"

    @property
    def summary(self) -> str:
        """Why no route took the Series, in one sentence for operators."""
        if self.taken:
            return "taken by " + ", ".join(route.name for route in self.taken)
        matched = [reason for reason in self.reasons if reason.matched]
        if matched:
            said = "; ".join(f"{reason.detector}: {reason.text}" for reason in matched)
            return f"no detector accepts this series ({said})"
        return "no detector accepts this series: no route matches it" if self.reasons else "no route is configured"


def decide(config: Config, detectors: Mapping[str, Detector], summary: SeriesSummary) -> Decision:
    """Ask every route about ``summary``. Every route whose ``when`` and detector say yes takes the Series."""
    reasons, taken = [], []
    for route in config.route:
        reason = _ask(route, detectors, summary)
        reasons.append(reason)
        if reason.taken:
            taken.append(route)
    return Decision(tuple(reasons), tuple(taken))


def _ask(route: Route, detectors: Mapping[str, Detector], summary: SeriesSummary) -> Reason:
    for keyword, condition in route.when.items():
        why_not = unmet(condition, summary.values(keyword))
        if why_not:
            return Reason(route.name, route.detector, False, False, f"{keyword}: {why_not}", keyword)  # noqa: FBT003
    answer = _accepts(detectors[route.detector], summary)
    on = answer.on if tag_for_keyword(answer.on) is not None else ""
    return Reason(route.name, route.detector, True, answer.accepted, answer.reason, on)  # noqa: FBT003


def _accepts(detector: Detector, summary: SeriesSummary) -> Acceptance:
    try:
        return detector.accepts(summary)
    except Exception as error:  # noqa: BLE001 - edge to foreign code: a broken plugin must not stop other routes
        return Acceptance(accepted=False, reason=f"the detector failed when it was asked: {type(error).__name__}")
