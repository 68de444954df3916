"""Detector ``mr-brain-flair``: axial FLAIR of the brain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicomnode.detectors.acceptance import accept, numbers, refuse, require, words
from dicomnode.detectors.contract import Acceptance, Detector, LoadedDetector
from dicomnode.dicom.summary import SeriesSummary

_NAMES = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
_INVERSION_MS = (1500.0, 3000.0)
_ECHO_MS = 70.0


@dataclass(frozen=True, slots=True)
class BrainFlair:
    """Deviation from tumour-free FLAIR slices of the brain."""

    name: str = "mr-brain-flair"
    version: str = "1.0.0"
    default_model: str = "mr-brain-flair-healthy"
    description: str = (
        "deviation from lesion-free FLAIR slices of the brain (AE-U and DAE; map also by a U-Net on synthetic lesions)"
    )

    def accepts(self, summary: SeriesSummary) -> Acceptance:
        """MR of brain or head that is a FLAIR: by its names, else by Inversion Time and Echo Time (ms)."""
        refusal = require(summary, modalities=("MR",), parts={"BRAIN", "HEAD"}, trained_on="brain FLAIR")
        if refusal:
            return refusal
        if words(summary, ("ImageType",)) & {"LOCALIZER", "SCOUT"}:
            return refuse("localizer (Image Type); this detector was trained on axial FLAIR", on="ImageType")
        if _called_flair(summary):
            return accept("MR of the brain, called FLAIR")
        if _timed_as_flair(summary):
            return accept("MR of the brain, inversion time and echo time of a FLAIR")
        return refuse("MR of the brain, but neither its names nor its timing say FLAIR; trained on brain FLAIR only")

    def load(self, model_folder: Path, accelerator: str) -> LoadedDetector:
        from dicomnode.detectors.residual import load_residual_detector

        return load_residual_detector(self.name, model_folder, accelerator)


def _called_flair(summary: SeriesSummary) -> bool:
    text = " ".join(str(value) for keyword in _NAMES for value in summary.values(keyword)).upper()
    plain = " ".join(text.replace("_", " ").replace("-", " ").split())
    return "FLAIR" in plain or "DARK FLUID" in plain or "DARKFLUID" in plain


def _timed_as_flair(summary: SeriesSummary) -> bool:
    inversion, echo = numbers(summary, "InversionTime"), numbers(summary, "EchoTime")
    long_inversion = any(_INVERSION_MS[0] <= value <= _INVERSION_MS[1] for value in inversion)
    return long_inversion and bool(echo) and min(echo) > _ECHO_MS


DETECTOR: Detector = BrainFlair()
