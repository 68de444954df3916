"""``doctor`` and what is secret: TLS files, their dates and chain, a handshake with ourselves, files open to others."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dicomnode.config import Config, Peer, ReceiveTls, StowPeer, secret_files
from dicomnode.dicom.certificates import DAY_S, CertificateFacts, read_certificates, read_revocation_lists
from dicomnode.dicom.private_file import require_private
from dicomnode.dicom.tls import server_context
from dicomnode.errors import ConfigError

WARN_DAYS = 30.0
WARN_LIST_DAYS = 1.0
_HANDSHAKE_S = 5.0
_RENEW = "renew it (docs/operators.md, TLS): new files are taken up without a restart"


@dataclass(frozen=True, slots=True)
class TlsCheck:
    """``check``: what was looked at. ``mend``: what the operator can do, empty when all is well."""

    check: str
    level: Literal["ok", "warning", "fault"]
    found: str
    mend: str = ""


def check_secrets_and_tls(config: Config) -> Iterator[TlsCheck]:
    """Everything that ``doctor`` says of secrets and certificates; nothing of a secret is in it."""
    yield from _secrets(config)
    yield from _data_dir(config.node.data_dir)
    if config.receive.tls is not None:
        yield from _receive(config.receive.tls)
    for peer in config.peer:
        if isinstance(peer, (Peer, StowPeer)) and peer.tls:
            for setting, path in (("ca", peer.tls.ca), ("cert", peer.tls.cert)):
                if path is not None:
                    yield from _dates(f"peer {peer.name}: tls.{setting}", path)
            if peer.tls.crl is not None:
                yield from _lists(f"peer {peer.name}: tls.crl", peer.tls.crl)
    syslog = config.audit.syslog
    if syslog is not None and syslog.tls.crl is not None:
        yield from _lists("audit.syslog.tls.crl", syslog.tls.crl)


def _secrets(config: Config) -> Iterator[TlsCheck]:
    for location, path in secret_files(config):
        of = f"peer {config.peer[location[1]].name}: " if isinstance(location[1], int) else ""
        check = of + ".".join(str(part) for part in (location[2:] if of else location))
        try:
            require_private(path, str(path))
        except ConfigError as error:
            mend = "chown it to the user that runs the node and chmod 600; until then the node does not start"
            if isinstance(error.__cause__, FileNotFoundError):
                mend = "write it, with mode 0600, for the user that runs the node"
            yield TlsCheck(check, "fault", str(error), mend)
        else:
            yield TlsCheck(check, "ok", f"{path}: nobody else can read it")


def _data_dir(folder: Path) -> Iterator[TlsCheck]:
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError:
        return
    if mode & stat.S_IRWXO:
        found = f"{folder} holds patient data and is open to everybody (mode {mode:04o})"
        yield TlsCheck("node.data_dir", "warning", found, f"chmod 700 {folder}")
    else:
        yield TlsCheck("node.data_dir", "ok", f"{folder}: mode {mode:04o}")


def _receive(tls: ReceiveTls) -> Iterator[TlsCheck]:
    try:
        spoken = _handshake(tls)
    except ConfigError as error:
        yield TlsCheck("receive.tls", "fault", str(error), "mend the file; until then the node does not start")
        return
    yield TlsCheck("receive.tls", "ok", f"handshake with itself: {spoken}, port {tls.port}")
    if tls.client_certificate == "none":
        found = "nobody is asked for a certificate: encrypted, but who calls is not known"
        yield TlsCheck("receive.tls", "warning", found, 'give ca and client_certificate = "required"')
    yield from _dates("receive.tls.cert", tls.cert)
    yield from _chain(tls.cert)
    if tls.ca is not None:
        yield from _dates("receive.tls.ca", tls.ca)
    if tls.crl is not None:
        yield from _lists("receive.tls.crl", tls.crl)


def _lists(check: str, crl: Path) -> Iterator[TlsCheck]:
    """A list that is over shuts out everybody of its authority."""
    fetch = "fetch the authority's new list, as a scheduled task does; it is taken up without a restart"
    try:
        found = read_revocation_lists(crl)
    except ConfigError as error:
        yield TlsCheck(check, "fault", str(error), fetch)
        return
    for one in found:
        if one.next_update is None:
            yield TlsCheck(check, "ok", f"list of {one.issuer}, without an end")
            continue
        end = time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.next_update))
        days = (one.next_update - time.time()) / DAY_S
        level: Literal["ok", "warning", "fault"] = "fault" if days < 0 else "warning" if days < WARN_LIST_DAYS else "ok"
        said = f"list of {one.issuer}, {'over since' if days < 0 else 'until'} {end} UTC"
        yield TlsCheck(check, level, said, "" if level == "ok" else fetch)


def _dates(check: str, path: Path) -> Iterator[TlsCheck]:
    try:
        found = read_certificates(path)
    except ConfigError as error:
        yield TlsCheck(check, "fault", str(error), "put a PEM file of certificates there")
        return
    now = time.time()
    for one in found:
        yield _date(check, one, now)


def _date(check: str, one: CertificateFacts, now: float) -> TlsCheck:
    end = time.strftime("%Y-%m-%d", time.gmtime(one.not_after))
    days = one.days_left(now)
    if now < one.not_before:
        return TlsCheck(check, "fault", f"{one.subject} is not valid yet", "correct the clock, or wait")
    if days < 0:
        return TlsCheck(check, "fault", f"{one.subject} has expired on {end}", _RENEW)
    if days < WARN_DAYS:
        return TlsCheck(check, "warning", f"{one.subject} expires in {days:.0f} days, on {end}", _RENEW)
    return TlsCheck(check, "ok", f"{one.subject}, until {end}")


def _chain(cert: Path) -> Iterable[TlsCheck]:
    found = read_certificates(cert)
    broken = [one.subject for one in found if one.issued_by_next is False]
    mend = "the node's own first, then each certificate's authority, the root may be left out"
    if broken:
        yield TlsCheck("receive.tls.cert", "fault", f"what follows {broken[0]} in the file has not issued it", mend)
    if not found[0].names:
        said = f"{found[0].subject} has no alternative name: most peers will not accept it"
        yield TlsCheck("receive.tls.cert", "warning", said, "have it issued with the name or address that peers call")


def _handshake(tls: ReceiveTls) -> str:
    """Protocol and cipher suite of a handshake over loopback, without a client certificate. Raises ConfigError."""
    ours = server_context(tls.cert, tls.key, tls.key_password(), None)
    if tls.ca is not None:
        server_context(tls.cert, tls.key, tls.key_password(), tls.ca, tls.crl)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname = False
    theirs.verify_mode = ssl.CERT_NONE
    near, far = socket.socketpair()
    near.settimeout(_HANDSHAKE_S)
    far.settimeout(_HANDSHAKE_S)
    answering = threading.Thread(target=_answer, args=(ours, far), name="handshake", daemon=True)
    answering.start()
    try:
        with theirs.wrap_socket(near) as wrapped:
            return f"{wrapped.version()}, {(wrapped.cipher() or ('?',))[0]}"
    except OSError as error:
        raise ConfigError(f"no handshake with these files: {type(error).__name__}") from error
    finally:
        answering.join(_HANDSHAKE_S)


def _answer(context: ssl.SSLContext, far: socket.socket) -> None:
    with far, suppress(OSError):
        context.wrap_socket(far, server_side=True).close()
