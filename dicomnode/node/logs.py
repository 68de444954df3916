"""Logs: one JSON object a line on stderr. Messages carry our own ids and hashes, never patient data."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from datetime import UTC, datetime

from dicomnode.errors import place

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET = ("apscheduler", "alembic", "uvicorn", "PIL")
_SILENT = ("pydicom", "pynetdicom", "openjpeg")


class JsonFormatter(logging.Formatter):
    """Time, level, process role, logger, message and the ``extra`` fields; control characters are escaped by JSON."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON. Of an exception only the type and the place are told: its text may hold patient data."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[0]:
            entry["exception"] = record.exc_info[0].__name__
            entry["at"] = place(record.exc_info[1])
        return json.dumps(entry, ensure_ascii=True, default=str)


def log_to_stderr(role: str, level: int = logging.INFO) -> None:
    """Send the logs of this process to stderr; libraries that quote element values never speak.

    Neither do warnings (pydicom's quote values) and the traces of threads that end by an exception.
    """
    warnings.simplefilter("ignore")
    logging.raiseExceptions = False  # a stderr that is gone would be told of with the text of the error in hand
    threading.excepthook = _thread_ended
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _thread_ended(arguments: threading.ExceptHookArgs) -> None:
    name = arguments.thread.name if arguments.thread else ""
    extra = {"in_thread": name, "exception": arguments.exc_type.__name__, "at": place(arguments.exc_value)}
    logging.getLogger(__name__).error("thread ended by an exception", extra=extra)
