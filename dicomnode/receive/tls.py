"""TLS on the receiving side: the handshake under one deadline, who the client is, new files without a restart."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from dicomnode.config.tls import ReceiveTls
from dicomnode.dicom.tls import server_context
from dicomnode.errors import ConfigError, DicomNodeError

LOOK_S = 1.0
_Stamp = tuple[tuple[int, ...] | None, ...]


class Reason(StrEnum):
    """Why there is no TLS connection; for the audit log."""

    LATE = "no TLS handshake within the time limit"
    PLAIN_TEXT = "plain text on the TLS port"
    OLD_PROTOCOL = "TLS older than 1.2"
    NO_CIPHER = "no cipher suite in common"
    NO_CERTIFICATE = "no client certificate"
    UNKNOWN_AUTHORITY = "client certificate of an unknown authority"
    EXPIRED = "client certificate has expired or is not valid yet"
    REVOKED = "client certificate is revoked"
    NO_REVOCATION_LIST = "no revocation list that is valid now for the client certificate's authority"
    BAD_CERTIFICATE = "client certificate is not valid"
    REFUSED_BY_PEER = "the peer refuses our certificate or protocol"
    LOST = "connection lost in the TLS handshake"
    MALFORMED = "malformed TLS handshake"


class HandshakeFailed(DicomNodeError):
    """No TLS connection. ``detail``: OpenSSL's own word for it, for the log."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(str(reason))
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Reload:
    """Other files were found. ``fault``: why they cannot be used and the old ones stay in use, empty when they are."""

    fault: str = ""


class ServerTls:
    """The TLS side of the listener. Every method may be called from any thread."""

    def __init__(self, settings: ReceiveTls, told: Callable[[Reload], None] = lambda _: None) -> None:
        """Load the files. ``told`` hears of every reload, in the thread of the handshake that came upon it.

        Raises ConfigError when a file is missing, does not fit or is a key that others can read.
        """
        self._settings, self._told = settings, told
        self._stamp = self._stamped()
        self._context = self._load()
        self._looked = time.monotonic()
        self._lock = threading.Lock()

    def wrap(self, sock: socket.socket, deadline_s: float) -> ssl.SSLSocket:
        """Do the handshake on the accepted ``sock``, in this thread, in ``deadline_s`` seconds from first to last byte.

        ``sock`` stays the caller's, so that another thread can end the handshake by shutting it down; it has to be
        closed beside the returned one. Raises HandshakeFailed.
        """
        self.reload_if_changed()
        before = sock.gettimeout()
        try:
            own = sock.dup()
        except OSError as error:
            raise HandshakeFailed(Reason.LOST) from error
        try:
            own.settimeout(deadline_s)
            wrapped = self._context.wrap_socket(own, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError) as error:
            own.close()
            raise HandshakeFailed(Reason.LOST) from error
        try:
            wrapped.do_handshake()
            _require_current(wrapped)
            wrapped.settimeout(before)
        except (OSError, ValueError) as error:
            with suppress(OSError):
                wrapped.close()
            raise _failure(error) from error
        except HandshakeFailed:
            wrapped.close()
            raise
        return wrapped

    def reload_if_changed(self) -> None:
        """Use files that were replaced for handshakes from now on; looks at most once a second.

        Files that cannot be used (key and certificate come one after the other) leave the old ones in use.
        """
        if time.monotonic() - self._looked < LOOK_S or not self._lock.acquire(blocking=False):
            return
        try:
            reload = self._reload()
        finally:
            self._looked = time.monotonic()
            self._lock.release()
        if reload is not None:
            self._told(reload)

    def _reload(self) -> Reload | None:
        stamp = self._stamped()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            self._context = self._load()
        except ConfigError as error:
            return Reload(str(error))
        return Reload()

    def _load(self) -> ssl.SSLContext:
        tls = self._settings
        try:
            return server_context(tls.cert, tls.key, tls.key_password(), tls.ca, tls.crl)
        except ConfigError as error:
            raise ConfigError(f"receive.tls: {error}") from error

    def _stamped(self) -> _Stamp:
        """Taken before the files are read: a file that is replaced in between has another one the next time."""
        tls = self._settings
        files = (tls.cert, tls.key, tls.ca, tls.crl, tls.key_password_file)
        return tuple(_stamp(path) for path in files if path is not None)


