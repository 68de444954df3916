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

VERSION = "3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""Subresource integrity of the tarball, as the registry's metadata of @ohif/app state it (``npm view ... dist``)."""

DOWNLOAD_S = 120.0


def ohif_dist() -> Path:
    """The folder with the viewer's ``index.html``; fetched on first use.

    Raises ValueError when what the registry sends has another digest, OSError when npm or the registry is away.
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
    """What ``npm pack`` fetches from the registry that npm is set to; nothing of the package is run."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--ignore-scripts", f"@ohif/app@{VERSION}", "--pack-destination", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S, cwd=folder)
        found = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            raise OSError(f"npm pack @ohif/app@{VERSION} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        return found[0].read_bytes()


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
