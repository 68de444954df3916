"""``[[peer]]``: whom the node knows. By C-STORE, by STOW-RS, or a folder; the keys of a table tell which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from dicomnode.config.table import Table
from dicomnode.config.tls import EnvironmentName, Identity, Network, TlsFiles
from dicomnode.dicom.aetitle import ae_title as valid_ae_title

AETitle = Annotated[str, AfterValidator(valid_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
DeidProfile = Annotated[str, Field(min_length=1)]
"""A shipped profile or a file: everything that is sent to the peer is de-identified by it first."""


class Peer(Table):
    """An Application Entity: gets results by C-STORE, may send. ``commit``: ask it for storage commitment.

    ``addresses``: from where its associations may come, beside ``host``. ``certificate``: one of these identities has
    to stand in the certificate that it shows; its associations without TLS are rejected. Empty: any or none.
    """

    name: Name
    ae_title: AETitle
    host: Annotated[str, Field(min_length=1)]
    port: Port
    may_send: bool = False
    tls: TlsFiles | Literal[False] = False
    commit: bool = False
    deid: DeidProfile | None = None
    addresses: tuple[Network, ...] = ()
    certificate: tuple[Identity, ...] = ()


class StowPeer(Table):
    """A DICOMweb origin server: gets results by STOW-RS (PS3.18 10.5).

    ``stow``: its base URL. ``token_file`` or ``token_env``: where its bearer token is read from (a file of mode 0600
    or stricter, an environment variable), never the token itself. ``tls``: files, where the system's authorities do
    not do.
    """

    name: Name
    stow: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]
    token_file: Path | None = None
    token_env: EnvironmentName | None = None
    tls: TlsFiles | Literal[False] = False
    deid: DeidProfile | None = None

    @model_validator(mode="after")
    def _secret_stays_secret(self) -> StowPeer:
        if self.token_file is not None and self.token_env is not None:
            raise ValueError("give token_file or token_env, not both")
        has_token = self.token_file is not None or self.token_env is not None
        if has_token and not self.stow.startswith("https://"):
            raise ValueError("a token must not travel without TLS: the URL has to begin with https://")
        if self.tls and not self.stow.startswith("https://"):
            raise ValueError("tls says nothing to http://: the URL has to begin with https://")
        return self


def _named(folder: Path) -> Path:
    if folder == Path():
        raise ValueError("the folder has no name")
    return folder


class FolderPeer(Table):
    """A folder that gets results as DICOM files: one subfolder a Study, one a Series."""

    name: Name
    folder: Annotated[Path, AfterValidator(_named)]
    deid: DeidProfile | None = None


def _channel(value: Any) -> str:
    keys = value if isinstance(value, dict) else vars(value) if isinstance(value, Table) else {}
    return "STOW-RS peer" if "stow" in keys else "folder peer" if "folder" in keys else "DIMSE peer"


Destination = Annotated[
    Annotated[Peer, Tag("DIMSE peer")]
    | Annotated[StowPeer, Tag("STOW-RS peer")]
    | Annotated[FolderPeer, Tag("folder peer")],
    Discriminator(_channel),
]
