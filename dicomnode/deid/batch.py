"""De-identification of a folder: in parallel, resumable, every file complete or absent, every one accounted for."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.deid.account import Account
from dicomnode.deid.engine import Applied
from dicomnode.deid.files import FileOutcome
from dicomnode.deid.journal import Entry, Journal, State
from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.leaving import recorder
from dicomnode.deid.pseudonyms import Pseudonyms
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.sandboxed import SandboxedFiles, Task
from dicomnode.deid.vault import Vault
from dicomnode.errors import ConfigError, Transient
from dicomnode.sandbox import SandboxLimits

_SAFE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_AHEAD = 4


@dataclass(frozen=True, slots=True)
class Run:
    """``source``, ``target``: folders. ``side``: folder beside ``target`` for journal, report and unfinished files."""

    source: Path
    target: Path
    task: Task
    jobs: int = 1
    resume: bool = True
    limits: SandboxLimits = field(default_factory=SandboxLimits)

    @property
    def side(self) -> Path:
        return self.target.with_name(f"{self.target.name}.deid")

    @property
    def temporary(self) -> Path:
        return self.side / "unfinished"


class Batch:
    """One run. ``told`` hears of every file when it is accounted for, in the thread that called ``run``.

    ``vault``: gets the way back of each file before that has its name; None: there is none.
    """

    def __init__(
        self,
        run: Run,
        account: Account,
        told: Callable[[Entry], None] = lambda _: None,
        vault: Vault | None = None,
    ) -> None:
        self._run, self._account, self._told, self._vault = run, account, told, vault
        self._key = ProjectKey.load(run.task.key_file)
        self._pseudonyms = Pseudonyms(self._key, run.task.prefix)
        self._claimed: dict[str, str] = {}
        self._claiming = threading.Lock()

    @property
    def fingerprint(self) -> dict[str, str]:
        """What must be the same for a run to go on where another stopped."""
        return {"profile": self._run.task.profile.sha256, "key": self._key.id, "prefix": self._run.task.prefix}

    def run(self) -> None:
        """Work through the folder. Raises ConfigError when it cannot, or when another run made ``target``."""
        _prepare(self._run)
        with Journal(self._run.side, self.fingerprint, resume=self._run.resume) as journal:
            for entry in journal.entries.values():
                if entry.out:
                    self._claimed[entry.out] = entry.file
            self._account.begin()
            self._work(journal)

    def _work(self, journal: Journal) -> None:
        pending: dict[Future[Entry], str] = {}
        with (
            SandboxedFiles(self._run.task, self._run.limits, self._run.jobs) as files,
            ThreadPoolExecutor(self._run.jobs, "deid") as workers,
        ):
            try:
                for path in _files(self._run.source):
                    name, found = self._name(path), path.stat()
                    before = journal.entries.get(name)
                    if before is not None and before.still_holds(found, self._run.target):
                        self._account.again(before)
                        self._told(before)
                        continue
                    future = workers.submit(self._one, files, path, name, found)
                    pending[future] = str(path.relative_to(self._run.source))
                    while len(pending) >= self._run.jobs * _AHEAD:
                        self._collect(pending, journal)
                while pending:
                    self._collect(pending, journal)
                self._account.flush(journal)
            finally:
                workers.shutdown(wait=True, cancel_futures=True)

    def _collect(self, pending: dict[Future[Entry], str], journal: Journal) -> None:
        """Wait for a file, and account for all that are finished."""
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            entry = future.result()
            self._account.add(entry, pending.pop(future), journal)
            self._told(entry)

    def _one(self, files: SandboxedFiles, path: Path, name: str, found: os.stat_result) -> Entry:
        where: list[str] = []

        def target(applied: Applied) -> Path:
            where.append(self._claim(applied, name))
            return self._run.target / where[0]

        size, changed = found.st_size, found.st_mtime_ns
        try:
            outcome = files.deidentify(path, target, self._run.temporary, self._recording(path))
        except Quarantined as refusal:
            return Entry(name, size, changed, State.HELD, reason=refusal.reason, detail=refusal.detail)
        except Transient as error:
            return Entry(name, size, changed, State.FAILED, detail=str(error))
        return Entry(
            name, size, changed, State.DONE, out=where[0], out_size=outcome.size, sha256=outcome.after,
            actions=dict(outcome.applied.actions), notes=dict(outcome.applied.notes),
            warnings=outcome.applied.warnings,
        )  # fmt: skip

    def _recording(self, path: Path) -> Callable[[FileOutcome], None]:
        """What is durable before a file gets its name: its way back, where there is a vault, and its audit row."""
        way_back = recorder(self._vault, path, self._pseudonyms, self._run.task.profile)

        def record(outcome: FileOutcome) -> None:
            way_back(outcome)
            self._account.release(outcome)

        return record

    def _claim(self, applied: Applied, name: str) -> str:
        """The name of the new file; an object that another file of the run was already is held back."""
        parts = (applied.patient, applied.study or "no-study", applied.series or "no-series", f"{applied.instance}.dcm")
        if not all(_SAFE.fullmatch(part) and not part.startswith(".") for part in (*parts[:3], applied.instance)):
            raise Quarantined(Reason.MALFORMED, "a UID is none")
        out = "/".join(parts)
        with self._claiming:
            if self._claimed.setdefault(out, name) != name:
                raise Quarantined(Reason.SAME_UID)
        return out

    def _name(self, path: Path) -> str:
        """A file's name for journal and report: keyed, for a path may hold the patient's name."""
        relative = os.fsencode(path.relative_to(self._run.source)).decode("utf-8", "surrogateescape")
        return self._pseudonyms.digest("path", relative).hex()[:32]


def _prepare(run: Run) -> None:
    """Make the folders and clear what a killed run left. Raises ConfigError."""
    source, target = run.source.resolve(), run.target.resolve()
    if not source.is_dir():
        raise ConfigError("the source is no folder")
    if source == target or target.is_relative_to(source) or source.is_relative_to(target):
        raise ConfigError("source and target lie in each other")
    try:
        run.target.mkdir(parents=True, exist_ok=True)
        run.side.mkdir(mode=0o700, exist_ok=True)
        run.temporary.mkdir(exist_ok=True)
        for left in run.temporary.iterdir():
            left.unlink()
    except OSError as error:
        raise ConfigError(f"the target cannot be written: {error.strerror}") from error


def _files(folder: Path) -> Iterator[Path]:
    """Every regular file below, in a steady order; links are not followed."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                yield path
