"""The demo's studies are reproducible, hold a lesion of known place, and read as what they claim to be."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from dicomnode.demo.phantoms import PhantomStudy, make_ct_head, make_dx_chest, make_mr_flair
from dicomnode.dicom.header import ROUTING_KEYWORDS, read_header
from dicomnode.dicom.references import require_uid

MAKERS = (make_ct_head, make_dx_chest, make_mr_flair)


@lru_cache
def study(name: str) -> PhantomStudy:
    return {make.__name__: make for make in MAKERS}[name](1)


@pytest.fixture(params=[make.__name__ for make in MAKERS])
def phantom(request: pytest.FixtureRequest) -> PhantomStudy:
    return study(request.param)


def test_the_lesion_is_there_and_brighter_than_its_surroundings(phantom: PhantomStudy) -> None:
    shown = [dataset for dataset in phantom.datasets if phantom.truth[dataset.SOPInstanceUID].sum() > 50]
    assert shown
    for dataset in shown:
        lesion = phantom.truth[dataset.SOPInstanceUID]
        pixels = dataset.pixel_array.astype(float)
        near = ndimage.binary_dilation(lesion, iterations=12) & ~ndimage.binary_dilation(lesion, iterations=4)
        assert lesion.shape == pixels.shape
        assert np.median(pixels[lesion]) > np.median(pixels[near]) * 1.01


def test_every_instance_has_its_truth_and_its_own_uid(phantom: PhantomStudy) -> None:
    uids = [require_uid(str(dataset.SOPInstanceUID)) for dataset in phantom.datasets]
    assert len(set(uids)) == len(uids)
    assert set(phantom.truth) == set(uids)
    assert len({dataset.SeriesInstanceUID for dataset in phantom.datasets}) == 1
    assert {int(dataset.ImagesInAcquisition) for dataset in phantom.datasets} == {len(uids)}


def test_the_patient_is_plainly_fictional(phantom: PhantomStudy) -> None:
    for dataset in phantom.datasets:
        assert str(dataset.PatientName) == f"PHANTOM^{dataset.Modality}"
        assert dataset.PatientID == f"PHANTOM-{dataset.Modality}-1"


def test_the_same_seed_gives_the_same_study_and_another_seed_another() -> None:
    first, again, other = make_dx_chest(7), make_dx_chest(7), make_dx_chest(8)
    assert first.datasets[0] == again.datasets[0]
    assert first.datasets[0].SOPInstanceUID != other.datasets[0].SOPInstanceUID
    assert first.datasets[0].PixelData != other.datasets[0].PixelData


def test_the_head_ct_has_the_hounsfield_values_of_a_head() -> None:
    phantom = study("make_ct_head")
    middle = phantom.datasets[len(phantom.datasets) // 2 - 2]
    hounsfield = middle.pixel_array * float(middle.RescaleSlope) + float(middle.RescaleIntercept)
    lesion = phantom.truth[middle.SOPInstanceUID]
    assert 60 <= np.median(hounsfield[lesion]) <= 75
    brain = (hounsfield > 0) & (hounsfield < 60) & ~lesion
    assert 25 <= np.median(hounsfield[brain]) <= 40
    assert np.median(hounsfield[:40, :40]) < -950
    assert hounsfield.max() > 900


def test_slices_lie_five_millimetres_apart() -> None:
    for name in ("make_ct_head", "make_mr_flair"):
        heights = [float(dataset.ImagePositionPatient[2]) for dataset in study(name).datasets]
        assert len(heights) == 20
        assert np.allclose(np.diff(heights), 5)


def test_written_files_are_read_back_by_the_header_reader(tmp_path: Path) -> None:
    phantom = study("make_mr_flair")
    paths = phantom.write(tmp_path / "study")
    assert len(paths) == 20
    header = read_header(paths[3], ROUTING_KEYWORDS)
    assert header["SOPInstanceUID"] == (phantom.datasets[3].SOPInstanceUID,)
    assert header["BodyPartExamined"] == ("HEAD",)
    assert header["ImageOrientationPatient"] == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
