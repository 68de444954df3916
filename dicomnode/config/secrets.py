"""The files of the configuration that hold secrets; none may be open to others (keys, their passwords, tokens)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dicomnode.config.audit import CheckpointSyslog
from dicomnode.config.deid import DeidSettings
from dicomnode.config.loading import ConfigSource, Location
from dicomnode.config.model import Config
from dicomnode.config.peers import Peer, StowPeer
from dicomnode.config.tls import ReceiveTls, TlsFiles
from dicomnode.dicom.private_file import require_private
from dicomnode.errors import ConfigError


def secret_files(config: Config) -> Iterator[tuple[Location, Path]]:
    """Every such file and the place of its setting. A key in the file of its certificate is that file."""
    if config.receive.tls is not None:
        yield from _of_tls(("receive", "tls"), config.receive.tls)
    for index, peer in enumerate(config.peer):
        if isinstance(peer, (Peer, StowPeer)) and peer.tls:
            yield from _of_tls(("peer", index, "tls"), peer.tls)
        if isinstance(peer, StowPeer) and peer.token_file is not None:
            yield ("peer", index, "token_file"), peer.token_file
    if config.audit.signing_key_file is not None:
        yield ("audit", "signing_key_file"), config.audit.signing_key_file
    for index, place in enumerate(config.audit.checkpoints):
        if isinstance(place, CheckpointSyslog):
            yield from _of_tls(("audit", "checkpoints", index, "tls"), place.tls)
    if config.audit.syslog is not None:
        yield from _of_tls(("audit", "syslog", "tls"), config.audit.syslog.tls)
    yield from _of_deid(config.deid)


def check_secrets(config: Config, source: ConfigSource) -> None:
    """Raise ConfigError with the line of a secret file that others can read.

    One that is not there is no fault here: a token may be written later, and whoever needs a key says so.
    """
    for location, path in secret_files(config):
        try:
            require_private(path, "the file")
        except ConfigError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise source.fault(location, str(error)) from error


def _of_deid(deid: DeidSettings) -> Iterator[tuple[Location, Path]]:
    if deid.key_file is not None:
        yield ("deid", "key_file"), deid.key_file
    if deid.vault is not None:
        yield ("deid", "vault", "key_file"), deid.vault.key_file


def _of_tls(location: Location, tls: ReceiveTls | TlsFiles) -> Iterator[tuple[Location, Path]]:
    if tls.key is not None:
        yield (*location, "key"), tls.key
    elif tls.cert is not None:
        yield (*location, "cert"), tls.cert
    if tls.key_password_file is not None:
        yield (*location, "key_password_file"), tls.key_password_file
