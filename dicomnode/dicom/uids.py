"""Deterministic UIDs, so that a retry replaces an object and never doubles it (PS3.5 B.2)."""

from __future__ import annotations

import uuid

from dicomnode import __version__

_NAMESPACE = uuid.UUID("6a3f0b52-7c1e-5d0a-9d6f-2f4f8f6d1c11")
_UUID_ROOT = "2.25"


def derived_uid(*parts: str, uid_root: str = _UUID_ROOT) -> str:
    """Return the UID that stands for ``parts`` for ever: uuid5 over them under ``uid_root``.

    ``2.25`` takes the whole 128-bit value (PS3.5 B.2); another root takes as many of its decimal digits as
    fit into 64 characters.
    """
    number = str(uuid.uuid5(_NAMESPACE, "\x1f".join(parts)).int)
    return f"{uid_root}.{number[: 64 - len(uid_root) - 1]}"


IMPLEMENTATION_CLASS_UID = derived_uid("dicomnode", "implementation")
"""Implementation Class UID (0002,0012) of everything that dicomnode writes and of every association (PS3.7 D.3.3.2)."""

IMPLEMENTATION_VERSION_NAME = f"DICOMNODE_{__version__}"[:16]
"""Implementation Version Name (0002,0013)."""
