"""The listening socket: accepts and does nothing else, so that no peer can keep another from being accepted.

TLS handshake, negotiation and everything after run in the connection's own thread under deadlines. Who says nothing is
dropped when its deadline has passed, and before that when newcomers need its place: an honest peer speaks at once.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable

from dicomnode.errors import place
from dicomnode.receive.admission import plain_address
from dicomnode.receive.conversation import Conversation
from dicomnode.receive.wire import Wire

MAX_PENDING = 256
LOOK_S = 0.2
COURTESY_S = 0.002
_log = logging.getLogger(__name__)

Secure = Callable[[socket.socket, str], "tuple[socket.socket, frozenset[str] | None] | None"]
"""Makes a connection from an address secure and says who the peer is; None: it is none, and closed."""


def in_the_clear(connection: socket.socket, _address: str) -> tuple[socket.socket, frozenset[str] | None]:
    """The port without TLS."""
    return connection, None


class Listener:
    """Accepts connections of one socket, which other processes of the node may accept from too.

    ``open_conversation``: makes the conversation for a connection; ``unit_s``: see ``Wire``.
    """

    def __init__(
        self, listening: socket.socket, secure: Secure, open_conversation: Callable[[Wire], Conversation], unit_s: float
    ) -> None:
        self._listening, self._secure = listening, secure
        self._open_conversation, self._unit_s = open_conversation, unit_s
        self._pending: dict[socket.socket, float] = {}
        self._conversations: set[Conversation] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="listener", daemon=True)

    def start(self) -> None:
        """Accept from now on."""
        self._listening.settimeout(0.0)
        self._thread.start()

    def stop(self) -> None:
        """Accept no more, and let go of the socket; conversations go on."""
        self._stop.set()
        self._thread.join()
        self._listening.close()
        with self._lock:
            pending = list(self._pending)
        for connection in pending:
            _shut(connection)

    @property
    def conversations(self) -> tuple[Conversation, ...]:
        """Those that run now."""
        with self._lock:
            return tuple(self._conversations)

    def _accept(self) -> None:
        ready = select.poll()
        ready.register(self._listening, select.POLLIN)
        while not self._stop.is_set():
            try:
                if not ready.poll(LOOK_S * 1000):
                    continue
                self._yield_to_the_idle()
                connection, address = self._listening.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                _log.error("a connection could not be accepted", extra={"error": error.errno})
                self._stop.wait(LOOK_S)
                continue
            self._take(connection, plain_address(str(address[0])))

    def _yield_to_the_idle(self) -> None:
        """A process that has Associations leaves the next one to those that have fewer."""
        established = len(self._conversations) - len(self._pending)
        time.sleep(min(COURTESY_S * max(established, 0), 10 * COURTESY_S))

    def _take(self, connection: socket.socket, address: str) -> None:
        with self._lock:
            oldest = min(self._pending, key=self._pending.__getitem__) if len(self._pending) >= MAX_PENDING else None
            if oldest is not None:
                del self._pending[oldest]
            self._pending[connection] = time.monotonic()
        if oldest is not None:
            _shut(oldest)
        try:
            threading.Thread(target=self._serve, args=(connection, address), name="association", daemon=True).start()
        except RuntimeError:
            self._forget(connection)
            connection.close()
            _log.error("no thread for a connection")

    def _serve(self, raw: socket.socket, address: str) -> None:
        try:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if secured := self._secure(raw, address):
                self._converse(raw, address, *secured)
        except Exception as error:  # noqa: BLE001 - thread edge: its text may hold what the peer sent
            _log.error("a conversation failed", extra={"exception": type(error).__name__, "at": place(error)})
        finally:
            self._forget(raw)
            raw.close()

    def _converse(
        self, raw: socket.socket, address: str, connection: socket.socket, identities: frozenset[str] | None
    ) -> None:
        conversation = self._open_conversation(Wire(connection, self._unit_s))
        with self._lock:
            self._conversations.add(conversation)
        try:
            conversation.run(address, identities, lambda: self._forget(raw))
        finally:
            with self._lock:
                self._conversations.discard(conversation)

    def _forget(self, connection: socket.socket) -> None:
        """It is no longer pending: its Association is open, or it has ended."""
        with self._lock:
            self._pending.pop(connection, None)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
