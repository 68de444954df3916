"""Coded concepts of the results (PS3.16). Own codes are declared by a Coding Scheme Identification item."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicomnode.detectors.contract import Finding
from dicomnode.report.patterns import element, like

SCHEME = "99DICOMNODE"

PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("2667000", "SCT", "Absent")
ABNORMAL = Code("263654008", "SCT", "Abnormal")
COMMENT = Code("121106", "DCM", "Comment")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
SOURCE_OF_MEASUREMENT = Code("121112", "DCM", "Source of Measurement")
SOURCE_IMAGE = Code("260753009", "SCT", "Source")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
SOURCE_OF_PROCESSING = Code("121322", "DCM", "Source image for image processing operation")
SEGMENTATION = Code("113076", "DCM", "Segmentation")
UNSPECIFIED_CALCULATION = Code("112187", "DCM", "Unspecified method of calculation")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
MORPHOLOGY = Code("49755003", "SCT", "Morphologically Abnormal Structure")
ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
SUM_OF_VOXELS = Code("126030", "DCM", "Sum of segmented voxel method for volume")
VOLUME = Code("118565006", "SCT", "Volume")
AREA = Code("42798000", "SCT", "Area")
SPATIAL_RESAMPLING = Code("113085", "DCM", "Spatial resampling")
SIDES = {"R": Code("24028007", "SCT", "Right"), "L": Code("7771000", "SCT", "Left")}
OF_INTEREST = Code("113000", "DCM", "Of Interest")
KEY_OBJECT_DESCRIPTION = Code("113012", "DCM", "Key Object Description")
IMAGING_STUDY = Code("18748-4", "LN", "Diagnostic imaging study")

ANOMALY_SCORE = Code("ANOMALY_SCORE", SCHEME, "Anomaly score")
ANOMALY_HEAT = Code("ANOMALY_HEAT", SCHEME, "Anomaly heat")
LABEL = Code("LABEL", SCHEME, "Label of the model")
LABEL_SCORE = Code("LABEL_SCORE", SCHEME, "Score of the label")
SCORE_THRESHOLD = Code("SCORE_THRESHOLD", SCHEME, "Anomaly score threshold")
EXPECTED_FPR = Code("EXPECTED_FPR", SCHEME, "Expected false positive rate")
CALIBRATION = Code("CALIBRATION", SCHEME, "Score calibration")
EXTENT = Code("EXTENT", SCHEME, "Extent of finding")
NEAREST = Code("NEAREST_HEALTHY", SCHEME, "Nearest healthy patch")
COMPLETENESS = Code("COMPLETENESS", SCHEME, "Completeness of the analysed series")

SCORE_UNIT = Code("{score}", "UCUM", "score")
PROPORTION = Code("{proportion}", "UCUM", "proportion")
CUBIC_MILLIMETRE = Code("mm3", "UCUM", "cubic millimeter")
SQUARE_MILLIMETRE = Code("mm2", "UCUM", "square millimeter")

_PROCEDURES = {
    "CT": Code("25045-6", "LN", "CT unspecified body region"),
    "MR": Code("25056-3", "LN", "MRI unspecified body region"),
}
_ANY_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")


def finding_type(finding: Finding) -> Code:
    """What ``finding`` is: the code of its label, else Abnormal."""
    concept = finding.concept
    return ABNORMAL if concept is None else Code(concept.value, concept.scheme, concept.meaning)


def procedure_reported(modality: str) -> Code:
    """Procedure Reported (121058, DCM) from CID 100: the imaging procedure, not the algorithm."""
    return _PROCEDURES.get(modality, _ANY_PROCEDURE)


def code_item(code: Code) -> Dataset:
    """A Code Sequence item (PS3.3 section 8.8)."""
    return like(
        None,
        element("CodeValue", "SH", code.value),
        element("CodingSchemeDesignator", "SH", code.scheme_designator),
        element("CodeMeaning", "LO", code.meaning),
    )


def coding_scheme_identification() -> Dataset:
    """Declares the private scheme of this module (PS3.3 C.12.1.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "dicomnode result codes"
    item.CodingSchemeResponsibleOrganization = "dicomnode"
    return item
