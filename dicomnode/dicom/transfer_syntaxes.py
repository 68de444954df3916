"""Transfer syntaxes (PS3.5 annex A, PS3.6 table A-1): every one in which a Storage SCU may send a data set."""

from __future__ import annotations

from pydicom.uid import AllTransferSyntaxes

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"

DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95"})
"""The data set itself is deflated (PS3.5 A.5, A.7)."""

UNCOMPRESSED = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN)
"""Native pixel data, in the order the node prefers."""

_RETIRED_JPEG = tuple(f"1.2.840.10008.1.2.4.{process}" for process in (52, 53, 54, 55, 56, *range(58, 67)))
_OTHER = (
    "1.2.840.10008.1.2.1.98",  # Encapsulated Uncompressed Explicit VR Little Endian
    "1.2.840.10008.1.2.4.94",  # JPIP Referenced
    "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
)

ALL_TRANSFER_SYNTAXES: tuple[str, ...] = tuple(
    dict.fromkeys((*UNCOMPRESSED, *map(str, AllTransferSyntaxes), *_RETIRED_JPEG, *_OTHER))
)
"""All of pydicom's, the retired JPEG processes that old archives still hold, JPIP and deflated frames."""


def is_native(transfer_syntax_uid: str) -> bool:
    """Say whether pixel data are uncompressed and not encapsulated."""
    return transfer_syntax_uid in UNCOMPRESSED or transfer_syntax_uid == "1.2.840.10008.1.2.1.99"
