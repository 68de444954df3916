"""When the node's own certificates end, read from their files: what the next handshake will show."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dicomnode.config import Config, Peer, StowPeer
from dicomnode.dicom.certificates import expiry

WARN_DAYS = 30.0


def certificates(config: Config) -> list[dict[str, Any]]:
    """Per file its setting, subject, end (seconds since the epoch) and days left, or the fault that it has."""
    return [{"setting": setting, **expiry(path)} for setting, path in _files(config)]


def certificate_troubles(found: Iterable[dict[str, Any]]) -> list[str]:
    """What somebody has to look at, in words."""
    said = []
    for one in found:
        if "fault" in one:
            said.append(f"certificate of {one['setting']}: {one['fault']}")
        elif one["days_left"] <= 0:
            said.append(f"certificate of {one['setting']} has expired")
        elif one["days_left"] < WARN_DAYS:
            said.append(f"certificate of {one['setting']} expires in {one['days_left']:.0f} days")
    return said


def _files(config: Config) -> Iterable[tuple[str, Path]]:
    if config.receive.tls is not None:
        yield "receive.tls", config.receive.tls.cert
    if config.audit.syslog is not None and config.audit.syslog.tls.cert is not None:
        yield "audit.syslog", config.audit.syslog.tls.cert
    for peer in config.peer:
        if isinstance(peer, (Peer, StowPeer)) and peer.tls and peer.tls.cert is not None:
            yield f"peer {peer.name}", peer.tls.cert
