"""External programs: what they are given, what is believed of their answer, and what is kept of what they print."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dicomnode.detectors.contract import Outcome, Volume
from dicomnode.detectors.hosted.plugin import host
from dicomnode.errors import ConfigError
from tests.unit.hosted_fixtures import SPHERE, ct_volume, dice, mask_of, radiograph, section, settings_of

NIFTI = """
import sys
import nibabel, numpy
image = nibabel.load(sys.argv[1] + "/image_0000.nii.gz")
found = (image.get_fdata() > 100).astype("uint8")
affine = image.affine
if len(sys.argv) > 3:
    found, affine = found[::-1, :, ::-1], image.affine @ numpy.array(
        [[-1, 0, 0, found.shape[0] - 1], [0, 1, 0, 0], [0, 0, -1, found.shape[2] - 1], [0, 0, 0, 1]])
nibabel.save(nibabel.Nifti1Image(found, affine), sys.argv[2] + "/seg.nii.gz")
"""
DICOM = """
import sys, json
from pathlib import Path
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage, generate_uid
files = [dcmread(path) for path in sorted(Path(sys.argv[1]).glob("*.dcm"))]
masks = [f.pixel_array * float(f.RescaleSlope) + float(f.RescaleIntercept) > 100 for f in files]
seg = Dataset()
seg.SOPClassUID, seg.SOPInstanceUID, seg.SegmentationType = SegmentationStorage, generate_uid(), "BINARY"
seg.Rows, seg.Columns = masks[0].shape
seg.NumberOfFrames = len(masks)
seg.SamplesPerPixel, seg.PhotometricInterpretation, seg.PixelRepresentation = 1, "MONOCHROME2", 0
seg.BitsAllocated = seg.BitsStored = 1
seg.HighBit = 0
seg.PixelData = np.packbits(np.stack(masks).ravel(), bitorder="little").tobytes()
shared = Dataset()
orientation, number = Dataset(), Dataset()
orientation.ImageOrientationPatient = files[0].ImageOrientationPatient
number.ReferencedSegmentNumber = 1
shared.PlaneOrientationSequence, shared.SegmentIdentificationSequence = [orientation], [number]
seg.SharedFunctionalGroupsSequence = [shared]
seg.PerFrameFunctionalGroupsSequence = []
for f in files:
    place, group, source, derivation = Dataset(), Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = f.ImagePositionPatient
    group.PlanePositionSequence = [place]
    if len(sys.argv) > 3:
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = f.SOPClassUID, f.SOPInstanceUID
        derivation.SourceImageSequence = [source]
        group.DerivationImageSequence = [derivation]
    seg.PerFrameFunctionalGroupsSequence.append(group)
