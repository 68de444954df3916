"""A program with its own environment as a detector: images into a folder, run it, read what it left in another.

The program gets no name, no number and no UID of the patient, the study or the series: files are made of the pixels
and their geometry alone. Nothing that it prints is kept, because it may quote what it reads.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from dicomnode.config.hosted import HostedCommand
from dicomnode.detectors.contract import DetectionResult, ModelIdentity, Outcome, Volume
from dicomnode.detectors.hosted.answer import Scale, Told, answer, from_label_values
from dicomnode.detectors.hosted.digest import require
from dicomnode.detectors.hosted.exchange import Unreadable, read_segmentation
from dicomnode.detectors.hosted.exchange_dicom import write_dicom
from dicomnode.detectors.hosted.exchange_nifti import require_nibabel, write_nifti
from dicomnode.detectors.hosted.grid import grid_of

_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
_SCORES = "scores.json"
_MOST_JSON = 1024 * 1024
_SEGMENTED = Scale("1 where the program segments the label, 0 where it does not; it gives no probability")
_SCORED = Scale("score of the program, not calibrated by this node")


class HostedCommandDetector:
    """A ``LoadedDetector`` around a program. Where the program computes is its own affair."""

    accelerator = "external"

    def __init__(self, identity: ModelIdentity, settings: HostedCommand, path: Path) -> None:
        self.model = identity
        self._settings, self._path = settings, path.resolve()

    def detect(self, volume: Volume) -> DetectionResult:
        """Run the program on one Volume; NOT_ANALYSED where it is no stack, FAILED where the program fails.

        Raises ConfigError when its files have changed since they were allowed.
        """
        grid = grid_of(volume)
        if isinstance(grid, str) and (self._settings.gives == "nifti" or self._settings.output == "segmentation"):
            return DetectionResult(Outcome.NOT_ANALYSED, reason=grid)
        require(self._path, self._settings.sha256)
        with tempfile.TemporaryDirectory(prefix="dicomnode-command-", ignore_cleanup_errors=True) as name:
            given, made = Path(name) / "input", Path(name) / "output"
            given.mkdir()
            made.mkdir()
            if self._settings.gives == "dicom":
                written = write_dicom(volume, given)
            else:
                written = {}
                write_nifti(volume, given)
            if failed := self._run(Path(name), given, made):
                return DetectionResult(Outcome.FAILED, reason=failed)
            try:
                told, scale = self._told(made, volume, written)
            except Unreadable as error:
                return DetectionResult(Outcome.FAILED, reason=f"the program's answer cannot be used: {error}")
        facts = {"format": "external program", "given as": self._settings.gives}
        return answer(self.model.name, self._settings, volume, told, scale, facts)

    def _run(self, home: Path, given: Path, made: Path) -> str:
        """Run the command, without a shell; why it failed, in words that quote nothing of it, or ""."""
        places = {"{input}": str(given), "{output}": str(made), "{path}": str(self._path)}
        environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
        environment |= {"HOME": str(home), "TMPDIR": str(home)}
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own command, no shell, nothing of the images in it
                [_filled(word, places) for word in self._settings.command],
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            return f"the program cannot be started: {error.strerror or type(error).__name__}"
        try:
            status = process.wait(self._settings.timeout_s)
        except subprocess.TimeoutExpired:
            return f"the program did not end within {self._settings.timeout_s:g} s"
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return "" if status == 0 else f"the program ended with exit status {status}"

    def _told(self, made: Path, volume: Volume, written: dict[str, int]) -> tuple[list[Told], Scale]:
        if self._settings.output == "scores":
            return self._scored(made / _SCORES, volume), _SCORED
        values = read_segmentation(made, volume, written, [label.index for label in self._settings.labels])
        return from_label_values(values, self._settings, volume), _SEGMENTED

    def _scored(self, path: Path, volume: Volume) -> list[Told]:
        """Scores by the labels' names. Raises Unreadable for a label that is missing or no number from 0 to 1."""
        try:
            if path.stat().st_size > _MOST_JSON:
                raise Unreadable(f"{_SCORES} is too large")
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Unreadable(f"there is no {_SCORES} that can be read") from error
        told = []
        for label in self._settings.labels:
            score = found.get(label.name) if isinstance(found, dict) else None
            if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
                raise Unreadable(f"{_SCORES} has no number for {label.name}")
            if not 0.0 <= score <= 1.0:
                raise Unreadable(f"the score of {label.name} is not between 0 and 1")
            nowhere: list[None] = [None] * len(volume.planes)
            told.append(Told(label, [float(score)] * len(volume.planes), nowhere, nowhere))
        return told


def _filled(word: str, places: dict[str, str]) -> str:
    for place, path in places.items():
        word = word.replace(place, path)
    return word


def load_command(identity: ModelIdentity, settings: HostedCommand, path: Path) -> HostedCommandDetector:
    """The detector of a section. Raises ConfigError for another hash, or where nibabel is needed and missing."""
    require(path, settings.sha256)
    if settings.gives == "nifti":
        require_nibabel()
    return HostedCommandDetector(identity, settings, path)
