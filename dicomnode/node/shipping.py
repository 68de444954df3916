"""The timer that sends audit rows to the audit record repository; it never holds up anything else."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

from dicomnode.audit.ship import Shipment, ship
from dicomnode.audit.syslog import SyslogSender
from dicomnode.config import Config
from dicomnode.errors import Transient
from dicomnode.store.engine import Store

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0
_log = logging.getLogger(__name__)


class Shipping:
    """Sends what is new at each tick; after a failure it waits twice as long as before, five minutes at most.

    ``clock``: seconds since the epoch, for the rows; ``monotonic``: seconds, for the pauses.
    """

    def __init__(
        self, config: Config, store: Store, clock: Callable[[], float], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._config, self._store, self._clock, self._monotonic = config, store, clock, monotonic
        self._not_before, self._pause = 0.0, FIRST_PAUSE_S

    def tick(self) -> int:
        """Returns how many rows the copy moved on. Never raises for a repository that does not answer."""
        if self._config.audit.syslog is None or self._monotonic() < self._not_before:
            return 0
        try:
            moved = ship(self._store, shipment(self._config), self._clock())
        except Transient as error:
            self._not_before = self._monotonic() + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE_S)
            _log.warning("audit rows wait for their repository", extra={"error": str(error)})
            return 0
        self._pause = FIRST_PAUSE_S
        return moved


def shipment(config: Config) -> Shipment:
    """Where the rows go by this configuration; the certificates are read anew. Raises Transient when they cannot be."""
    settings, host = config.audit.syslog, socket.gethostname()
    if settings is None:
        raise Transient("audit.syslog: no repository is configured")
    sender = SyslogSender(settings.host, settings.port, settings.tls.context(), settings.timeout_s, host)
    title = config.node.ae_title
    return Shipment(sender, settings.place, title, host, settings.images, settings.alert_after_s)
