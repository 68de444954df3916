"""De-identified files are as valid as they were: dicom3tools' dciodvfy finds no error that was not there before."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from pydicom.data import get_testdata_files
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomnode.deid.engine import Deidentifier
from dicomnode.deid.part10 import Part10, parse_part10
from dicomnode.deid.pixel_decision import PixelDecision
from dicomnode.deid.profile import load_profile
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.tree import text_element
from tests.unit.deid_objects import PSEUDONYMS

_PATIENT_ID = 0x00100020
_NO_OBJECTS = {Reason.NOT_DICOM, Reason.DIRECTORY, Reason.NO_INSTANCE, Reason.MALFORMED}


@cache
def _errors_before(path: Path) -> set[str]:
    return _errors(path)


def _errors(path: Path) -> set[str]:
    """What dciodvfy objects to, without places and values."""
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, timeout=120)
    lines = (done.stderr + done.stdout).decode("latin-1").splitlines()
    return {re.sub(r"<[^>]*>|\[\d+\]", "", line) for line in lines if line.startswith("Error")}


def _of_somebody(part: Part10) -> Part10:
    """Test files without Patient ID get one: they would be held back."""
    if part.texts({_PATIENT_ID})[_PATIENT_ID]:
        return part
    others = [element for element in part.elements if element.tag != _PATIENT_ID]
    return part.rebuilt(sorted([*others, text_element(_PATIENT_ID, "P1")], key=lambda element: element.tag))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dicom3tools")
@pytest.mark.parametrize("profile", ["basic", "research"])
def test_no_new_errors_over_pydicoms_files(profile: str, tmp_path: Path) -> None:
    """D4, D5, D22: every readable file that pydicom comes with, under two profiles."""
    engine = Deidentifier(load_profile(profile), PSEUDONYMS)
    new_errors, reasons, examined = {}, set(), 0
    for name in sorted(get_testdata_files()):
        path = Path(name)
        if not path.is_file() or path.suffix in (".py", ".json", ".toml", ".zip"):
            continue
        try:
            part, _ = engine.transform(_of_somebody(parse_part10(path.read_bytes())), PixelDecision())
        except Quarantined as refusal:
            reasons.add(refusal.reason)
            continue
        if part.transfer_syntax == DeflatedExplicitVRLittleEndian:
            continue  # the checker cannot inflate
        target = tmp_path / "new.dcm"
        target.write_bytes(part.whole())
        examined += 1
        if added := _errors(target) - _errors_before(path):
            new_errors[path.name] = added
    assert not new_errors
    assert reasons <= _NO_OBJECTS
    assert examined > 40
