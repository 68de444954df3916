"""Security Alerts of reception (PS3.15 A.5.3.11): what a peer or a stranger tried, in the audit log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.errors import DicomNodeError
from dicomnode.receive.records import moment
from dicomnode.receive.restraint import Restraint
from dicomnode.store.engine import Store

_log = logging.getLogger(__name__)


class Alerts:
    """Writes alerts, each in a transaction of its own; one that cannot be written is told in the log. Never raises."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock

    def tell(self, body: Mapping[str, Any]) -> None:
        """Record an alert with these facts."""
        try:
            with self._store.write() as session:
                append(session, Event.SECURITY_ALERT, body, moment(self._clock()))
        except DicomNodeError as error:
            _log.error("not audited", extra={"error": str(error)})

    def tell_within(self, restraint: Restraint, body: Mapping[str, Any]) -> None:
        """The same for what any stranger can cause: as often as ``restraint`` allows, with the number held back."""
        held = restraint.ask()
        if held is not None:
            self.tell({**body, "held_back": held} if held else body)
