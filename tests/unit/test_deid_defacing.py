"""The face goes, the brain stays; what is no whole head is left alone and nothing is claimed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from pydicom.dataset import FileDataset

from dicomnode.cli import cli
from dicomnode.deid.defacing import DEPTH_MM, Geometry, NotAWholeHead, face
from dicomnode.deid.defacing_series import Faces, find_faces
from dicomnode.deid.masks import PixelSettings
from dicomnode.deid.pixels import FACE_LEFT, PixelCleaner
from dicomnode.demo.phantoms import make_mr_flair
from tests.deid_pictures import image

AXIAL = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], float)
STEP = 3.0


def head(modality: str, below: float = -110.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A head of 150 x 190 mm with nose and chin, and its parts; z from ``below`` to 110 mm, cubes of 3 mm."""
    z, y, x = np.meshgrid(
        np.arange(below, 112, STEP), np.arange(-132, 120, STEP), np.arange(-96, 97, STEP), indexing="ij"
    )

    def ball(cz: float, cy: float, az: float, ay: float, ax: float) -> np.ndarray:
        return ((z - cz) / az) ** 2 + ((y - cy) / ay) ** 2 + (x / ax) ** 2 <= 1

    skull, brain = ball(15, 0, 84, 88, 69), ball(20, 2, 72, 79, 61)
    lower = ball(-60, -38, 55, 50, 52)
    nose = (np.abs(x) < 12 - 0.2 * (z + 10)) & (z > -50) & (z < -10) & (y < -60) & (y > -112 - 0.4 * (z + 10))
    skin = ball(15, 0, 91, 95, 75) | lower | nose
    if modality == "CT":
        parts = (-1000, (skin, 40), (skull, 900), (brain, 35), (lower & (y > -60), 50))
    else:
        parts = (5, (skin, 700), (skull, 150), (brain, 500))
    volume = np.full(z.shape, parts[0], np.float32)
    for where, value in parts[1:]:
        volume[where] = value
    volume += np.random.default_rng(3).normal(0, 4, z.shape).astype(np.float32)
    return volume, {"brain": brain, "nose": nose & ~skull, "skin": skin, "z": z, "y": y}


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_face_goes_and_the_brain_stays(modality):
    """113102: no voxel of the brain is touched; the nose goes, and the surface of the face 12 mm deep and more."""
    volume, parts = head(modality)
    found = face(volume, Geometry(AXIAL, (STEP, STEP, STEP)), modality)
    assert not (found & parts["brain"]).any()
    assert found[parts["nose"] & (parts["y"] < -90)].mean() > 0.97
    middle = parts["skin"].shape[2] // 2
    for height in (-80, -60, -30):
        level = int(np.argmin(np.abs(parts["z"][:, 0, 0] - height)))
        front = int(np.flatnonzero(parts["skin"][level, :, middle])[0])
        assert found[level, : front + int((DEPTH_MM - 3) / STEP), middle].all(), height
    above = parts["z"] > 40
    behind = parts["y"] > 20
    assert not (found & (above | behind)).any()


@pytest.mark.parametrize(("order", "flips"), [((0, 1, 2), (0,)), ((2, 0, 1), ()), ((1, 2, 0), (1, 2))])
def test_the_orientation_of_the_slices_does_not_matter(order, flips):
    """Axial, sagittal and coronal slices in either direction give the same face."""
    volume, _ = head("CT")
    straight = face(volume, Geometry(AXIAL, (STEP, STEP, STEP)), "CT")
    directions = AXIAL[list(order)].copy()
    directions[list(flips)] *= -1
    turned = np.flip(volume.transpose(order), flips)
    found = face(turned, Geometry(directions, (STEP, STEP, STEP)), "CT")
    assert (np.flip(found, flips).transpose(np.argsort(order)) == straight).mean() > 0.995


def test_what_is_no_whole_head_is_refused():
    """Too few slices, a cut vertex, a box, and a brain scan above the orbits: no claim."""
    volume, _ = head("CT")
    cubes = Geometry(AXIAL, (STEP, STEP, STEP))
    flair = np.stack([dataset.pixel_array for dataset in make_mr_flair(3).datasets]).astype(np.float32)
    block = np.full((70, 84, 64), -1000, np.float32)
    block[10:60, 5:80, 5:60] = 40
    for refused, geometry, modality in (
        (volume[:12], cubes, "CT"), (volume[:45], cubes, "CT"), (block, cubes, "CT"),
        (np.full_like(block, -1000), cubes, "CT"), (flair, Geometry(AXIAL, (5.0, 0.9, 0.9)), "MR"),
    ):  # fmt: skip
        with pytest.raises(NotAWholeHead):
            face(refused, geometry, modality)


