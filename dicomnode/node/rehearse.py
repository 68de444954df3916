"""``route test``: the decision that the node would make for files on disk, without a node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dicomnode.dicom.header import ROUTING_KEYWORDS, read_header
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import Header, summarise
from dicomnode.errors import DicomNodeError
from dicomnode.node.build import Blueprint
from dicomnode.route import decide


def rehearse(blueprint: Blueprint, paths: Iterable[Path]) -> dict[str, Any]:
    """``{"series": [...], "skipped": [...]}``: per Series every route's answer and the summary of the decision."""
    keywords = ROUTING_KEYWORDS | blueprint.config.rule_keywords
    detectors = blueprint.detectors()
    groups, skipped = _grouped(paths, frozenset(keywords))
    answers = []
    for reference, headers in groups.items():
        summary = summarise(reference, headers)
        decision = decide(blueprint.config, detectors, summary)
        answers.append(
            {
                "StudyInstanceUID": reference.StudyInstanceUID,
                "SeriesInstanceUID": reference.SeriesInstanceUID,
                "Modality": summary.Modality,
                "n_instances": summary.n_instances,
                "taken": [route.name for route in decision.taken],
                "reasons": [asdict(reason) for reason in decision.reasons],
                "summary": decision.summary,
            }
        )
    return {"series": answers, "skipped": skipped}


def _grouped(paths: Iterable[Path], keywords: frozenset[str]) -> tuple[dict[SeriesReference, list[Header]], list[str]]:
    groups: dict[SeriesReference, list[Header]] = {}
    skipped = []
    for path in _files(paths):
        try:
            header = read_header(path, keywords)
            study, series = str(header["StudyInstanceUID"][0]), str(header["SeriesInstanceUID"][0])
            groups.setdefault(SeriesReference(study, series), []).append(header)
        except (DicomNodeError, OSError, KeyError, ValueError):
            skipped.append(str(path))
    return groups, skipped


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(item for item in path.rglob("*") if item.is_file())
        else:
            yield path
