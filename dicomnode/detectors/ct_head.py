"""Detector ``ct-head``: axial head CT without contrast medium."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicomnode.detectors.acceptance import DESCRIPTIONS, accept, refuse, require, words
from dicomnode.detectors.contract import Acceptance, Detector, LoadedDetector
from dicomnode.dicom.summary import SeriesSummary

_SCOUT = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"}
_ANGIOGRAPHY = {"CTA", "ANGIO", "ANGIOGRAPHY", "ANGIOGRAM", "PERFUSION", "CTP"}


@dataclass(frozen=True, slots=True)
class HeadCT:
    """Deviation from healthy unenhanced head CT, inside the skull."""

    name: str = "ct-head"
    version: str = "1.0.0"
    default_model: str = "ct-head-healthy"
    description: str = "deviation from healthy unenhanced head CT inside the skull (AE-U and DAE, healthy-only)"

    def accepts(self, summary: SeriesSummary) -> Acceptance:
        """CT of head, brain or skull; no localizer (Image Type (0008,0008)), no contrast medium, no angiography."""
        refusal = require(
            summary, modalities=("CT",), parts={"HEAD", "BRAIN"}, trained_on="unenhanced axial CT of the adult head"
        )
        if refusal:
            return refusal
        if words(summary, ("ImageType",)) & _SCOUT or words(summary, DESCRIPTIONS) & _SCOUT:
            why = "localizer (Image Type or description); this detector was trained on axial slices"
            return refuse(why, on="ImageType")
        if summary.values("ContrastBolusAgent"):
            why = "contrast medium was given (Contrast/Bolus Agent); trained on unenhanced CT only"
            return refuse(why, on="ContrastBolusAgent")
        if words(summary, DESCRIPTIONS) & _ANGIOGRAPHY:
            return refuse("angiography or perfusion by its description; this detector was trained on unenhanced CT")
        return accept("CT of the head, no localizer, no contrast medium stated")

    def load(self, model_folder: Path, accelerator: str) -> LoadedDetector:
        from dicomnode.detectors.residual import load_residual_detector

        return load_residual_detector(self.name, model_folder, accelerator)


DETECTOR: Detector = HeadCT()