def identities(sock: ssl.SSLSocket) -> frozenset[str]:
    """What the verified certificate of the client says of it; empty when it has shown none.

    ``dns:``, ``ip:`` and ``uri:`` for its Subject Alternative Names, ``cn:`` for the subject's Common Name,
    ``sha256:`` for the certificate itself: the forms of ``config.tls.identity``.
    """
    whole, parsed = sock.getpeercert(binary_form=True), sock.getpeercert()
    if whole is None or not parsed:
        return frozenset()
    found = {f"sha256:{hashlib.sha256(whole).hexdigest()}"}
    names = cast("dict[str, tuple[Any, ...]]", parsed)
    for kind, value in names.get("subjectAltName", ()):
        found |= _alternative(kind, value)
    for name in names.get("subject", ()):
        found |= {f"cn:{value}" for key, value in name if key == "commonName"}
    return frozenset(found)


def _alternative(kind: str, value: str) -> set[str]:
    match kind:
        case "DNS":
            return {f"dns:{value.rstrip('.').lower()}"}
        case "URI":
            return {f"uri:{value}"}
        case "IP Address":
            with suppress(ValueError):
                return {f"ip:{ipaddress.ip_address(value.strip())}"}
    return set()


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _require_current(wrapped: ssl.SSLSocket) -> None:
    """OpenSSL does not look at the certificate again when a TLS 1.2 client takes up its earlier session."""
    if wrapped.session_reused:
        shown = wrapped.getpeercert() or {}
        if ssl.cert_time_to_seconds(str(shown.get("notAfter", "Jan  1 00:00:00 9999 GMT"))) <= time.time():
            raise HandshakeFailed(Reason.EXPIRED, "session taken up again")


_CERTIFICATE_FAULTS = {
    **dict.fromkeys((9, 10), Reason.EXPIRED),
    **dict.fromkeys((2, 18, 19, 20, 21, 27), Reason.UNKNOWN_AUTHORITY),
    **dict.fromkeys((3, 5, 8, 11, 12, 15, 16, 33, 35, 36, 44, 54), Reason.NO_REVOCATION_LIST),
    23: Reason.REVOKED,
}
"""By X509_V_ERR_… of OpenSSL's x509_vfy.h; others are ``BAD_CERTIFICATE``."""

_REASONS = {
    "UNSUPPORTED_PROTOCOL": Reason.OLD_PROTOCOL,
    "VERSION_TOO_LOW": Reason.OLD_PROTOCOL,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Reason.NO_CERTIFICATE,
    "NO_SHARED_CIPHER": Reason.NO_CIPHER,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": Reason.NO_CIPHER,
    "NO_SUITABLE_KEY_SHARE": Reason.NO_CIPHER,
    "HTTP_REQUEST": Reason.PLAIN_TEXT,
    "HTTPS_PROXY_REQUEST": Reason.PLAIN_TEXT,
    "WRONG_VERSION_NUMBER": Reason.PLAIN_TEXT,
    "EE_KEY_TOO_SMALL": Reason.BAD_CERTIFICATE,
    "CA_MD_TOO_WEAK": Reason.BAD_CERTIFICATE,
}


def _failure(error: OSError | ValueError) -> HandshakeFailed:
    match error:
        case TimeoutError():
            return HandshakeFailed(Reason.LATE)
        case ssl.SSLCertVerificationError():
            reason = _CERTIFICATE_FAULTS.get(error.verify_code, Reason.BAD_CERTIFICATE)
            return HandshakeFailed(reason, error.verify_message)
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ssl.SSLSyscallError():
            return HandshakeFailed(Reason.LOST)
        case ssl.SSLError():
            word = error.reason or ""
            refused = "ALERT" in word
            return HandshakeFailed(
                Reason.REFUSED_BY_PEER if refused else _REASONS.get(word, Reason.MALFORMED), word.lower()
            )
        case _:
            return HandshakeFailed(Reason.LOST)
