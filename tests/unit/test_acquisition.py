"""Two questions, two scores: the acquisition gate sees a strange scanner, hardly a lesion, and decides by its table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from dicomnode.detectors.acquisition import AcquisitionModel, measure_planes
from dicomnode.detectors.acquisition_features import FEATURES, PIXEL_MM, geometry
from dicomnode.detectors.acquisition_gate import NOT_AVAILABLE, PARAMETER, REVIEW, UNUSUAL, gated, unseen
from dicomnode.detectors.contract import (
    Acquisition,
    Calibration,
    DetectionResult,
    Outcome,
    PlaneResult,
)
from dicomnode.detectors.methods.contract import Planes
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.models.card import Seen
from dicomnode.train.acquisition import fit_acquisition
from tests.method_phantoms import planes as phantoms

FOLDS, DEPTH, PATIENTS = 3, 3, 60


@pytest.fixture(scope="module")
def gate() -> AcquisitionModel:
    """Sixty healthy patients with three planes each, three folds."""
    fitted = fit_acquisition(*_healthy())
    assert fitted is not None
    return fitted


def _healthy() -> tuple[Planes, list[str], list[int], list[bool]]:
    planes, _ = phantoms(0, PATIENTS, depth=DEPTH)
    patients = [f"p{i // DEPTH}" for i in range(len(planes))]
    return planes, patients, [(i // DEPTH) % FOLDS for i in range(len(planes))], [True] * len(planes)


def _series(seed: int, count: int, lesions: float = 0.0) -> list[Planes]:
    planes, _ = phantoms(seed, count, lesions=lesions, depth=DEPTH)
    return [planes.chosen(list(stack)) for stack in planes.stacks]


def _judge(gate: AcquisitionModel, planes: Planes) -> Acquisition:
    return gate.judge(measure_planes(planes.images, planes.masks, tuple(gate.features)))


def test_healthy_patients_of_the_same_scanner_are_rarely_unusual(gate: AcquisitionModel) -> None:
    """The realised rate is near the stated one on patients that no fold has seen."""
    unusual = [_judge(gate, planes).unusual for planes in _series(1, 120)]
    assert np.mean(unusual) <= 0.06
    assert 0 < gate.rate <= 0.02


def test_a_focal_lesion_hardly_moves_the_score(gate: AcquisitionModel) -> None:
    """A lesion of up to a sixth of the organ on one plane of three: still at most one series in ten is unusual."""
    found = []
    for healthy, sick in zip(_series(2, 60), _series(3, 60, lesions=1.0), strict=True):
        images, masks = healthy.images.copy(), healthy.masks.copy()
        images[1], masks[1] = sick.images[1], sick.masks[1]
        found.append(_judge(gate, replace(healthy, images=images, masks=masks)).unusual)
    assert np.mean(found) <= 0.1


SHIFTS = {
    "noise": lambda images: np.clip(images + np.random.default_rng(3).normal(0, 0.1, images.shape), 0, 1),
    "blur": lambda images: (images + np.roll(images, 1, 1) + np.roll(images, 1, 2)) / 3,
    "gamma": lambda images: images**2.0,
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_another_scanner_is_unusual_with_and_without_lesion(gate: AcquisitionModel, shift: str) -> None:
    """Shifted images are called unusual, and lie further away than large lesions on every plane do."""
    far = []
    for lesions in (0.0, 1.0):
        moved = [
            replace(planes, images=SHIFTS[shift](planes.images).astype(np.float32))
            for planes in _series(4, 20, lesions)
        ]
        answers = [_judge(gate, planes) for planes in moved]
        assert np.mean([answer.unusual for answer in answers]) >= 0.9
        far.append(np.median([answer.distance for answer in answers]))
    sick = np.median([_judge(gate, planes).distance for planes in _series(4, 20, 1.0)])
    assert min(far) > sick


def test_the_answer_names_what_is_most_unusual(gate: AcquisitionModel) -> None:
    """An operator reads which feature it was, in robust standard deviations."""
    planes = _series(5, 1)[0]
    noisy = np.clip(planes.images + np.random.default_rng(0).normal(0, 0.15, planes.images.shape), 0, 1)
    answer = _judge(gate, replace(planes, images=noisy.astype(np.float32)))
    assert {"noise", "share of high frequencies", "sharpness"} & {name for name, _ in answer.features}
    assert answer.n_patients == PATIENTS


def test_a_model_folder_keeps_the_gate_exactly(gate: AcquisitionModel) -> None:
    """What calibration.json holds gives the same scores, and stays small."""
    text = gate.model_dump_json()
    again = AcquisitionModel.model_validate_json(text)
    for planes in _series(6, 5):
        assert _judge(again, planes) == _judge(gate, planes)
    assert len(text) < 40_000


def test_fitting_twice_gives_the_same_gate(gate: AcquisitionModel) -> None:
    """Training can be repeated."""
    assert fit_acquisition(*_healthy()) == gate


def test_a_gate_that_does_not_fit_together_is_refused(gate: AcquisitionModel) -> None:
    """A damaged calibration.json does not become a silent gate."""
    content = gate.model_dump()
    content["features"] = content["features"][:-1]
    with pytest.raises(ValidationError, match="differ in number"):
        AcquisitionModel.model_validate(content)


def test_too_few_healthy_patients_make_no_gate() -> None:
    """With nine patients no threshold can promise a small rate."""
    planes, patients, folds, countable = _healthy()
    few = [i for i, name in enumerate(patients) if int(name[1:]) < 9]
    args = ([patients[i] for i in few], [folds[i] for i in few], [countable[i] for i in few])
    assert fit_acquisition(planes.chosen(few), *args) is None


def test_spacing_counts_where_training_knew_it_and_only_there() -> None:
    """Pixels of twice the size are seen; a series without Pixel Spacing is not called unusual for that."""
    planes, patients, folds, countable = _healthy()
    draw = np.random.default_rng(0)
    known = [geometry(float(draw.normal(0.5, 0.01)), None) for _ in patients]
    gate = fit_acquisition(planes, patients, folds, countable, known)
    assert gate is not None
    assert tuple(gate.features) == (*FEATURES, PIXEL_MM)
    same = _series(8, 1)[0]
    for spacing, unusual in ((1.0, True), (0.5, False), (None, False)):
        given = [geometry(spacing, None)] * len(same)
        measured = measure_planes(same.images, same.masks, tuple(gate.features), given)
        assert gate.judge(measured).unusual is unusual


def _result(outcome: Outcome, *, unusual: bool | None) -> DetectionResult:
    own = (
        None
        if unusual is None
        else Acquisition(0.999 if unusual else 0.4, 0.98, 0.02, "u", "m", 99, 1.5, (("noise", 6.0),))
    )
    score = 0.99 if outcome is Outcome.FINDINGS else 0.3
    calibration = Calibration("u", "m", 99, 0.95, 0.05)
    plane = PlaneResult(score, np.zeros((4, 4), np.float32))
    return DetectionResult(outcome, score, calibration=calibration, planes=(plane,), acquisition=own)


@pytest.mark.parametrize(
    ("outcome", "unusual", "policy", "ends", "notices"),
    [
        (Outcome.NO_FINDINGS, False, "withhold", Outcome.NO_FINDINGS, ()),
        (Outcome.FINDINGS, False, "withhold", Outcome.FINDINGS, ()),
        (Outcome.NO_FINDINGS, True, "withhold", Outcome.NOT_ANALYSED, ()),
        (Outcome.FINDINGS, True, "withhold", Outcome.FINDINGS, (REVIEW,)),
        (Outcome.NO_FINDINGS, True, "note", Outcome.NO_FINDINGS, (UNUSUAL,)),
        (Outcome.FINDINGS, True, "note", Outcome.FINDINGS, (REVIEW,)),
        (Outcome.NO_FINDINGS, True, "off", Outcome.NO_FINDINGS, ()),
        (Outcome.NO_FINDINGS, None, "withhold", Outcome.NO_FINDINGS, ()),
    ],
)
def test_the_decision_table(outcome: Outcome, unusual: bool | None, policy, ends: Outcome, notices: tuple) -> None:
    """Every cell of the table; nothing unusual ends as plain no findings unless the gate is off."""
    told, withheld = gated(_result(outcome, unusual=unusual), policy)
    assert (told.outcome, told.notices) == (ends, notices)
    assert withheld is (ends is Outcome.NOT_ANALYSED)
    if withheld:
        assert told.score is None
        assert "unusual acquisition, score withheld" in told.reason
        assert "0.9990" in told.reason
        assert "noise +6.0" in told.reason


def test_a_model_without_gate_says_so() -> None:
    """Silence would look like "usual"."""
    told, _ = gated(_result(Outcome.NO_FINDINGS, unusual=None), "note")
    assert told.parameters[PARAMETER] == NOT_AVAILABLE


def test_a_result_that_was_not_analysed_stays_as_it_is() -> None:
    refusal = DetectionResult(Outcome.NOT_ANALYSED, reason="no plane")
    assert gated(refusal, "withhold") == (refusal, False)


def test_header_values_that_training_has_not_seen_are_named_without_their_text() -> None:
    """Header evidence is a note; it counts only where the card says so."""
    seen = {"Manufacturer": Seen(values=["ACME"]), "MagneticFieldStrength": Seen(least=1.4, greatest=3.1)}

    def of(**values: object) -> SeriesSummary:
        attributes = {name: (value,) for name, value in values.items()}
        return SeriesSummary(SeriesReference("1.2", "1.3"), 1, attributes)  # type: ignore[arg-type]

    assert unseen(of(Manufacturer="acme ", MagneticFieldStrength=1.5), seen) == ()
    assert unseen(of(), seen) == ()
    assert unseen(of(Manufacturer="Other", MagneticFieldStrength=0.06), seen) == (
        "Manufacturer",
        "MagneticFieldStrength",
    )
    usual = Acquisition(0.1, 0.98, 0.02, "u", "m", 99, 1.0, header_notes=("Manufacturer",))
    assert not usual.unusual
    assert replace(usual, header_counts=True).unusual
