"""Results as DICOM objects: findings + source headers + clock + UIDs -> Datasets. Pure: no I/O, no now, no random."""

from dicomnode.report.build import KINDS, build_results, iter_results
from dicomnode.report.context import BANNER, DerivedObject, ReportContext, ResultUIDs, device_uid
from dicomnode.report.encode import Encoder
from dicomnode.report.part10 import to_bytes, to_parts

__all__ = [
    "BANNER",
    "KINDS",
    "DerivedObject",
    "Encoder",
    "ReportContext",
    "ResultUIDs",
    "build_results",
    "device_uid",
    "iter_results",
    "to_bytes",
    "to_parts",
]
