"""What a result says about itself: who made it, when, from which weights; and the UIDs that follow from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydicom.dataset import Dataset

from dicomnode.detectors.contract import ModelIdentity
from dicomnode.dicom.references import InstanceReference, SeriesReference
from dicomnode.dicom.uids import derived_uid

BANNER = "RESEARCH – NOT FOR CLINICAL USE"
MANUFACTURER = "dicomnode"


@dataclass(frozen=True, slots=True)
class ReportContext:
    """Everything about an analysis that is neither source nor finding. Same context, same bytes.

    ``analysed_at``: start of the analysis, timezone-aware; it is the only clock of the results, so a retry must
    pass the same value. ``supersedes``: the SR documents of earlier generations; ``replaces_earlier``: an earlier
    generation left results of any kind. ``incomplete``: the Series was closed before all its Instances had come.
    ``display_threshold``: heat (0..1) from which on the overlay is coloured. ``taken_series_numbers``: Series Numbers
    of other Series in the Study, received or made, for results to stay clear of. ``picture_all_up_to``: a Series of
    more images is pictured one by one only where a finding lies; None: always all.

    Raises ValueError for a naive ``analysed_at`` or a generation below 1.
    """

    detector: str
    detector_version: str
    model: ModelIdentity
    software_version: str
    ae_title: str
    generation: int
    analysed_at: datetime
    uid_root: str = "2.25"
    parameters: Mapping[str, str] = field(default_factory=dict)
    banner: str = BANNER
    supersedes: tuple[InstanceReference, ...] = ()
    replaces_earlier: bool = False
    incomplete: bool = False
    accelerator: str = ""
    display_threshold: float = 0.7
    taken_series_numbers: frozenset[int] = frozenset()
    picture_all_up_to: int | None = None

    def __post_init__(self) -> None:
        if self.analysed_at.tzinfo is None or self.analysed_at.utcoffset() is None:
            raise ValueError("analysed_at needs a time zone")
        if self.generation < 1:
            raise ValueError("generations count from 1")
        if not 0.0 <= self.display_threshold <= 1.0:
            raise ValueError("display_threshold lies in 0..1")


@dataclass(frozen=True, slots=True)
class DerivedObject:
    """One result Instance: ``kind`` as asked for in ``kinds``, ``dataset`` with complete file meta information."""

    kind: str
    dataset: Dataset

    @property
    def reference(self) -> InstanceReference:
        return InstanceReference(
            str(self.dataset.StudyInstanceUID),
            str(self.dataset.SeriesInstanceUID),
            str(self.dataset.SOPClassUID),
            str(self.dataset.SOPInstanceUID),
        )


@dataclass(frozen=True, slots=True)
class ResultUIDs:
    """The UIDs of one result set: the same source, generation, detector and weights give the same UIDs (PS3.5 B.2).

    A retry therefore replaces its objects, and other weights never collide with them.
    """

    source: SeriesReference
    generation: int
    detector: str
    sha256: str
    uid_root: str = "2.25"

    @classmethod
    def of(cls, source: SeriesReference, context: ReportContext) -> ResultUIDs:
        return cls(source, context.generation, context.detector, context.model.sha256, context.uid_root)

    def _derive(self, *parts: str) -> str:
        root = (self.source.StudyInstanceUID, self.source.SeriesInstanceUID, str(self.generation))
        return derived_uid(*root, self.detector, self.sha256, *parts, uid_root=self.uid_root)

    def series(self, document: str) -> str:
        """Series Instance UID of one kind of document ("sc", "sr", "sr-regions", ...)."""
        return self._derive("series", document)

    def instance(self, document: str, index: int = 0) -> str:
        """SOP Instance UID; ``index``: the plane, for objects that exist once per plane."""
        return self._derive("instance", document, str(index))

    def tracking(self, tracking_id: str) -> str:
        """Tracking UID (112040, DCM) of a finding: the same in every object that speaks of it."""
        return self._derive("tracking", tracking_id)


def device_uid(context: ReportContext) -> str:
    """Device UID (0018,1002) of this detector with these weights on this node."""
    parts = (context.ae_title, context.detector, context.detector_version, context.model.sha256)
    return derived_uid("device", *parts, uid_root=context.uid_root)
