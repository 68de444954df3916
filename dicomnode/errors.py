"""The exception tree of dicomnode.

DicomNodeError
├── ConfigError        start-up is refused; exit status 2
├── Refusal            becomes a DIMSE status; the peer is told, nothing of it is kept
├── Transient          the attempt failed, a later one may succeed: retry with back-off
├── Permanent          no retry helps: dead letter, shown to the operator
└── LeaseLost          another worker holds the job now: drop what was done

Messages must not hold patient data: they reach logs, metrics and tables.
"""

from __future__ import annotations

import pathlib
import traceback


class DicomNodeError(Exception):
    """Root of every exception that dicomnode raises on purpose."""


class ConfigError(DicomNodeError):
    """The configuration, a weights file or the environment forbids the start (exit status 2)."""


class Refusal(DicomNodeError):
    """A DIMSE operation is refused with ``status`` (PS3.4 B.2.3, PS3.7 C)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Transient(DicomNodeError):
    """A later attempt may succeed."""


class Permanent(DicomNodeError):
    """No later attempt can succeed."""


class LeaseLost(DicomNodeError):
    """The job's lease token is no longer ours."""


def place(error: BaseException | None) -> str:
    """Where ``error`` was raised, as file name and line: what may be told of a foreign exception.

    Its text may hold patient data and stays untold.
    """
    frames = traceback.extract_tb(error.__traceback__) if error else ()
    return f"{pathlib.Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
