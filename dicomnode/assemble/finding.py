"""C-FIND at a peer (PS3.4 C.4.1, Study Root): how many Instances has a Series?"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom.association import Association

from dicomnode.config import Peer
from dicomnode.dicom.requestor import Requestor
from dicomnode.errors import Transient

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
TIMEOUT_S = 5.0
MAX_ANSWERS = 20_000
PENDING = (0xFF00, 0xFF01)
SUCCESS = 0x0000


@dataclass(frozen=True, slots=True)
class Counted:
    """The Series in question."""

    StudyInstanceUID: str
    SeriesInstanceUID: str


def count_by_find(ae_title: str, peer: Peer, series: Counted) -> int | None:
    """Number of Series Related Instances (0020,1209), or else the number of IMAGE level matches.

    None when the peer does not answer within seconds, refuses, fails, or does not know the Series.
    """
    ae = Requestor(ae_title)
    ae.add_requested_context(STUDY_ROOT_FIND)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
    try:
        association = ae.associate(peer.host, peer.port, ae_title=peer.ae_title, tls_args=_tls(peer))
    except (OSError, ValueError, RuntimeError, Transient):
        return None
    if not association.is_established:
        return None
    try:
        return _series_level(association, series) or _image_level(association, series)
    except (ValueError, RuntimeError, AttributeError):
        return None
    finally:
        association.release() if association.is_established else association.abort()


def _series_level(association: Association, series: Counted) -> int | None:
    query = _identifier("SERIES", series)
    query.Modality = ""
    query.NumberOfSeriesRelatedInstances = None
    answers = _matches(association, query, series)
    counts = [answer.get("NumberOfSeriesRelatedInstances") for answer in answers or ()]
    return max((int(count) for count in counts if count is not None), default=None)


def _image_level(association: Association, series: Counted) -> int | None:
    if not association.is_established:
        return None
    query = _identifier("IMAGE", series)
    query.SOPInstanceUID = ""
    answers = _matches(association, query, series)
    return len({str(answer.get("SOPInstanceUID")) for answer in answers}) or None if answers else None


def _identifier(level: str, series: Counted) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    query.StudyInstanceUID = series.StudyInstanceUID
    query.SeriesInstanceUID = series.SeriesInstanceUID
    return query


def _matches(association: Association, query: Dataset, series: Counted) -> list[Dataset] | None:
    """The answers that are about our Series; None unless the peer ends with Success."""
    found: list[Dataset] = []
    for status, answer in _responses(association, query):
        code = status.get("Status")
        if code == SUCCESS:
            return found
        if code not in PENDING or len(found) >= MAX_ANSWERS:
            return None
        if answer is not None and answer.get("SeriesInstanceUID", series.SeriesInstanceUID) == series.SeriesInstanceUID:
            found.append(answer)
    return None


def _responses(association: Association, query: Dataset) -> Iterator[tuple[Dataset, Dataset | None]]:
    yield from association.send_c_find(query, STUDY_ROOT_FIND)


def _tls(peer: Peer) -> tuple[ssl.SSLContext, str] | None:
    if peer.tls is False:
        return None
    return peer.tls.context(), peer.host
