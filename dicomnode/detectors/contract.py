"""The detector seam: everything a detector author has to know, without torch and without DICOM datasets.

A detector is an object with ``name``, ``version``, ``accepts``, ``load`` and ``detect`` (``Detector`` below).
It gets a ``Volume`` and answers a ``DetectionResult``; ``report`` alone turns that into DICOM objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dicomnode.dicom.references import InstanceReference
from dicomnode.dicom.summary import SeriesSummary

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

__all__ = [
    "Acceptance",
    "Acquisition",
    "Calibration",
    "Concept",
    "DetectionResult",
    "Detector",
    "Finding",
    "HasOwnModel",
    "LabelScore",
    "LoadedDetector",
    "ManyAtOnce",
    "ModelIdentity",
    "NearestHealthy",
    "Outcome",
    "Plane",
    "PlaneResult",
    "Region",
    "SeriesSummary",
    "Volume",
]


class Outcome(StrEnum):
    """How an analysis ended. There is no silent "normal"."""

    FINDINGS = "findings"
    NO_FINDINGS = "no findings"
    NOT_ANALYSED = "not analysed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A detector's answer to a series: yes or no, and why, in words for an operator.

    ``on``: the DICOM keyword that decided. It is what the audit log keeps of the answer, since ``reason`` may quote the
    header.
    """

    accepted: bool
    reason: str
    on: str = ""


@dataclass(frozen=True, slots=True)
class Plane:
    """One image of a Series: a single-frame Instance, or one frame of a multi-frame Instance.

    ``pixels``: shape (rows, columns), float32, after the Modality LUT (HU for CT, otherwise the rescaled
    value), MONOCHROME2 sense (a larger value is brighter).
    ``spacing``: (row, column) distance of pixel centres in mm, or None when the image has none
    (a radiograph without Pixel Spacing).
    ``position``: Image Position (Patient) in mm, ``orientation``: Image Orientation (Patient), both None for a
    projection. ``frame``: 1-based frame number, None for a single-frame Instance.
    ``window``: (centre, width) of the first VOI window of the image (PS3.3 C.11.2) or None.
    ``stored_max``: the largest value that the stored bits can express after rescale, ``stored_min`` the smallest.
    """

    pixels: Array
    source: InstanceReference
    frame: int | None = None
    spacing: tuple[float, float] | None = None
    position: tuple[float, float, float] | None = None
    orientation: tuple[float, float, float, float, float, float] | None = None
    window: tuple[float, float] | None = None
    stored_min: float = 0.0
    stored_max: float = 255.0

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.pixels.shape
        return rows, columns


@dataclass(frozen=True, slots=True)
class Volume:
    """The images of one Series generation, in anatomical order (feet to head), or in Instance order.

    ``slice_spacing``: distance of neighbouring plane centres in mm along the normal, or None when the planes do
    not form a regular stack (radiographs, a single slice).
    """

    summary: SeriesSummary
    planes: tuple[Plane, ...]
    slice_spacing: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.planes:
            raise ValueError("a Volume has at least one plane")


@dataclass(frozen=True, slots=True)
class Region:
    """A connected region of one plane. ``mask``: shape of the plane, bool. ``plane``: index into the Volume.

    ``contour``: closed outline, shape (n, 2), (column, row) in pixels, image-relative as SCOORD wants it
    (PS3.3 C.18.6.1.2: the top-left corner of the top-left pixel is 0, 0), last point equal to the first.
    ``box``: (column0, row0, column1, row1) in the same coordinates. ``area_mm2``: None without spacing.
    ``score``: greatest calibrated value of the map inside the region, 0..1.
    """

    plane: int
    mask: Mask
    contour: Array
    box: tuple[float, float, float, float]
    score: float
    area_mm2: float | None


@dataclass(frozen=True, slots=True)
class Concept:
    """A coded concept (PS3.3 8.8): Code Value, Coding Scheme Designator, Code Meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class NearestHealthy:
    """The patch of the same Series that the model finds healthy and that is most like the hottest place of a finding.

    ``finding_plane``, ``plane``: indices into the Volume; ``finding_box``, ``box``: both patches on their planes,
    (column0, row0, column1, row1) in pixels as for ``Region``. ``distance``: root mean square difference of the two
    patches, in standard deviations of the organ's grey values; ``usual``: median of the same between healthy patches
    and their own nearest ones, ``compared``: how many healthy patches there were to choose from.
    """

    finding_plane: int
    finding_box: tuple[float, float, float, float]
    plane: int
    box: tuple[float, float, float, float]
    distance: float
    usual: float
    compared: int

    @property
    def centre(self) -> tuple[float, float]:
        """Column and row of the middle of the healthy patch on its plane."""
        return 0.5 * (self.box[0] + self.box[2]), 0.5 * (self.box[1] + self.box[3])


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing seen, on one or several planes. ``tracking_id`` is unique and stable within the result.

    ``label``: what it is, where the model names it; empty: an anomaly of no kind. ``concept``: its code.
    ``anatomy``: a normal structure, outlined because it is there. ``colour``: red, green, blue, 0..255. ``nearest``:
    what healthy tissue of the same Series is most like it; None where nothing could be compared.
    """

    tracking_id: str
    regions: tuple[Region, ...]
    score: float
    label: str = ""
    concept: Concept | None = None
    anatomy: bool = False
    colour: tuple[int, int, int] | None = None
    nearest: NearestHealthy | None = None


