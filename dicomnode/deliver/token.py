"""The bearer token of a STOW-RS peer (RFC 6750), read anew for every request and told to nobody else."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dicomnode.config.peers import StowPeer
from dicomnode.dicom.private_file import read_private
from dicomnode.errors import ConfigError, Transient

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def bearer_token(peer: StowPeer) -> str | None:
    """The token of ``peer``, None when it needs none.

    Raises Transient when there is none to read, when its file may be read by others, or when it is no token (RFC 6750
    2.1): the operator can mend it. No message holds anything of it.
    """
    if peer.token_file is not None:
        text, place = _from_file(peer.token_file), "the token file"
    elif peer.token_env is not None:
        text, place = os.environ.get(peer.token_env, ""), f"the environment variable {peer.token_env}"
    else:
        return None
    token = text.strip()
    if not token:
        raise Transient(f"{place} is empty or missing")
    if not _TOKEN.fullmatch(token):
        raise Transient(f"{place} does not hold a bearer token")
    return token


def _from_file(path: Path) -> str:
    try:
        return read_private(path, "the token file").decode("ascii", errors="replace")
    except ConfigError as error:
        raise Transient(str(error)) from error
