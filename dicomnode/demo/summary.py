"""The demo's account: one row per Study and Series, and what was not as promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread

from dicomnode.demo.contact_sheet import contact_sheet
from dicomnode.demo.phantoms import make_studies
from dicomnode.demo.run import DemoOutcome, Progress, play
from dicomnode.demo.sheet import sheet_rows
from dicomnode.dicom.header import read_header
from dicomnode.errors import DicomNodeError, Permanent

SEED = 20261121
_KINDS = {"OT": "SC", "SR": "SR"}


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One analysed Series. ``seconds``: from the last instance received to the last object delivered."""

    study: str
    detector: str
    model: str
    outcome: str
    reason: str
    score: float | None
    threshold: float | None
    seconds: float | None
    delivered: str


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo shows. ``faults``: promises that were not kept; empty when all is well."""

    rows: tuple[DemoRow, ...]
    audit_rows: int
    audit_fault: str
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Every Study has its SC and SR, and the audit log verifies."""
        return not self.faults

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"ok": self.ok, **asdict(self)}


def run_demo(source: Path | None, out: Path, work: Path, progress: Progress) -> DemoReport:
    """Run the demo on ``source``, or on phantoms made now. Raises Permanent when it cannot run at all."""
    folder = source if source is not None else _phantoms(work / "source", progress)
    files = dicom_files(folder)
    if not files:
        raise Permanent(f"there is no DICOM file in {folder}")
    outcome = play(files, out, work, progress)
    names = _descriptions(files)
    progress("contact sheet", 0, 1)
    pictures = sheet_rows(tuple(reversed(outcome.series)), files, outcome.delivered, names)
    contact_sheet(pictures, out / "contact-sheet.png")
    progress("contact sheet", 1, 1)
    delivered = _kinds_by_study(outcome.delivered)
    rows = tuple(
        _row(series, result, names, delivered) for series in reversed(outcome.series) for result in series["results"]
    )
    return DemoReport(rows, outcome.audit_rows, outcome.audit_fault, _faults(outcome, names, delivered))


def dicom_files(folder: Path) -> list[Path]:
    """Every readable DICOM file below ``folder``, or ``folder`` itself."""
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if _is_dicom(path)]


def _is_dicom(path: Path) -> bool:
    try:
        return "SOPInstanceUID" in read_header(path, frozenset({"SOPInstanceUID"}))
    except (DicomNodeError, OSError):
        return False


def _phantoms(folder: Path, progress: Progress) -> Path:
    progress("making phantoms", 0, 0)
    for count, study in enumerate(make_studies(SEED), 1):
        study.write(folder / f"{count}")
        progress("making phantoms", count, 3)
    return folder


def _row(
    series: dict[str, Any], result: dict[str, Any], names: dict[str, str], delivered: dict[str, dict[str, int]]
) -> DemoRow:
    study = series["StudyInstanceUID"]
    counts = delivered.get(study, {})
    return DemoRow(
        study=names.get(study, study),
        detector=result["detector"] or "none",
        model=" ".join(str(result[key]) for key in ("model", "model_version") if result[key]),
        outcome=result["outcome"],
        reason=result["reason"] if result["outcome"] in ("not analysed", "failed") else "",
        score=result["score"],
        threshold=result["threshold"],
        seconds=result["seconds_from_last_instance"],
        delivered=", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing",
    )


def _kinds_by_study(paths: Sequence[Path]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for path in paths:
        header = dcmread(path, specific_tags=["StudyInstanceUID", "Modality"], stop_before_pixels=True)
        counts = found.setdefault(str(header.StudyInstanceUID), {})
        kind = _KINDS.get(str(header.Modality), str(header.Modality))
        counts[kind] = counts.get(kind, 0) + 1
    return found


def _descriptions(files: Sequence[Path]) -> dict[str, str]:
    """Study Instance UID to words a person knows the study by."""
    names: dict[str, str] = {}
    wanted = frozenset({"StudyInstanceUID", "Modality", "StudyDescription", "AccessionNumber"})
    for path in files:
        header = read_header(path, wanted)
        words = [str(header[key][0]) for key in ("Modality", "StudyDescription", "AccessionNumber") if key in header]
        names.setdefault(str(header["StudyInstanceUID"][0]), " ".join(words))
    return names


def _faults(outcome: DemoOutcome, names: dict[str, str], delivered: dict[str, dict[str, int]]) -> tuple[str, ...]:
    faults = []
    if outcome.refused:
        faults.append(f"{outcome.refused} object(s) were not accepted by the node")
    for study, name in names.items():
        missing = [kind for kind in ("SC", "SR") if not delivered.get(study, {}).get(kind)]
        if missing:
            faults.append(f"{name}: no {' and no '.join(missing)} was delivered")
    if outcome.audit_fault:
        faults.append(f"the audit log does not verify: {outcome.audit_fault}")
    return tuple(faults)