@dataclass(frozen=True, slots=True)
class LabelScore:
    """What a model with named outputs says of one label: ``score`` 0..1, present from ``threshold`` on."""

    name: str
    score: float
    threshold: float

    @property
    def present(self) -> bool:
        return self.score >= self.threshold


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a score means: how it was calibrated, on whom, and the threshold with its meaning.

    ``unit``: text for reports. ``method``: the procedure. ``n_patients``: healthy patients that were held back; 0: the
    score is the model's own and nobody has calibrated it here, so that the expected rate is not known.
    ``threshold``: score at or above which a series has findings. ``expected_false_positive_rate``: share of
    healthy patients expected at or above the threshold.
    """

    unit: str
    method: str
    n_patients: int
    threshold: float
    expected_false_positive_rate: float


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How unusual the acquisition of a series is, apart from any lesion.

    ``score``: 0..1, unusual from ``threshold`` on; ``alpha``: share of healthy patients expected there. ``distance``:
    the uncalibrated figure. ``features``: the most unusual ones with their deviation in robust standard deviations.
    ``header_notes``: what the headers say that training has not seen, in words without any value of them;
    ``header_counts``: a note alone makes the acquisition unusual.
    """

    score: float
    threshold: float
    alpha: float
    unit: str
    method: str
    n_patients: int
    distance: float
    features: tuple[tuple[str, float], ...] = ()
    header_notes: tuple[str, ...] = ()
    header_counts: bool = False

    @property
    def unusual(self) -> bool:
        """Whether the images were acquired unlike those that the score is calibrated on."""
        return self.score >= self.threshold or (self.header_counts and bool(self.header_notes))


@dataclass(frozen=True, slots=True)
class PlaneResult:
    """Per plane: ``score`` 0..1 (calibrated), ``heat``: shape of the plane, float32 0..1 on the plane's own grid.

    ``left_out``: why the detector did not look at this plane, empty when it did; the score then means nothing.
    """

    score: float
    heat: Array
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which weights made a result: registry name, version, SHA-256 of the file (hex), licence."""

    name: str
    version: str
    sha256: str
    licence: str


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """The whole answer of a detector for one Volume.

    ``raw_score`` is the uncalibrated detector output, ``raw_unit`` its unit. ``planes`` is parallel to
    ``Volume.planes`` (empty when ``outcome`` is NOT_ANALYSED). ``reason`` is required unless findings/no findings.
    ``acquisition``: None when the model cannot judge it. ``notices``: what a reader must know, on every output.
    ``labels``: one entry per named output of a model that has such; empty for one that only says how unusual it is.
    """

    outcome: Outcome
    score: float | None = None
    raw_score: float | None = None
    raw_unit: str = ""
    calibration: Calibration | None = None
    planes: tuple[PlaneResult, ...] = ()
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    acquisition: Acquisition | None = None
    notices: tuple[str, ...] = ()
    labels: tuple[LabelScore, ...] = ()

    def __post_init__(self) -> None:
        if self.outcome in (Outcome.FINDINGS, Outcome.NO_FINDINGS):
            if self.score is None or self.calibration is None or not self.planes:
                raise ValueError("an analysed series needs score, calibration and planes")
        elif not self.reason:
            raise ValueError("a series that was not analysed needs a reason")


@runtime_checkable
class LoadedDetector(Protocol):
    """A detector with its weights on the accelerator. May be used for many volumes, by one thread."""

    @property
    def model(self) -> ModelIdentity: ...

    @property
    def accelerator(self) -> str: ...

    def detect(self, volume: Volume) -> DetectionResult:
        """Analyse one Volume. Raises nothing for odd input: answers NOT_ANALYSED with a reason."""
        ...


@runtime_checkable
class ManyAtOnce(Protocol):
    """A loaded detector that can analyse several Volumes together, so that they share an accelerator's batches."""

    def detect_many(self, volumes: Sequence[Volume]) -> list[DetectionResult]:
        """One answer per Volume, in order; the same as ``detect`` of each."""
        ...


@runtime_checkable
class Detector(Protocol):
    """What a plugin exposes as ``DETECTOR``."""

    @property
    def name(self) -> str:
        """Rule key, lower case, for example ``cxr``."""
        ...

    @property
    def version(self) -> str: ...

    @property
    def default_model(self) -> str:
        """Name of the model in the registry that is used when a route names none."""
        ...

    @property
    def description(self) -> str: ...

    def accepts(self, summary: SeriesSummary) -> Acceptance: ...

    def load(self, model_folder: Path, accelerator: str) -> LoadedDetector:
        """Load the weights of one model folder on ``accelerator`` ("cpu", "cuda:0").

        Raises ConfigError for a wrong hash, a missing file or an incompatible card.
        """
        ...


@runtime_checkable
class HasOwnModel(Protocol):
    """A detector that brings its model along: it is not in the registry of models, and no route can name another."""

    @property
    def own_model(self) -> ModelIdentity: ...

    @property
    def location(self) -> Path:
        """The folder or file that ``load`` is given."""
        ...
