"""The account of a run: totals, what was held back and why, audit rows. Nothing of it says who a patient is."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from dicomnode import __version__
from dicomnode.audit.events import Event
from dicomnode.deid.files import FileOutcome
from dicomnode.deid.journal import Entry, Journal, State
from dicomnode.deid.profile import Profile
from dicomnode.deid.table import action_table
from dicomnode.store.spool import sync_folder

_BATCH = 100


class Recorder(Protocol):
    """Takes audit rows from any thread; they are committed when it returns."""

    def __call__(self, rows: Iterable[tuple[Event, Mapping[str, Any]]]) -> None: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What every audit row and the report say of how it was done. ``run``: names the run."""

    run: str
    profile: Profile
    codes: tuple[str, ...]
    key: str

    def row(self) -> dict[str, Any]:
        """As fields of a row."""
        return {
            "run": self.run,
            "profile": self.profile.name,
            "profile_version": self.profile.version,
            "profile_sha256": self.profile.sha256,
            "table_sha256": action_table().sha256,
            "codes": list(self.codes),
            "project_key": self.key,
            "version": __version__,
        }


@dataclass
class Totals:
    """Numbers of a run, files of earlier runs into the same target included."""

    files: int = 0
    done: int = 0
    held: int = 0
    failed: int = 0
    resumed: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


class Account:
    """Counts, writes audit rows, and at the end the report."""

    def __init__(self, facts: Facts, record: Recorder, side: Path) -> None:
        self._facts, self._record, self._side = facts, record, side
        self.totals = Totals()
        self.held: list[Entry] = []
        self._studies: set[tuple[str, ...]] = set()
        self._waiting: list[Entry] = []
        self._paths: list[dict[str, str]] = []
        self._begun = datetime.now(UTC)

    def begin(self) -> None:
        """The audit row of the start."""
        self._record([(Event.DEIDENTIFICATION, {"phase": "begin", **self._facts.row()})])

    def again(self, entry: Entry) -> None:
        """A file that an earlier run has dealt with."""
        self.totals.resumed += 1
        self._count(entry)

    def release(self, outcome: FileOutcome) -> None:
        """The audit row of one object, committed before its file has a name. Called by any thread."""
        self._record([(Event.DEIDENTIFICATION, self._done_row(outcome))])

    def add(self, entry: Entry, path: str, journal: Journal) -> None:
        """A file that this run has dealt with. ``path``: below the source; it goes into the private list only."""
        self._count(entry)
        self._waiting.append(entry)
        if entry.state is not State.DONE:
            self._paths.append({"file": entry.file, "path": path, "why": entry.reason or entry.state})
        if len(self._waiting) >= _BATCH:
            self.flush(journal)

    def flush(self, journal: Journal) -> None:
        """Write down what is dealt with: audit rows of what was held back, the private list, the journal."""
        waiting, self._waiting = self._waiting, []
        rows = [(Event.QUARANTINE, self._held_row(entry)) for entry in waiting if entry.state is not State.DONE]
        if rows:
            self._record(rows)
        _append_private(self._side / "quarantine.jsonl", self._paths)
        self._paths = []
        journal.add(waiting)

    def end(self) -> dict[str, Any]:
        """The audit row of the end and ``report.json``. Returns the report."""
        report = self.report()
        kept = ("files", "done", "held", "failed", "resumed", "actions", "reasons")
        totals = {name: report[name] for name in kept}
        self._record([(Event.DEIDENTIFICATION, {"phase": "end", **self._facts.row(), **totals})])
        text = json.dumps(report, indent=2, sort_keys=True) + "\n"
        unfinished = self._side / "report.json.part"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(self._side / "report.json")
        sync_folder(self._side)
        return report

    def report(self) -> dict[str, Any]:
        """Everything that is known of the run, without patient data."""
        totals, ended = self.totals, datetime.now(UTC)
        numbers = {name: getattr(totals, name) for name in ("files", "done", "held", "failed", "resumed")}
        counts = {name: dict(getattr(totals, name)) for name in ("actions", "notes", "warnings", "reasons")}
        return {
            **self._facts.row(),
            **numbers,
            **counts,
            "options": sorted(self._facts.profile.options),
            "bytes_before": totals.bytes_before,
            "bytes_after": totals.bytes_after,
            "patients": len({study[:1] for study in self._studies}),
            "studies": len({study[:2] for study in self._studies}),
            "series": len({study[:3] for study in self._studies}),
            "begun": self._begun.isoformat(timespec="seconds"),
            "ended": ended.isoformat(timespec="seconds"),
            "seconds": round((ended - self._begun).total_seconds(), 2),
            "held_back": [
                {"file": entry.file, "reason": entry.reason or str(entry.state), "detail": entry.detail}
                for entry in sorted(self.held, key=lambda entry: entry.file)
            ],
        }

    def _count(self, entry: Entry) -> None:
        totals = self.totals
        totals.files += 1
        totals.bytes_before += entry.size
        if entry.state is State.DONE:
            totals.done += 1
            totals.bytes_after += entry.out_size
            totals.actions.update(entry.actions)
            totals.notes.update(entry.notes)
            totals.warnings.update(entry.warnings)
            self._studies.add(tuple(entry.out.split("/")[:3]))
            return
        self.held.append(entry)
        totals.reasons[entry.reason or str(entry.state)] += 1
        if entry.state is State.HELD:
            totals.held += 1
        else:
            totals.failed += 1

    def _held_row(self, entry: Entry) -> dict[str, Any]:
        reason = entry.reason or str(entry.state)
        return {"run": self._facts.run, "file": entry.file, "reason": reason, "detail": entry.detail}

    def _done_row(self, outcome: FileOutcome) -> dict[str, Any]:
        applied = outcome.applied
        return {
            "phase": "instance",
            "run": self._facts.run,
            "profile": self._facts.profile.name,
            "profile_version": self._facts.profile.version,
            "table_sha256": action_table().sha256,
            "PatientID": applied.patient,
            "StudyInstanceUID": applied.study,
            "SeriesInstanceUID": applied.series,
            "SOPInstanceUID": applied.instance,
            "SOPClassUID": applied.sop_class,
            "codes": list(applied.codes),
            "actions": dict(applied.actions),
            "notes": dict(applied.notes),
            "sha256_before": outcome.before,
            "sha256_after": outcome.after,
        }


def _append_private(path: Path, lines: list[dict[str, str]]) -> None:
    """Paths may hold names of patients: only this file has them, and only its owner may read it."""
    if not lines:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
