"""The gate for everything that leaves the trust zone: de-identified, with its way back, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from dicomnode.config import Config
from dicomnode.deid.engine import Applied
from dicomnode.deid.files import FileOutcome
from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.profile import Profile, load_profile
from dicomnode.deid.pseudonyms import Pseudonyms
from dicomnode.deid.sandboxed import SandboxedFiles, Task
from dicomnode.deid.vault import Vault
from dicomnode.deid.way_back import header_for_way_back, require_same_key, way_back
from dicomnode.dicom.header import part10_offset
from dicomnode.errors import ConfigError, Transient
from dicomnode.sandbox import SandboxLimits

_HEAD = 4096
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Leaving:
    """A de-identified file that may go. ``before``, ``after``: SHA-256 of both files."""

    path: Path
    TransferSyntaxUID: str
    applied: Applied
    before: str
    after: str


def key_file(config: Config) -> Path:
    """Where the key of the project is. Raises ConfigError when it is not said."""
    if config.deid.key_file is None:
        raise ConfigError("[deid] key_file is missing: without a key nothing is de-identified")
    return config.deid.key_file.resolve()


def open_vault(config: Config, key: ProjectKey) -> Vault | None:
    """The vault, None when it is off. Raises ConfigError."""
    settings = config.deid.vault
    if settings is None:
        return None
    path = settings.path or config.node.data_dir.resolve() / "vault.sqlite3"
    return Vault(path, settings.key_file, key.project)


def recorder(
    vault: Vault | None, source: Path, pseudonyms: Pseudonyms, profile: Profile
) -> Callable[[FileOutcome], None]:
    """For ``before_release``: the way back of ``source`` is in the vault before its de-identified file has a name.

    What it returns raises Quarantined when the original cannot be read, Transient when the vault cannot be written or
    the key file was rotated.
    """
    shifts = "retain_modified_dates" in profile.options

    def record(outcome: FileOutcome) -> None:
        if vault is None:
            require_same_key(outcome.applied, pseudonyms)
            return
        rows = way_back(header_for_way_back(source), outcome.applied, pseudonyms, shifts_dates=shifts)
        vault.record(rows)

    return record


class Gate:
    """De-identifies files for peers outside. Each file is read by a child process; threads may share this object.

    ``at_once``: how many files at a time are worth it: half the cores, where ``[deid]`` jobs does not say.
    """

    def __init__(self, config: Config) -> None:
        """Read key and profiles and open the vault. Raises ConfigError: no key, no start."""
        path, detect = key_file(config), config.detect
        self.key = ProjectKey.load(path)
        self._pseudonyms = Pseudonyms(self.key)
        self.vault = open_vault(config, self.key)
        names = sorted({peer.deid for peer in config.peer if peer.deid is not None})
        self._profiles = {name: load_profile(name) for name in names}
        limits = SandboxLimits(
            memory_bytes=detect.reader_memory_mb * _MIB, cpu_s=detect.reader_cpu_s, wall_s=detect.reader_wall_s
        )
        self.at_once = config.deid.jobs or max(1, (os.cpu_count() or 1) // 2)
        tasks = {name: Task(self._profiles[name], path) for name in names}
        self._files = {name: SandboxedFiles(task, limits, self.at_once) for name, task in tasks.items()}

    def pass_through(self, profile: str, source: Path, folder: Path) -> Leaving:
        """De-identify ``source`` into a new file of ``folder``.

        Raises Quarantined when it must not leave, Transient when a disk, the vault or the child fails.
        """
        path = folder / f"{token_hex(16)}.dcm"
        record = recorder(self.vault, source, self._pseudonyms, self._profiles[profile])
        outcome = self._files[profile].deidentify(source, lambda _: path, folder, record)
        try:
            with path.open("rb") as file:
                transfer_syntax, _ = part10_offset(file.read(_HEAD))
        except OSError as error:
            raise Transient(f"de-identification: disk error {error.errno}") from error
        return Leaving(path, transfer_syntax, outcome.applied, outcome.before, outcome.after)

    def facts(self, profile: str) -> Mapping[str, str]:
        """What an audit row says of how it was done."""
        used = self._profiles[profile]
        facts = {"profile": used.name, "profile_version": used.version, "profile_sha256": used.sha256}
        return {**facts, "project_key": self.key.id}

    def close(self) -> None:
        """End the children and close the vault."""
        for files in self._files.values():
            files.close()
        if self.vault is not None:
            self.vault.close()
