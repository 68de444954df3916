"""What a child process reads of files for a verification: nobody vouches for the sources."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pydicom
from pydicom import config
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomnode.deid.identifiers import identifiers_of
from dicomnode.deid.scorecard import pixel_digest, score_pair
from dicomnode.deid.table import PIXEL_OPTIONS, action_table
from dicomnode.dicom.faults import PYDICOM_FAULTS
from dicomnode.errors import Permanent
from dicomnode.sandbox import Room

_BYTES = frozenset({"OB", "OW", "OD", "OF", "OL", "OV"})
_LEAST_BYTES, _OPEN_END = 64, 1 << 62
READ_SOURCE = "dicomnode.deid.verify_child:read_source"
READ_RESULT = "dicomnode.deid.verify_child:read_result"
READ_PAIR = "dicomnode.deid.verify_child:read_pair"


def read_source(request: Any, room: Room) -> dict[str, Any]:  # noqa: ARG001 - the sandbox decides the signature
    """Identifiers of one source file. Raises Permanent when pydicom cannot read it."""
    dataset = _read(Path(request))
    found = identifiers_of(dataset)
    return {
        **_keys(dataset),
        "identifiers": [(one.text, one.kind, one.tag) for one in sorted(found.identifiers, key=repr)],
        "vocabulary": sorted(found.vocabulary),
        "plain": sorted(found.plain),
        "short": found.short,
    }


def read_result(request: Any, room: Room) -> dict[str, Any]:  # noqa: ARG001
    """What a de-identified file says of itself, and where values of bytes lie in it (offset, length)."""
    dataset = _read(Path(request))
    codes = {str(item.get("CodeValue")) for item in dataset.get("DeidentificationMethodCodeSequence") or ()}
    table = action_table()
    options = [option for option in sorted(table.options) if table.code_of(option) in codes]
    deflated = dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    return {**_keys(dataset), "options": options, "bulk": [] if deflated else _bulk(dataset), "deflated": deflated}


def read_pair(request: Any, room: Room) -> dict[str, Any]:  # noqa: ARG001
    """The scores of a result and the source that it was made from, of those that it may have been made from."""
    sources, result, options = request
    after = _read(Path(result))
    before = _source_of(after, [_read(Path(source)) for source in sources])
    pixels = frozenset(options) & frozenset(PIXEL_OPTIONS)
    keys, own = _keys(before), _keys(after)
    patient = (keys["issuer"], keys["patient"], own["patient"])
    return {**score_pair(before, after, frozenset(options), changed=bool(pixels)), "patient": patient}


def _source_of(after: FileDataset, sources: list[FileDataset]) -> FileDataset:
    """Of several files with one SOP Instance UID: the one with the same pixels, else the first."""
    alike = (source for source in sources if len(sources) > 1 and pixel_digest(source) == pixel_digest(after))
    return next(alike, sources[0])


def _read(path: Path) -> FileDataset:
    config.settings.reading_validation_mode = config.IGNORE
    warnings.simplefilter("ignore")
    try:
        return pydicom.dcmread(path, force=True, defer_size=1 << 16)
    except (
        *PYDICOM_FAULTS,
        ValueError,
        TypeError,
        NotImplementedError,
        EOFError,
        LookupError,
        AttributeError,
    ) as error:
        raise Permanent(f"pydicom cannot read it: {type(error).__name__}") from None


def _keys(dataset: FileDataset) -> dict[str, str]:
    return {
        "instance": str(dataset.get("SOPInstanceUID") or "").strip(" \0"),
        "patient": str(dataset.get("PatientID") or "").strip(" \0"),
        "issuer": str(dataset.get("IssuerOfPatientID") or "").strip(" \0"),
    }


def _bulk(dataset: FileDataset) -> list[tuple[int, int]]:
    """Where values of bytes lie: pixels, look-up tables, colour profiles."""
    spans = []
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag, keep_deferred=True)
        start, length = getattr(raw, "value_tell", 0), getattr(raw, "length", 0)
        kind = raw.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "")
        if start and length >= _LEAST_BYTES and kind.split(" or ")[-1] in _BYTES:
            spans.append((start, _OPEN_END if length == 0xFFFFFFFF else length))
    return spans
