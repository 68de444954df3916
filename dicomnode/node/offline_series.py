"""The Series of a folder of DICOM files, loaded as the node would load them, without a node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.detect.reader import Reader
from dicomnode.detect.volume_terms import SourceFile
from dicomnode.detectors.contract import Detector, Volume
from dicomnode.dicom.header import ROUTING_KEYWORDS, read_header
from dicomnode.dicom.references import InstanceReference, SeriesReference
from dicomnode.dicom.summary import Header, summarise
from dicomnode.errors import ConfigError, DicomNodeError, Permanent


@dataclass(slots=True)
class _Group:
    patient: str
    headers: list[Header] = field(default_factory=list)
    sources: list[SourceFile] = field(default_factory=list)


@dataclass(slots=True)
class SeriesFolder:
    """Every Series of ``root``. ``left_out``: after reading, why Series and files were not used → how many."""

    root: Path
    detector: Detector
    reader: Reader = field(default_factory=Reader)
    left_out: dict[str, int] = field(default_factory=dict)

    def volumes(self) -> Iterator[tuple[str, Volume]]:
        """(Patient ID, or Study Instance UID without one, and Volume) of each Series that the detector accepts.

        Raises ConfigError when the folder holds no DICOM file.
        """
        groups = self._groups()
        if not groups:
            raise ConfigError("the folder holds neither labels.csv nor DICOM files")
        for reference, group in groups.items():
            summary = summarise(reference, group.headers)
            acceptance = self.detector.accepts(summary)
            if not acceptance.accepted:
                self._leave(acceptance.reason)
                continue
            try:
                yield group.patient, self.reader.load(summary, group.sources).volume
            except Permanent as error:
                self._leave(str(error))

    def _groups(self) -> dict[SeriesReference, _Group]:
        groups: dict[SeriesReference, _Group] = {}
        keywords = ROUTING_KEYWORDS | {"SOPClassUID", "SOPInstanceUID", "PatientID"}
        for path in sorted(item for item in self.root.rglob("*") if item.is_file()):
            try:
                header = read_header(path, keywords)
                uids = [str(header[key][0]) for key in
                        ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")]  # fmt: skip
                instance = InstanceReference(*uids)
            except (DicomNodeError, OSError, KeyError, ValueError):
                self._leave("files that are no DICOM image")
                continue
            patient = str(header.get("PatientID", ("",))[0]) or instance.StudyInstanceUID
            group = groups.setdefault(instance.series, _Group(patient))
            group.headers.append(header)
            group.sources.append(SourceFile(instance, path))
        return groups

    def _leave(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
