"""Detectors for tests, laid out as an installer would: a distribution with an entry point, found on PYTHONPATH."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from dicomnode.detectors.contract import (
    Calibration,
    DetectionResult,
    Finding,
    LoadedDetector,
    ModelIdentity,
    Outcome,
    PlaneResult,
    Region,
)


def install_plugin(folder: Path, name: str, detector: str, source: str = "") -> Path:
    """Lay out the distribution ``name``, whose entry point is the object ``detector`` (module:attribute).

    ``source``: the text of the module, where it is none of the tests'. Put the returned folder on PYTHONPATH.
    """
    about = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    if source:
        (folder / f"{detector.partition(':')[0]}.py").write_text(source)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[dicomnode.detectors]\n{name} = {detector}\n")
    return folder


class Unweighted:
    """What plugins without weights have in common: their source file stands for the weights."""

    name = ""
    version, accelerator = "1.0.0", "cpu"

    @property
    def location(self) -> Path:
        """The file of the class."""
        return Path(str(sys.modules[type(self).__module__].__file__))

    @property
    def own_model(self) -> ModelIdentity:
        return ModelIdentity(self.name, self.version, hashlib.sha256(self.location.read_bytes()).hexdigest(), "MIT")

    @property
    def model(self) -> ModelIdentity:
        return self.own_model

    def load(self, model_folder: Path, accelerator: str) -> LoadedDetector:
        return self


def one_finding(planes: Sequence[PlaneResult], regions: Sequence[Region], origin: str) -> DetectionResult:
    """A result with one Finding; ``origin``: what stands in the place of a calibration."""
    return DetectionResult(
        Outcome.FINDINGS,
        score=0.97,
        raw_score=1.0,
        raw_unit="none",
        calibration=Calibration("percentile of healthy patients, 0..1", origin, 40, 0.95, 0.05),
        planes=tuple(planes),
        findings=(Finding("square-1", tuple(regions), 0.97),),
    )
