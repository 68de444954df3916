"""The head of a DICOM file (PS3.10 7.1), written by us: nothing of a peer's preamble or file meta is kept."""

from __future__ import annotations

import functools
import struct

from dicomnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_BEGIN = bytes(128) + b"DICM"
_GROUP_LENGTH = struct.Struct("<HH2sHI")


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str) -> bytes:
    """Preamble of zeros, ``DICM`` and the File Meta Information, Explicit VR Little Endian."""
    before, after = _around(sop_class_uid, transfer_syntax_uid, source_ae_title)
    instance = _text(0x0003, b"UI", sop_instance_uid)
    length = _GROUP_LENGTH.pack(0x0002, 0x0000, b"UL", 4, len(before) + len(instance) + len(after))
    return b"".join((_BEGIN, length, before, instance, after))


@functools.lru_cache(maxsize=256)
def _around(sop_class_uid: str, transfer_syntax_uid: str, source_ae_title: str) -> tuple[bytes, bytes]:
    """What stands before and behind the SOP Instance UID: the same for all Instances of a Series."""
    before = struct.pack("<HH2sHI", 0x0002, 0x0001, b"OB", 0, 2) + b"\x00\x01" + _text(0x0002, b"UI", sop_class_uid)
    after = (
        _text(0x0010, b"UI", transfer_syntax_uid),
        _text(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        _text(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        _text(0x0016, b"AE", source_ae_title),
    )
    return before, b"".join(after)


def _text(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value