def series(folder: Path, count: int | None = None) -> list[FileDataset]:
    """Axial CT slices of the head as files, in no order, and two files that are none of them."""
    volume, _ = head("CT")
    slices = []
    for number, layer in enumerate(volume[:count]):
        dataset = image(
            np.rint(layer + 1024).clip(0).astype(np.uint16), BodyPartExamined="HEAD", SeriesInstanceUID="1.2.3"
        )
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [STEP, STEP]
        dataset.ImagePositionPatient = [-96, -132, -110 + STEP * number]
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.save_as(folder / f"{number * 37 % 1000:03}.dcm")
        slices.append(dataset)
    image(np.zeros((8, 8), np.uint8), SeriesInstanceUID="1.2.4").save_as(folder / "other.dcm")
    (folder / "note.txt").write_text("no DICOM")
    return slices


def test_a_series_is_defaced_as_a_whole(tmp_path):
    """113102: masks for all slices of a head series; the policy applies them and names the code, and only then."""
    source = tmp_path / "in"
    source.mkdir()
    slices = series(source)
    assert find_faces(sorted(source.iterdir()), tmp_path / "faces") == {"face found": 1}
    faces = Faces(tmp_path / "faces")
    assert all(faces.of(str(dataset.SOPInstanceUID)) is not None for dataset in slices)
    low, high = slices[20], slices[-10]
    for dataset, changed in ((low, True), (high, False)):
        before = dataset.pixel_array.copy()
        decision = PixelCleaner(PixelSettings(ocr="none"), faces).examine(dataset)
        assert (decision.hold, decision.codes, decision.warnings) == (None, ("113102",), ())
        assert bool((dataset.pixel_array != before).any()) == changed
    stranger = image(low.pixel_array, BodyPartExamined="HEAD")
    decision = PixelCleaner(PixelSettings(ocr="none"), faces).examine(stranger)
    assert (decision.codes, decision.warnings) == ((), (FACE_LEFT,))


def test_the_command_defaces_and_leaves_no_masks(tmp_path):
    """113102: `dicomnode deid --option clean_recognizable_visual_features` names it, and the face is gone."""
    source, target, key, config = (tmp_path / name for name in ("in", "out", "key", "node.toml"))
    source.mkdir()
    slices = series(source)
    config.write_text(f'[node]\ndata_dir = "{tmp_path / "data"}"\n')
    runner = CliRunner()
    assert runner.invoke(cli, ["deid", "key", str(key)], standalone_mode=False).exception is None
    options = ["--config", str(config), "--key", str(key), "--jobs", "1", "--json"]
    command = ["deid", str(source), str(target), *options, "--option", "clean_recognizable_visual_features"]
    done = runner.invoke(cli, command, standalone_mode=False)
    assert done.return_value == 0, (done.output, done.exception)
    results = [pydicom.dcmread(path) for path in target.rglob("*.dcm")]
    heads = sorted((one for one in results if one.Rows > 8), key=lambda one: one.ImagePositionPatient[2])
    assert len(heads) == len(slices)
    for result in heads:
        assert "113102" in {item.CodeValue for item in result.DeidentificationMethodCodeSequence}
    assert (heads[20].pixel_array != slices[20].pixel_array).any()
    assert (heads[-10].pixel_array == slices[-10].pixel_array).all()
    assert not (tmp_path / "out.deid" / "faces").exists()


def test_a_part_of_a_head_gets_no_masks(tmp_path):
    """113102 is not claimed for a series that is too short: no mask is kept, the reason is told."""
    source = tmp_path / "in"
    source.mkdir()
    slices = series(source, 14)
    assert find_faces(sorted(source.iterdir()), tmp_path / "faces") == {"no whole head: it has too few slices": 1}
    assert Faces(tmp_path / "faces").of(str(slices[0].SOPInstanceUID)) is None
