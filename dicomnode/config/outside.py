"""``[[deid.export]]``, ``[[deid.remote]]``, ``[deid.vault]``: what may leave the trust zone, and its way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from dicomnode.config.peers import Peer
from dicomnode.config.rules import Condition, Keyword, not_empty
from dicomnode.config.table import Table

if TYPE_CHECKING:
    from dicomnode.config.loading import ConfigSource
    from dicomnode.config.model import Config


class VaultSettings(Table):
    """``[deid.vault]``: on when the table is there. ``path``: None for ``vault.sqlite3`` in the data folder."""

    key_file: Path
    path: Path | None = None


class Export(Table):
    """``[[deid.export]]``: the images of which Series go, de-identified, to which peers; all of those have ``deid``."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    when: Annotated[dict[Keyword, Condition], AfterValidator(not_empty)]
    send_to: Annotated[tuple[str, ...], Field(min_length=1)]
    priority: int = 0


class Remote(Table):
    """``[[deid.remote]]``: a detector outside the trust zone. ``peer`` gets the images and sends its results to us.

    ``send_to``: who gets the results, under the patient's identity again. ``timeout_s``: without a result after that
    time the Series has failed, visibly.
    """

    name: Annotated[str, Field(min_length=1, max_length=64)]
    when: Annotated[dict[Keyword, Condition], AfterValidator(not_empty)]
    peer: str
    send_to: Annotated[tuple[str, ...], Field(min_length=1)]
    timeout_s: Annotated[float, Field(gt=0, le=30 * 86_400)] = 3600.0
    priority: int = 0


def check_outside(config: Config, source: ConfigSource) -> None:
    """Nothing may go outside unchanged. Raises ConfigError with the line at fault."""
    for index, peer in enumerate(config.peer):
        if peer.deid is None:
            continue
        if config.deid.key_file is None:
            raise source.fault(("peer", index, "deid"), "pseudonyms need a key: [deid] key_file is missing")
        if isinstance(peer, Peer) and peer.commit:
            message = "commitment is asked by UIDs that this peer does not know: leave commit out"
            raise source.fault(("peer", index, "commit"), message)
    _check_exports(config, source)
    _check_remotes(config, source)


def _check_exports(config: Config, source: ConfigSource) -> None:
    names = [export.name for export in config.deid.export]
    for index, export in enumerate(config.deid.export):
        if export.name in names[:index]:
            raise source.fault(("deid", "export", index, "name"), "this name is used twice")
        for name in export.send_to:
            peer = config.peer_named(name)
            if peer is None:
                raise source.fault(("deid", "export", index, "send_to"), f"there is no peer named {name!r}")
            if peer.deid is None:
                message = f"peer {name!r} has no deid: images would leave with the patient's identity"
                raise source.fault(("deid", "export", index, "send_to"), message)


def _check_remotes(config: Config, source: ConfigSource) -> None:
    taken = [route.name for route in config.route]
    for index, remote in enumerate(config.deid.remote):
        if remote.name in taken:
            raise source.fault(("deid", "remote", index, "name"), "this name is used twice, or by a route")
        taken.append(remote.name)
        peer = config.peer_named(remote.peer)
        if peer is None:
            raise source.fault(("deid", "remote", index, "peer"), f"there is no peer named {remote.peer!r}")
        if peer.deid is None or not isinstance(peer, Peer) or not peer.may_send:
            message = "this peer has to have deid, and ae_title and may_send for its results to come back"
            raise source.fault(("deid", "remote", index, "peer"), message)
        if config.deid.vault is None:
            message = "results could not be given back to their patient: [deid.vault] is missing"
            raise source.fault(("deid", "remote", index, "peer"), message)
        for name in remote.send_to:
            known = config.peer_named(name)
            if name != "sender" and (known is None or known.deid is not None):
                message = f"there is no peer named {name!r} that gets identified data"
                raise source.fault(("deid", "remote", index, "send_to"), message)
