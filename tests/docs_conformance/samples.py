"""Results made of synthetic sources, of every kind: what the tables of created Instances are read from."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicomnode.detectors.contract import NearestHealthy, Outcome
from dicomnode.dicom.references import InstanceReference
from dicomnode.dicom.sop_classes import COMPREHENSIVE_3D_SR
from dicomnode.report import DerivedObject, build_results, codes
from dicomnode.report.envelope import TYPE_2
from dicomnode.report.status import StatusStatement, status_results
from tests.report_fixtures import context, findings, no_findings, source

_OWN_GRID = (512, 512)
_ENLARGED = (64, 64)
_OPTIONAL = ("StudyDescription", "InstitutionName", "BodyPartExamined", "SliceThickness")


@functools.cache
def samples() -> tuple[DerivedObject, ...]:
    """One source that states everything, some that state little, with and without findings, and status pages."""
    return (*_rich(), *_sparse(), *_statuses())


def of_kind(*kinds: str) -> list[Dataset]:
    """The samples of these kinds."""
    return [one.dataset for one in samples() if one.kind in kinds]


def _rich() -> Iterator[DerivedObject]:
    """Results of a source that states everything, superseding earlier ones of an incomplete Series."""
    item, code = Dataset(), codes.code_item(Code("CTH", "99LOCAL", "Head"))
    item.AccessionNumber, item.RequestedProcedureID, item.RequestedProcedureCodeSequence = "A", "R", [code]
    issuer, other = Dataset(), Dataset()
    issuer.LocalNamespaceEntityID = issuer.UniversalEntityID = "X"
    other.PatientID, other.IssuerOfPatientID = "P2", "Y"
    stated = {
        "RequestAttributesSequence": [item],
        "IssuerOfPatientID": "X",
        "IssuerOfPatientIDQualifiersSequence": [issuer],
        "OtherPatientIDsSequence": [other],
        "IssuerOfAccessionNumberSequence": [issuer],
        "TimezoneOffsetFromUTC": "+0100",
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "10",
        "LossyImageCompressionMethod": "ISO_10918_1",
        "PixelSpacingCalibrationType": "GEOMETRY",
        "PixelSpacingCalibrationDescription": "table",
        "PositionReferenceIndicator": "OM",
        "BodyPartExamined": "KNEE",
        "Laterality": "R",
    }
    volume, headers = source("CT", 2, _OWN_GRID, **stated)
    before = InstanceReference("1.2.3.4", "1.2.3.4.8", COMPREHENSIVE_3D_SR, "1.2.3.4.8.1")
    again = context(generation=2, supersedes=(before,), replaces_earlier=True, incomplete=True)
    result = findings(volume, ((0,),))
    nearest = NearestHealthy(0, (16.0, 16.0, 40.0, 40.0), 1, (16.0, 16.0, 40.0, 40.0), 1.5, 0.5, 100)
    explained = replace(result, findings=(replace(result.findings[0], nearest=nearest),))
    yield from build_results(volume, headers, explained, again)


def _sparse() -> Iterator[DerivedObject]:
    """Results of sources that state little."""
    poor = dict.fromkeys(TYPE_2)
    for modality in ("CT", "DX"):
        keywords = [one for one in _OPTIONAL if modality == "CT" or one != "SliceThickness"]
        extra = {} if modality == "CT" else {"ImagerPixelSpacing": ["0.2", "0.3"]}
        volume, headers = source(modality, 1, _ENLARGED, **poor, **dict.fromkeys(keywords), **extra)
        for result in (no_findings(volume), findings(volume, ((0,),))):
            yield from build_results(volume, headers, result, context())


def _statuses() -> Iterator[DerivedObject]:
    volume, headers = source("CT", 2)
    sources = [plane.source for plane in volume.planes]
    yield from status_results(sources, headers, StatusStatement(Outcome.NOT_ANALYSED, "a gap", "volume", 2), context())
