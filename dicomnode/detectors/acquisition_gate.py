"""What an unusual acquisition does to a result: the decision table of two scores.

| acquisition | lesion score | result |
|---|---|---|
| usual | below the threshold | no findings |
| usual | at or above it | findings |
| unusual | below | "withhold": not analysed, score withheld; "note": no findings, with a notice |
| unusual | at or above | findings, with a notice that asks for human review |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from dicomnode.detectors.contract import Acquisition, DetectionResult, Outcome
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.models.card import Seen

Policy = Literal["withhold", "note", "off"]
GATE = "acquisition"
PARAMETER = "acquisition gate"
NOT_AVAILABLE = "not available for this model"
REVIEW = "UNUSUAL ACQUISITION AND FOCAL DEVIATION: human review"
UNUSUAL = "UNUSUAL ACQUISITION: the score may not hold, no findings is not reliable"
WITHHELD = "unusual acquisition, score withheld"


def gated(result: DetectionResult, policy: Policy) -> tuple[DetectionResult, bool]:
    """``result`` as ``policy`` wants it told, and whether the score was withheld.

    An unusual acquisition never ends as plain "no findings": it is withheld or carries a notice. Results that were
    not analysed stay as they are.
    """
    if result.outcome not in (Outcome.FINDINGS, Outcome.NO_FINDINGS):
        return result, False
    if policy == "off":
        said = {**result.parameters, PARAMETER: "switched off"}
        return replace(result, acquisition=None, parameters=said), False
    acquisition = result.acquisition
    told = replace(result, parameters={**result.parameters, PARAMETER: acquisition_text(acquisition)})
    if acquisition is None or not acquisition.unusual:
        return told, False
    if result.outcome is Outcome.FINDINGS:
        return replace(told, notices=(*told.notices, REVIEW)), False
    if policy == "note":
        return replace(told, notices=(*told.notices, UNUSUAL)), False
    reason = f"{WITHHELD}: {acquisition_text(acquisition)}"
    return DetectionResult(Outcome.NOT_ANALYSED, reason=reason, acquisition=acquisition), True


def acquisition_text(acquisition: Acquisition | None) -> str:
    """The gate's answer with its figures, in words."""
    if acquisition is None:
        return NOT_AVAILABLE
    state = "unusual" if acquisition.unusual else "usual"
    text = (
        f"{state}; score {acquisition.score:.4f}, unusual from {acquisition.threshold:.4f} "
        f"({acquisition.alpha:.1%} of {acquisition.n_patients} healthy patients expected there)"
    )
    if acquisition.features:
        named = ", ".join(f"{name} {value:+.1f}" for name, value in acquisition.features)
        text += f"; most unusual, in robust standard deviations: {named}"
    if acquisition.header_notes:
        text += f"; not seen in training: {', '.join(acquisition.header_notes)}"
    return text


def unseen(summary: SeriesSummary, seen: Mapping[str, Seen]) -> tuple[str, ...]:
    """The keywords of ``seen`` (a model card's) for which the series states a value that training has not seen.

    An element that is absent says nothing. Values are not repeated: they may be free text.
    """
    return tuple(
        keyword for keyword, known in seen.items() if not all(known.holds(value) for value in summary.values(keyword))
    )
