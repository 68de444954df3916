"""The viewer's files: one release from the npm registry, checked against its known digest, kept in a cache folder."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import requests

VERSION = "3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""Subresource integrity of the tarball, as the registry's metadata of @ohif/app state it (``npm view ... dist``)."""

DEFAULT_REGISTRY = "https://registry.npmjs.org/"
DOWNLOAD_S = 120.0


def ohif_dist() -> Path:
    """The folder with the viewer's ``index.html``; fetched on first use.

    Raises ValueError when what the registry sends has another digest, requests.RequestException when it is away.
    """
    place = cache_folder() / f"ohif-{VERSION}-{_short(INTEGRITY)}"
    if not (place / "index.html").is_file():
        _unpack(verified(_tarball(), INTEGRITY), place)
    return place


def cache_folder() -> Path:
    """Our folder in the user's cache (XDG Base Directory Specification)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "dicomnode" / "viewer"


def verified(content: bytes, integrity: str) -> bytes:
    """``content`` when its digest is ``integrity`` ("sha512-" and base64). Raises ValueError otherwise."""
    name, _, wanted = integrity.partition("-")
    found = base64.b64encode(hashlib.new(name, content).digest()).decode()
    if found != wanted:
        raise ValueError(f"the viewer's tarball has the digest {name}-{found}, not {integrity}")
    return content


def _tarball() -> bytes:
    address = f"{_registry().rstrip('/')}/@ohif/app/-/app-{VERSION}.tgz"
    answer = requests.get(address, timeout=DOWNLOAD_S)
    answer.raise_for_status()
    return answer.content


def _registry() -> str:
    """The registry that npm is set to, where there is an npm."""
    if shutil.which("npm") is None:
        return DEFAULT_REGISTRY
    answer = subprocess.run(["npm", "config", "get", "registry"], capture_output=True, text=True, timeout=60)
    told = answer.stdout.strip()
    return told if told.startswith("http") else DEFAULT_REGISTRY


def _unpack(content: bytes, place: Path) -> None:
    """``package/dist`` of the tarball as ``place``: whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as work:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            archive.extractall(work, filter="data")
        shutil.rmtree(place, ignore_errors=True)
        (Path(work) / "package" / "dist").rename(place)


def _short(integrity: str) -> str:
    return hashlib.sha256(integrity.encode()).hexdigest()[:8]
