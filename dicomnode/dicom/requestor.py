"""The AE that opens Associations: who we are, and no socket left open."""

from __future__ import annotations

import ssl

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket

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
