"""Third-party tools over result files: dciodvfy, DCMTK and the PixelMed SR validator.

``validate`` answers the errors that they report, as text; warnings are not errors.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

PIXELMED = Path(os.environ.get("PIXELMED_JAR", "/usr/share/java/pixelmed.jar"))
BATCH = Path(__file__).with_name("PixelMedBatch.java")
TOOLS = ("dciodvfy", "dsrdump", "dcmj2pnm", "dcm2pdf", "dcmpschk", "java")
_JAVA = (
    "java",
    "-Xss64m",
    # Java 17 and later stop PixelMed's long XPath expressions otherwise (JAXP0801003)
    "-Djdk.xml.xpathTotalOpLimit=0",
    "-Djdk.xml.xpathExprOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
    "-cp",
    str(PIXELMED),
)
_DOCUMENT = "1.2.840.10008.5.1.4.1.1.88."
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
_PDF = "1.2.840.10008.5.1.4.1.1.104.1"


def missing() -> list[str]:
    """Which validators are not installed (Debian: dicom3tools, dcmtk, default-jdk-headless, pixelmed-apps)."""
    return [tool for tool in TOOLS if shutil.which(tool) is None] + ([] if PIXELMED.is_file() else [str(PIXELMED)])


def validate(paths: Iterable[Path]) -> list[str]:
    """Every error of every tool: dciodvfy on all files, DCMTK by kind, PixelMed on structured reports."""
    files = list(paths)
    with ThreadPoolExecutor(_threads()) as pool:
        found = dict(zip(files, pool.map(_each, files), strict=True))
    for path, errors in pixelmed_all([path for path in files if _sop_class(path).startswith(_DOCUMENT)]).items():
        found[path] += errors
    return [f"{path.name}: {error}" for path, errors in found.items() for error in errors]


def _each(path: Path) -> list[str]:
    errors = dciodvfy(path)
    for sop_class, tool in _BY_KIND.items():
        if _sop_class(path).startswith(sop_class):
            errors += tool(path)
    return errors


def dciodvfy(path: Path) -> list[str]:
    answer = _run("dciodvfy", "-new", str(path))
    errors = [line for line in answer.splitlines() if line.startswith("Error")]
    return errors if errors or answer.strip() else ["dciodvfy said nothing"]


def dsrdump(path: Path) -> list[str]:
    return [line for line in _run("dsrdump", str(path)).splitlines() if line.startswith(("E:", "F:"))]


def dcmj2pnm(path: Path) -> list[str]:
    """Every frame of a picture has to be decoded, to a file that is not empty."""
    frames = int(dcmread(path, stop_before_pixels=True).get("NumberOfFrames") or 1)
    with tempfile.TemporaryDirectory() as folder:
        answer = _run("dcmj2pnm", "+Fa", "--write-png", str(path), f"{folder}/frame")
        made = [one for one in Path(folder).iterdir() if one.stat().st_size]
    return [] if len(made) == frames else [f"dcmj2pnm decoded {len(made)} of {frames} frames: {answer[:200]}"]


def dcm2pdf(path: Path) -> list[str]:
    """The document has to come out, whole."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "document.pdf"
        answer = _run("dcm2pdf", str(path), str(target))
        content = target.read_bytes() if target.exists() else b""
    whole = content.startswith(b"%PDF-") and b"%%EOF" in content[-1024:]
    return [] if whole else [f"dcm2pdf: no whole PDF came out: {answer[:200]}"]


def dcmpschk(path: Path) -> list[str]:
    """DCMTK's checker of presentation states. It knows no UTF-8: states with other letters are not shown to it."""
    if not _ascii(dcmread(path)):
        return []
    answer = _run("dcmpschk", str(path))
    return [] if "Test passed" in answer else [f"dcmpschk: {answer[-300:]}"]


def pixelmed(path: Path) -> list[str]:
    """The errors of one structured report."""
    return pixelmed_all([path])[path]


def pixelmed_all(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """The errors of each structured report; one virtual machine for all of them where Java can compile."""
    if not paths:
        return {}
    if len(paths) == 1 or not _java_compiles():
        with ThreadPoolExecutor(_threads()) as pool:
            single = (*_JAVA, "com.pixelmed.validate.DicomSRValidator")
            answers = dict(zip(paths, pool.map(lambda path: _run(*single, str(path)), paths), strict=True))
    else:
        told = _run(*_JAVA, str(BATCH), str(min(_threads(), len(paths))), *map(str, paths))
        blocks = (block.partition("\n") for block in told.split("\n@file ")[1:])
        answers = {Path(name): answer for name, _, answer in blocks}
    return {path: _pixelmed_errors(answers.get(path, "no answer")) for path in paths}


def _pixelmed_errors(answer: str) -> list[str]:
    """PixelMed exits 0 whatever it finds, even for a class that it does not know: its words count."""
    errors = [line for line in answer.splitlines() if line.startswith("Error") or "unrecognized" in line.lower()]
    if "IOD validation complete" not in answer:
        errors.append("PixelMed did not finish: " + answer[:300])
    return errors


@functools.cache
def _java_compiles() -> bool:
    return "jdk.compiler@" in _run("java", "--list-modules")


def _sop_class(path: Path) -> str:
    return str(dcmread(path, specific_tags=["SOPClassUID"]).SOPClassUID)


def _ascii(dataset: Dataset) -> bool:
    texts = (element.value for element in dataset.iterall() if element.VR in ("PN", "LO", "SH", "ST", "LT", "UT"))
    return all(str(text).isascii() for text in texts)


def _threads() -> int:
    return max(1, min(4, os.cpu_count() or 1))


def _run(*command: str) -> str:
    done: subprocess.CompletedProcess[bytes] = subprocess.run(command, capture_output=True, timeout=550)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def written(results: Sequence[bytes], folder: Path) -> list[Path]:
    """Store Part 10 files one by one in ``folder``."""
    paths = [folder / f"{n:03}.dcm" for n in range(len(results))]
    for path, data in zip(paths, results, strict=True):
        path.write_bytes(data)
    return paths


_BY_KIND: dict[str, Callable[[Path], list[str]]] = {
    _DOCUMENT: dsrdump,
    _CAPTURE: dcmj2pnm,
    _PRESENTATION_STATE: dcmpschk,
    _PDF: dcm2pdf,
}
"""DCMTK's tool for each kind, by the beginning of its SOP Class UID."""
