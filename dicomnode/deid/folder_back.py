"""A folder of results that came back by hand: each under its patient's identity, or held back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.deid.files import place, written
from dicomnode.deid.part10 import parse_part10
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.reidentify import Reidentifier, Sources
from dicomnode.deid.returning import Returned, Returner, reader_of
from dicomnode.deid.vault import Vault
from dicomnode.dicom.faults import PYDICOM_FAULTS
from dicomnode.dicom.header import read_header
from dicomnode.dicom.header_source import MalformedHeader
from dicomnode.dicom.references import require_uid
from dicomnode.errors import ConfigError, Transient
from dicomnode.store.engine import Store


@dataclass(slots=True)
class Account:
    """``done``: how many files were given back. ``held``: path below the source, and why it was not."""

    done: int = 0
    held: list[tuple[str, str]] = field(default_factory=list)


class OriginalsFolder:
    """``Sources``: a folder with the files as they were before they left. Read in this process: for files of ours."""

    def __init__(self, folder: Path) -> None:
        """Look at the header of every file. Raises ConfigError when there is no such folder."""
        if not folder.is_dir():
            raise ConfigError("the folder of originals does not exist")
        self._by_study: dict[str, Path] = {}
        for path in files_below(folder):
            try:
                study = read_header(path, {"StudyInstanceUID"}).get("StudyInstanceUID", ("",))[0]
            except (MalformedHeader, OSError):
                continue
            self._by_study.setdefault(str(study), path)

    def __call__(self, study: str) -> Dataset | None:
        """The header of a file of this Study, None when there is none."""
        path = self._by_study.get(study)
        if path is None:
            return None
        try:
            with path.open("rb", buffering=0) as stream:
                parse_part10(stream)
            return dcmread(path, stop_before_pixels=True, force=True)
        except (*PYDICOM_FAULTS, ValueError, TypeError, NotImplementedError, EOFError, KeyError, AttributeError):
            return None


def give_back_folder(
    source: Path, target: Path, vault: Vault, sources: Sources, store: Store, facts: Mapping[str, Any]
) -> Account:
    """Re-identify every DICOM file below ``source`` into ``target``, by Study, Series and Instance.

    ``facts``: who asks, for the audit rows: one before each reading of the vault, and one for each file whatever came
    of it. Files that are no DICOM are held back too. Raises ConfigError when the folders lie in each other, Transient
    when a disk fails.
    """
    inside, outside = source.resolve(), target.resolve()
    if outside.is_relative_to(inside) or inside.is_relative_to(outside):
        raise ConfigError("source and target lie in each other")
    account = Account()
    tell = reader_of(vault, store, {**facts, "purpose": "results were given back by hand"})
    with Returner(Reidentifier(vault, sources)) as returner:
        for path in files_below(source):
            try:
                returned = returner.give_back(path, tell)
                _write(returned, target)
            except Quarantined as refusal:
                account.held.append((str(path.relative_to(source)), str(refusal)))
                _record(store, Event.QUARANTINE, {**facts, "reason": str(refusal)})
                continue
            whose = {"PatientID": returned.PatientID, "StudyInstanceUID": returned.StudyInstanceUID}
            _record(store, Event.RE_IDENTIFICATION, {**facts, **whose, "instances": [returned.line]})
            account.done += 1
    return account


def files_below(folder: Path) -> Iterator[Path]:
    """Every regular file, in a steady order; links are not followed."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(root, name)).is_file() and not path.is_symlink())


def _write(returned: Returned, target: Path) -> None:
    try:
        names = [require_uid(uid) for uid in (returned.SeriesInstanceUID, returned.SOPInstanceUID)]
        study = require_uid(returned.StudyInstanceUID)
    except ValueError:
        raise Quarantined(Reason.MALFORMED, "a UID is none") from None
    try:
        with written((returned.content,), target) as (unfinished, _, _):
            place(unfinished, target / study / names[0] / f"{names[1]}.dcm")
    except OSError as error:
        raise Transient(f"re-identification: disk error {error.errno}") from error


def _record(store: Store, event: Event, body: Mapping[str, Any]) -> None:
    with store.write() as session:
        append(session, event, body)
