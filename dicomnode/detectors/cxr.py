"""Detector ``cxr``: frontal chest radiographs (CR, DX)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicomnode.detectors.acceptance import accept, refuse, require, words
from dicomnode.detectors.contract import Acceptance, Detector, LoadedDetector
from dicomnode.dicom.summary import SeriesSummary

_LATERAL = {"LL", "RL", "LATERAL", "LAT", "LLD", "RLD"}


@dataclass(frozen=True, slots=True)
class ChestRadiograph:
    """Deviation from healthy frontal chest radiographs."""

    name: str = "cxr"
    version: str = "2.0.0"
    default_model: str = "cxr-lungs"
    description: str = "lung opacity and other deviation from healthy frontal chest radiographs of adults"

    def accepts(self, summary: SeriesSummary) -> Acceptance:
        """CR or DX, body part chest, not lateral (View Position (0018,5101), else the Series Description)."""
        refusal = require(
            summary, modalities=("CR", "DX"), parts={"CHEST"}, trained_on="frontal chest radiographs of adults"
        )
        if refusal:
            return refusal
        view = words(summary, ("ViewPosition",)) or words(summary, ("SeriesDescription",))
        if view & _LATERAL:
            why = "lateral view (or frontal and lateral in one series); trained on frontal views"
            return refuse(why, on="ViewPosition")
        return accept(f"{summary.Modality} of the chest, not marked as lateral")

    def load(self, model_folder: Path, accelerator: str) -> LoadedDetector:
        from dicomnode.detectors.residual import load_residual_detector

        return load_residual_detector(self.name, model_folder, accelerator)


DETECTOR: Detector = ChestRadiograph()
