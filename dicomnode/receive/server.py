"""The Storage Server: listeners, conversations and what they share, started and stopped together."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence

from dicomnode.config import Config
from dicomnode.receive.admission import Admission
from dicomnode.receive.alerts import Alerts
from dicomnode.receive.commitment import CommitmentReports, silence_library
from dicomnode.receive.conversation import Conversation, Services
from dicomnode.receive.listener import Listener, Secure, in_the_clear
from dicomnode.receive.recovery import recover
from dicomnode.receive.register import Register
from dicomnode.receive.restraint import Restraint
from dicomnode.receive.scp import StorageScp
from dicomnode.receive.sockets import Sockets, bind
from dicomnode.receive.tls import HandshakeFailed, Reload, ServerTls, identities
from dicomnode.receive.wire import Wire
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool

QUIET_S = 1.0
CLOSE_S = 2.0
REAP_S = 1.0
HANDSHAKE_S = 5.0
ENDLESS_BYTES = 1024**3
_log = logging.getLogger(__name__)


class StorageServer:
    """Storage and Verification SCP. Several processes of a node may run one each, on the same sockets."""

    def __init__(
        self,
        config: Config,
        store: Store,
        spool: Spool,
        *,
        clock: Callable[[], float] = time.time,
        owner: str = "",
        sockets: Sockets | None = None,
    ) -> None:
        """Prepare; nothing is accepted yet.

        ``clock`` gives the times of rows, in seconds since the epoch. ``owner``: the name of this process in its rows.
        ``sockets``: where to accept; without them the server binds its own. Raises ConfigError for TLS files that
        cannot be used.
        """
        silence_library()
        self._config, self._store, self._spool, self._clock = config, store, spool, clock
        self._tls = None if config.receive.tls is None else ServerTls(config.receive.tls, self._on_reload)
        admission = Admission(config)
        self._register = Register(admission, store, clock, owner)
        self._services = _services(config, self._register, StorageScp(config, store, spool, clock), admission)
        self._sockets, self._owner = sockets, owner
        self._alerts, self._restraint = Alerts(store, clock), Restraint()
        self._listeners: list[Listener] = []
        self._stopping = False
        self._stopped = threading.Event()
        self.ports: dict[str, int] = {}

    def start(self) -> int:
        """Clean up after processes that are gone, accept, and return the port (that of TLS where no other is open).

        Raises ConfigError when a port cannot be bound, Transient when the database is not available.
        """
        recover(self._store, self._spool, self._clock())
        self._prepare()
        if self._config.receive.journal_mb:
            self._services.scp.open_journal(self._owner, self._config.receive.journal_mb * 1024 * 1024)
        sockets = self._sockets or bind(self._config)
        self.ports = sockets.ports
        ways: Sequence[tuple[socket.socket | None, Secure]] = (
            (sockets.plain, in_the_clear),
            (sockets.tls, self._handshake),
        )
        unit_s = self._config.receive.pdu_timeout_s
        self._listeners = [Listener(one, secure, self._converse, unit_s) for one, secure in ways if one is not None]
        for listener in self._listeners:
            listener.start()
        threading.Thread(target=self._reap, name="associations", daemon=True).start()
        return self.ports.get("port", self.ports.get("tls_port", 0))

    def _prepare(self) -> None:
        """What would cost the first Instances time. A disk that fails here fails them with an honest status."""
        try:
            self._spool.prepare("received")
        except OSError as error:
            _log.error("the folders of the spool cannot be made", extra={"error": error.errno})

    def stop(self, grace_s: float) -> None:
        """Take no new Association, let the open ones go on while they send, for ``grace_s`` at most, then close.

        A running C-STORE always ends and is answered. Associations that are cut off count as lost: their peers are
        expected to send again what was not acknowledged.
        """
        if self._stopping:
            return
        self._stopping = True
        deadline = time.monotonic() + grace_s
        self._register.close()
        for listener in self._listeners:
            listener.stop()
        self._wait(deadline, QUIET_S)
        for conversation in self._conversations:
            conversation.stopping = True
        self._wait(time.monotonic() + CLOSE_S, 0.0)
        self._cut_off()
        self._stopped.set()

    def _cut_off(self) -> None:
        for conversation in self._conversations:
            conversation.cut_off()
        deadline = time.monotonic() + CLOSE_S
        while self._conversations and time.monotonic() < deadline:
            time.sleep(0.02)
        for association in self._register.open:
            self._register.end(association, "lost")
        self._services.scp.close()

    @property
    def _conversations(self) -> list[Conversation]:
        return [conversation for listener in self._listeners for conversation in listener.conversations]

    def _wait(self, deadline: float, quiet_s: float) -> None:
        while time.monotonic() < deadline and not self._register.quiet_for(quiet_s):
            time.sleep(0.02)

    def _reap(self) -> None:
        while not self._stopped.wait(REAP_S):
            self._register.reap()

    def _converse(self, wire: Wire) -> Conversation:
        return Conversation(wire, self._services)

    def _handshake(self, connection: socket.socket, address: str) -> tuple[socket.socket, frozenset[str] | None] | None:
        if self._tls is None:
            return None
        try:
            secured = self._tls.wrap(connection, HANDSHAKE_S)
        except HandshakeFailed as failed:
            detail = {"reason": str(failed.reason), "address": address, "detail": failed.detail}
            _log.warning("no TLS connection", extra=detail)
            about = {"reason": str(failed.reason), "address": address}
            self._alerts.tell_within(self._restraint, about)
            return None
        return secured, identities(secured)

    def _on_reload(self, reload: Reload) -> None:
        if reload.fault:
            _log.error("new TLS files cannot be used, the old ones stay", extra={"error": reload.fault})
            self._alerts.tell({"reason": f"new TLS files cannot be used, the old ones stay: {reload.fault}"})
        else:
            _log.info("new TLS files are in use")


def _services(config: Config, register: Register, scp: StorageScp, admission: Admission) -> Services:
    limits = config.receive
    return Services(
        register,
        scp,
        CommitmentReports(admission, scp.store, scp.clock),
        limits.max_pdu,
        limits.max_instance_bytes + ENDLESS_BYTES,
        limits.acse_timeout_s,
        limits.dimse_timeout_s,
        limits.network_timeout_s,
    )
