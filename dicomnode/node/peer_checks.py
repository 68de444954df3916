"""``doctor`` and the peers: does each answer over its channel, and would it take results?"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

from dicomnode.config import Destination, FolderPeer, Peer, StowPeer
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.folder import fault
from dicomnode.deliver.scu import echo
from dicomnode.deliver.stow_answer import describe_http
from dicomnode.deliver.token import bearer_token
from dicomnode.deliver.web import get
from dicomnode.errors import Transient

_NOBODY = "/studies?StudyInstanceUID=2.25.0&limit=1"
"""A query (PS3.18 10.6) that finds nothing: no answer to it holds patient data."""
_NO_QUERY = frozenset({404, 405, 406, 501})
_QUICK = SendLimits(dimse_s=10.0, acse_s=10.0, stall_s=10.0)


@dataclass(frozen=True, slots=True)
class PeerCheck:
    """``ok`` is None when it cannot be told. ``mend``: what the operator can do, empty when all is well."""

    ok: bool | None
    found: str
    mend: str = ""


def check_peer(peer: Destination, calling_ae: str) -> PeerCheck:
    """Reach ``peer`` over its channel without sending or reading anything about a patient."""
    match peer:
        case Peer():
            return _entity(peer, calling_ae)
        case StowPeer():
            return _origin_server(peer)
        case FolderPeer():
            return _folder(peer)


def _entity(peer: Peer, calling_ae: str) -> PeerCheck:
    answer = echo(peer, calling_ae)
    where = f"{peer.ae_title}@{peer.host}:{peer.port}"
    if answer.ok:
        return PeerCheck(ok=True, found=f"{where} answers C-ECHO in {answer.seconds * 1000:.0f} ms")
    mend = f"check host, port and AE titles there; it must know {calling_ae}"
    return PeerCheck(ok=False, found=f"{where}: {answer.reason}", mend=mend)


def _origin_server(peer: StowPeer) -> PeerCheck:
    try:
        bearer_token(peer)
    except Transient as error:
        mend = "write the token, and nothing else, where token_file or token_env says; chmod 600 the file"
        return PeerCheck(ok=False, found=str(error), mend=mend)
    try:
        answer = get(peer, _NOBODY, _QUICK)
    except Transient as error:
        return PeerCheck(ok=False, found=f"{peer.stow}: {error}", mend="check its URL, and tls.ca for its certificate")
    found = f"{peer.stow}: {describe_http(answer.status)}"
    if 200 <= answer.status < 300:
        return PeerCheck(ok=True, found=found)
    if answer.status in _NO_QUERY:
        mend = "right for a server that offers no query; otherwise correct the URL: /studies follows it"
        return PeerCheck(ok=None, found=found, mend=mend)
    return PeerCheck(ok=False, found=found, mend="correct the URL or renew the token, or ask who runs that server")


def _folder(peer: FolderPeer) -> PeerCheck:
    reason = fault(peer.folder)
    if not reason:
        try:
            with tempfile.NamedTemporaryFile(dir=peer.folder, prefix=".doctor-") as trial:
                trial.write(b"\0")
                trial.flush()
        except OSError as error:
            reason = f"nothing can be written: {error.strerror}"
    if not reason:
        return PeerCheck(ok=True, found=f"{peer.folder} is there and can be written")
    mend = "make the folder or mount its share, for the user that runs the node"
    return PeerCheck(ok=False, found=f"{peer.folder}: {reason}", mend=mend)