seg.file_meta = FileMetaDataset()
seg.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
seg.save_as(sys.argv[2] + "/seg.dcm", enforce_file_format=True)
"""


def load(folder: Path, program: str, more: str = "", *, output: str = "segmentation", labels: str = SPHERE, words=()):
    script = folder / "tool.py"
    script.write_text(program)
    command = json.dumps([sys.executable, "{path}", "{input}", "{output}", *words])
    text = section("command", script, f'command = {command}\noutput = "{output}"\n{more}', labels)
    detector = host("m", settings_of(text))
    return detector.load(detector.location, "cpu")


@pytest.mark.parametrize("words", [(), ("flipped",)])
def test_a_program_gets_nifti_and_its_label_map_comes_back(tmp_path, words):
    """Voxels of another order are put in place by the affine."""
    volume, truth = ct_volume()
    result = load(tmp_path, NIFTI, words=words).detect(volume)
    assert result.outcome is Outcome.FINDINGS
    assert dice(mask_of(volume, result.findings), truth) == 1.0


@pytest.mark.parametrize("words", [(), ("named",)])
def test_a_program_gets_dicom_and_its_segmentation_comes_back(tmp_path, words):
    """Frames find their plane by the source that they name, or by their position."""
    volume, truth = ct_volume()
    result = load(tmp_path, DICOM, 'gives = "dicom"', words=words).detect(volume)
    assert dice(mask_of(volume, result.findings), truth) == 1.0


SPY = """
import sys, json, os
from pathlib import Path
from pydicom import dcmread
files = [dcmread(path) for path in Path(sys.argv[1]).glob("*.dcm")]
seen = {str(e.keyword): str(e.value) for file in files for e in file if e.keyword != "PixelData"}
Path(__file__).with_name("seen.json").write_text(json.dumps([seen, dict(os.environ)]))
Path(sys.argv[2] + "/scores.json").write_text(json.dumps({"sphere": 0.75, "other": 0.1}))
"""


def test_the_program_learns_nothing_about_the_patient(tmp_path, monkeypatch):
    """No UID of the source, no name, no number, and no variable of the node's environment such as a token."""
    monkeypatch.setenv("ARCHIVE_TOKEN", "secret")
    volume, _ = ct_volume()
    result = load(tmp_path, SPY, 'gives = "dicom"', output="scores").detect(volume)
    seen, environment = json.loads((tmp_path / "seen.json").read_text())
    assert (result.outcome, result.score, result.findings) == (Outcome.FINDINGS, 0.75, ())
    assert not any("2.25.1" in value for value in seen.values())
    assert [seen[key] for key in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber")] == [""] * 4
    assert seen["PatientIdentityRemoved"] == "YES"
    assert "ARCHIVE_TOKEN" not in environment
    assert not Path(environment["HOME"]).exists()


def test_a_radiograph_can_be_scored(tmp_path):
    """A program for images gets them as DICOM; NIfTI needs a stack and says so."""
    assert load(tmp_path, SPY, 'gives = "dicom"', output="scores").detect(radiograph(bright=True)).score == 0.75
    refused = load(tmp_path, SPY, output="scores").detect(radiograph(bright=True))
    assert refused.outcome is Outcome.NOT_ANALYSED


FAULTS = {
    "exit status": ("import sys; print('DOE^JANE', file=sys.stderr); sys.exit(3)", "exit status 3"),
    "time": ("import time; time.sleep(60)", "did not end within 0.5 s"),
    "nothing": ("", "0 NIfTI and 0 DICOM files"),
    "rubbish": ("import sys; open(sys.argv[2] + '/a.nii.gz', 'w').write('DOE^JANE')", "NIfTI file cannot be read"),
    "no segmentation": ("import sys; open(sys.argv[2] + '/a.dcm', 'w').write('DOE^JANE')", "no Segmentation"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_program_that_fails_is_a_failure_without_its_words(tmp_path, case):
    """What it prints may hold patient data and is kept nowhere."""
    program, reason = FAULTS[case]
    limit = "timeout_s = 0.5" if case == "time" else ""
    result = load(tmp_path, program, limit).detect(ct_volume()[0])
    assert result.outcome is Outcome.FAILED
    assert reason in result.reason
    assert "DOE" not in result.reason


@pytest.mark.parametrize(
    ("written", "reason"),
    [("{}", "no number for sphere"), ('{"sphere": 7}', "not between 0 and 1"), ("[", "no scores.json"),
     ('{"sphere": true}', "no number"), ('{"sphere": NaN}', "no number")],
)  # fmt: skip
def test_scores_that_are_none_are_not_believed(tmp_path, written, reason):
    """A score is a number from 0 to 1 for every label, or the analysis failed."""
    program = f"import sys; open(sys.argv[2] + '/scores.json', 'w').write({written!r})"
    result = load(tmp_path, program, output="scores").detect(ct_volume()[0])
    assert result.outcome is Outcome.FAILED
    assert reason in result.reason


def test_children_of_a_program_end_with_it(tmp_path):
    """A program that leaves something running behind does not keep it."""
    import psutil

    program = (
        "import subprocess, sys; from pathlib import Path; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)']); "
        "Path(__file__).with_name('pid').write_text(str(child.pid)); sys.exit(1)"
    )
    load(tmp_path, program).detect(ct_volume()[0])
    pid = int((tmp_path / "pid").read_text())
    with suppress(psutil.NoSuchProcess):
        until = time.monotonic() + 60  # a killed process takes a moment to go on a busy machine
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until, "the child is still running"
            time.sleep(0.1)


def test_a_program_that_was_changed_does_not_run(tmp_path):
    """Its hash is looked at before every run."""
    loaded = load(tmp_path, NIFTI)
    (tmp_path / "tool.py").write_text("print()")
    with pytest.raises(ConfigError, match="SHA-256"):
        loaded.detect(ct_volume()[0])


def test_nifti_without_nibabel_names_the_extra(tmp_path, monkeypatch):
    """The operator reads what to install."""
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ConfigError, match=r"dicomnode\[bundles\]"):
        load(tmp_path, NIFTI)


def test_images_of_different_sizes_are_not_analysed(tmp_path):
    """No array can be made of them."""
    volume, _ = ct_volume()
    first = volume.planes[0]
    odd = type(first)(first.pixels[:20], first.source, None, first.spacing, first.position, first.orientation)
    mixed = Volume(volume.summary, (odd, *volume.planes[1:]), volume.slice_spacing)
    assert load(tmp_path, NIFTI).detect(mixed).outcome is Outcome.NOT_ANALYSED
