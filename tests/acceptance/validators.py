"""Third-party validators over result files: dciodvfy, dsrdump and the PixelMed SR validator.

``validate`` answers the errors that they report, as text; warnings are not errors.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydicom import dcmread

PIXELMED = Path(os.environ.get("PIXELMED_JAR", "/usr/share/java/pixelmed.jar"))
TOOLS = ("dciodvfy", "dsrdump", "java")
_SR = "1.2.840.10008.5.1.4.1.1.88."
_JAVA = (
    "java",
    "-Xss64m",
    # Java 17 and later stop PixelMed's long XPath expressions otherwise (JAXP0801003)
    "-Djdk.xml.xpathTotalOpLimit=0",
    "-Djdk.xml.xpathExprOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
    "-cp",
    str(PIXELMED),
    "com.pixelmed.validate.DicomSRValidator",
)


def missing() -> list[str]:
    """Which validators are not installed (Debian: dicom3tools, dcmtk, default-jre-headless, pixelmed-apps)."""
    return [tool for tool in TOOLS if shutil.which(tool) is None] + ([] if PIXELMED.is_file() else [str(PIXELMED)])


def validate(paths: Iterable[Path]) -> list[str]:
    """Every error of every validator: dciodvfy on all files, dsrdump and PixelMed on SR documents."""
    files = list(paths)
    documents = [
        path for path in files if str(dcmread(path, specific_tags=["SOPClassUID"]).SOPClassUID).startswith(_SR)
    ]
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        errors = [*pool.map(dciodvfy, files), *pool.map(dsrdump, documents), *pool.map(pixelmed, documents)]
    return [
        f"{path.name}: {error}"
        for path, found in zip([*files, *documents, *documents], errors, strict=True)
        for error in found
    ]


def dciodvfy(path: Path) -> list[str]:
    answer = _run("dciodvfy", "-new", str(path))
    errors = [line for line in answer.splitlines() if line.startswith("Error")]
    return errors if errors or answer.strip() else ["dciodvfy said nothing"]


def dsrdump(path: Path) -> list[str]:
    return [line for line in _run("dsrdump", str(path)).splitlines() if line.startswith(("E:", "F:"))]


def pixelmed(path: Path) -> list[str]:
    """PixelMed exits 0 whatever it finds, even for a class that it does not know: its words count."""
    answer = _run(*_JAVA, str(path))
    errors = [line for line in answer.splitlines() if line.startswith("Error") or "unrecognized" in line.lower()]
    if "IOD validation complete" not in answer:
        errors.append("PixelMed did not finish: " + answer[:300])
    return errors


def _run(*command: str) -> str:
    done: subprocess.CompletedProcess[bytes] = subprocess.run(command, capture_output=True, timeout=240)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def written(results: Sequence[bytes], folder: Path) -> list[Path]:
    """Store Part 10 files one by one in ``folder``."""
    paths = [folder / f"{n:03}.dcm" for n in range(len(results))]
    for path, data in zip(paths, results, strict=True):
        path.write_bytes(data)
    return paths
