"""The demo's studies are valid DICOM: dciodvfy finds no error."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dicomnode.demo.phantoms import make_ct_head, make_dx_chest, make_mr_flair

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed"),
]


@pytest.mark.parametrize("make", [make_ct_head, make_dx_chest, make_mr_flair])
def test_dciodvfy_finds_no_error_in_any_instance(make, tmp_path: Path) -> None:
    for path in make(2).write(tmp_path):
        answer = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60)
        assert "Error" not in answer.stdout + answer.stderr
        assert "Image" in answer.stderr
