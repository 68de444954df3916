"""AEs that leave no socket open: one that opens Associations, one that waits for them."""

from __future__ import annotations

import ssl
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket, RequestHandler

from dicomnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME


class _Socket(AssociationSocket):
    """pynetdicom 3.0 leaves a socket open that cannot be shut down: no connection, or one that the peer has reset."""

    def _shutdown_socket(self) -> None:
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()


class Requestor(AE):
    """An AE for Associations that we open."""

    def __init__(self, calling_ae: str) -> None:
        super().__init__(ae_title=calling_ae)
        self.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.implementation_version_name = IMPLEMENTATION_VERSION_NAME

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> AssociationSocket:
        made = _Socket(assoc, address=address)
        made.tls_args = tls_args
        return made


class _Handler(RequestHandler):
    def _create_association(self) -> Association:
        made = super()._create_association()
        # The library offers no other way: a second AssociationSocket would tell of the connection twice.
        made.dul.socket.__class__ = _Socket
        return made


class Acceptor(AE):
    """An AE for Associations that others open, of the demo's archive and of those in tests; the node has its own."""

    def make_server(self, *arguments: Any, **options: Any) -> Any:
        """As AE.make_server. Raises ValueError, OSError as that does."""
        return super().make_server(*arguments, **{"request_handler": _Handler, **options})
