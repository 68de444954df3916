"""One way out for every kind of Destination: C-STORE, STOW-RS or a folder."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from dicomnode.config.peers import Destination, FolderPeer, Peer, StowPeer
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.folder import write_files
from dicomnode.deliver.scu import send_files
from dicomnode.deliver.sending import OutboundFile, SentStatus
from dicomnode.deliver.stow import store_instances


def send_to(
    destination: Destination, calling_ae: str, files: Sequence[OutboundFile], limits: SendLimits
) -> Generator[SentStatus, None, None]:
    """Send ``files`` to ``destination`` and yield one SentStatus for each.

    Failures of the network, of the peer or of a file raise nothing, they are answers. Closing the iterator ends the
    sending in order.
    """
    match destination:
        case Peer():
            return send_files(destination, calling_ae, files, limits)
        case StowPeer():
            return store_instances(destination, files, limits)
        case FolderPeer():
            return write_files(destination, files)
