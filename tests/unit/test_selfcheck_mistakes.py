"""Each naive mistake that the guide to result objects names is caught, with the attribute that it is made in.

The numbers are sections of that guide; "A" ones are the rows of its IHE AIR checklist.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, ImplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from dicomnode.report.envelope import IDENTITY
from tests.selfcheck_cases import GONE, coded, faults_of, good, item_at, put, request, spoil, without

MODEL_4 = f"2.25.{uuid.UUID('9d5f1e2c-3b4a-4c6d-8e7f-0a1b2c3d4e5f').int}"
PYDICOM = generate_uid(entropy_srcs=["a mistake"])
EQUIPMENT = "ContributingEquipmentSequence[0]"
SEGMENT = "SegmentSequence[0]"
SHARED = "SharedFunctionalGroupsSequence[0]"
PER_FRAME = "PerFrameFunctionalGroupsSequence[0]"
OUTLINE = "GraphicAnnotationSequence[-1].GraphicObjectSequence[0]"
MAPPING = f"{SHARED}.RealWorldValueMappingSequence[0]"
EVIDENCE = "CurrentRequestedProcedureEvidenceSequence"
OUTSIDE_CID_100 = [coded("24627-2", "LN")]

VALUES: list[tuple[str, str, str, object]] = [
    # 2: IHE AIR
    ("A1 class", "sr", "SOPClassUID", "1.2.840.10008.5.1.4.1.1.88.33"),
    ("A1 template", "sr", "ContentTemplateSequence", GONE),
    ("A1 template", "sr", "ContentTemplateSequence[0].TemplateIdentifier", "2000"),
    ("A3 equipment", "sc", "ContributingEquipmentSequence", GONE),
    ("A3 device", "pm", f"{EQUIPMENT}.DeviceUID", GONE),
    ("A3 versions", "sr", f"{EQUIPMENT}.SoftwareVersions", GONE),
    ("A3 model", "seg", f"{EQUIPMENT}.ManufacturerModelName", GONE),
    ("A3 manufacturer", "ko", f"{EQUIPMENT}.Manufacturer", GONE),
    ("A4 weights", "gsps", f"{EQUIPMENT}.DeviceUID", "1.2.3.4"),
    ("A5 now", "sr", "ContentTime", "235959"),
    ("A5 now", "seg", "ContentDate", "20991231"),
    ("A8 algorithm", "seg", f"{SEGMENT}.SegmentationAlgorithmIdentificationSequence", GONE),
    ("A8 tracking", "seg", f"{SEGMENT}.TrackingID", GONE),
    ("A8 tracking", "seg", f"{SEGMENT}.TrackingUID", GONE),
    ("A7 same pair", "seg", f"{SEGMENT}.TrackingUID", MODEL_4),
    ("A7 same pair", "gsps", f"{OUTLINE}.TrackingUID", "1.2.3.4"),
    ("A7 tracking", "gsps", f"{OUTLINE}.TrackingID", GONE),
    ("A11 evidence", "sr", EVIDENCE, GONE),
    ("A11 evidence", "sr", f"{EVIDENCE}[0].ReferencedSeriesSequence[0].ReferencedSOPSequence", []),
    ("A13 Study", "sc", "StudyInstanceUID", "1.2.3.5"),
    ("A13 new Series", "sr", "SeriesInstanceUID", "1.2.3.4.5"),
    ("A15 flag", "sr", "CompletionFlag", "PARTIAL"),
    ("A15 flag", "sr", "VerificationFlag", "VERIFIED"),
    ("A15 flag", "sr-regions", "PreliminaryFlag", "FINAL"),
    ("A16 query", "sr", "ContentDate", GONE),
    ("A16 query", "sr", "ConceptNameCodeSequence", GONE),
    ("A16 query", "sr", "SeriesDescription", GONE),
    ("A16 query", "sr", "Manufacturer", GONE),
    # 3: every object
    ("3 Study again", "ko", "SeriesInstanceUID", "1.2.3.4.5"),
    ("3 requests", "sc", "RequestAttributesSequence", GONE),
    ("3 requests", "seg", "RequestAttributesSequence", []),
    ("3 requests", "sr", "ReferencedRequestSequence", GONE),
    ("3 requests", "ko", "ReferencedRequestSequence", GONE),
    ("3 number", "sc", "SeriesNumber", 2),
    ("3 number", "sr-volume", "SeriesNumber", 9002),
    ("3 description", "sc", "SeriesDescription", "AI overlay"),
    ("3 description", "pdf", "SeriesDescription", "x" * 60 + " (RESEARCH)"),
    ("3 character set", "sr", "SpecificCharacterSet", "ISO_IR 100"),
    ("3 character set", "sc", "SpecificCharacterSet", GONE),
    ("3 random", "sc", "SOPInstanceUID", MODEL_4),
    ("3 random", "sr", "SOPInstanceUID", PYDICOM),
    ("3 random", "pm", "SeriesInstanceUID", MODEL_4),
    ("3 class", "sc", "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"),
    ("3 empty sequence", "sc", "RequestAttributesSequence[0].ReferencedStudySequence", []),
    ("3 side", "sc", "Laterality", GONE),
    ("3 side", "seg", "Laterality", "R"),
    ("3 side", "mf-sc", "Laterality", GONE),
    ("3 side", "sr", "Laterality", "L"),
    ("3 side", "ko", "Laterality", "L"),
    ("3 side", "pdf", "Laterality", "L"),
    # 4: Secondary Capture
    ("4 SC syntax", "sc", "file_meta.TransferSyntaxUID", ImplicitVRLittleEndian),
    ("4 SC syntax", "sc", "file_meta.TransferSyntaxUID", JPEGBaseline8Bit),
    ("4 SC syntax", "sc", "file_meta.TransferSyntaxUID", JPEG2000),
    ("4 SC grey", "sc", "PhotometricInterpretation", "MONOCHROME2"),
    ("4 SC planes", "sc", "PlanarConfiguration", 1),
    ("4 SC planes", "sc", "PlanarConfiguration", GONE),
    ("4 SC bits", "sc", "BitsStored", 12),
    ("4 SC length", "sc", "PixelData", b"\0" * 10),
    ("4 SC modality", "sc", "Modality", "CT"),
    ("4 SC type", "sc", "ImageType", ["ORIGINAL", "PRIMARY"]),
    ("4 SC conversion", "sc", "ConversionType", GONE),
    ("4 SC burned in", "sc", "BurnedInAnnotation", "NO"),
    ("4 SC face", "sc", "RecognizableVisualFeatures", GONE),
    ("4 SC derivation", "sc", "DerivationDescription", GONE),
    ("4 SC derivation", "sc", "DerivationCodeSequence", GONE),
    ("4 SC source", "sc", "SourceImageSequence", GONE),
    ("4 SC source", "sc", "SourceImageSequence[0].PurposeOfReferenceCodeSequence", [coded("113130", "DCM")]),
    ("4 SC source", "sc", "SourceImageSequence[0].SpatialLocationsPreserved", GONE),
    ("4 lossy", "sc", "LossyImageCompression", "00"),
    ("4 lossy", "seg", "LossyImageCompression", "00"),
    ("4 lossy", "sc", "LossyImageCompressionRatio", GONE),
    ("4 lossy", "sc", "LossyImageCompressionMethod", GONE),
    ("4 orientation", "sc", "PatientOrientation", GONE),
    ("4 orientation", "mf-sc", "PatientOrientation", GONE),
    ("4 orientation", "page", "PatientOrientation", GONE),
    ("4 orientation", "sc", "PatientOrientation", ["left", "foot"]),
    ("4 calibration", "sc", "PixelSpacingCalibrationType", GONE),
    ("4 calibration", "sc", "PixelSpacingCalibrationDescription", GONE),
    ("4 spacing", "sc", "PixelSpacing", ["0.25", "0.25"]),
    ("4 scanned", "sc", "NominalScannedPixelSpacing", ["0.2", "0.2"]),
    ("4 aspect", "sc", "PixelAspectRatio", [1, 2]),
    ("4 other frame", "sc", "FrameOfReferenceUID", "1.2.3.4.99"),
    ("4 rescale", "sc", "RescaleSlope", "1"),
    ("4 rescale", "sc", "RescaleIntercept", "-1024"),
    ("4 window", "sc", "WindowCenter", "40"),
    ("4 LUT", "sc", "PresentationLUTShape", "IDENTITY"),
    ("4 banner", "sc", "ImageComments", "no findings"),
    ("4 banner", "page", "ImageComments", GONE),
    # 4: multi-frame
    ("4 MF class", "mf-sc", "SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"),
    ("4 MF frames", "mf-sc", "NumberOfFrames", GONE),
    ("4 MF frames", "mf-sc", "NumberOfFrames", 7),
    ("4 MF pointer", "mf-sc", "FrameIncrementPointer", GONE),
    ("4 MF pointer", "mf-sc", "FrameIncrementPointer", 0x00181063),
    ("4 MF group", "mf-sc", f"{PER_FRAME}.FrameContentSequence", [Dataset()]),
    # 4: SR
    ("4 SR scheme", "sr", "CodingSchemeIdentificationSequence", GONE),
    ("4 SR code", "sr", "ConceptNameCodeSequence[0].CodeMeaning", ""),
    # 4: SEG
    ("4 SEG fractional", "seg", "SegmentationType", "FRACTIONAL"),
    ("4 SEG labels", "seg", "SegmentationType", "LABELMAP"),
    ("4 SEG manual", "seg", f"{SEGMENT}.SegmentAlgorithmType", "MANUAL"),
    ("4 SEG name", "seg", f"{SEGMENT}.SegmentAlgorithmName", GONE),
    ("4 SEG colour", "seg", f"{SEGMENT}.RecommendedDisplayCIELabValue", GONE),
    ("4 SEG series", "seg", "ReferencedSeriesSequence", GONE),
    ("4 SEG number", "seg", f"{SEGMENT}.SegmentNumber", 2),
    ("4 SEG segment", "seg", f"{PER_FRAME}.SegmentIdentificationSequence[0].ReferencedSegmentNumber", 9),
    ("4 SEG group", "seg", f"{PER_FRAME}.PlanePositionSequence", GONE),
    ("4 SEG derivation", "seg", f"{PER_FRAME}.DerivationImageSequence", GONE),
    ("4 SEG indices", "seg", f"{PER_FRAME}.FrameContentSequence[0].DimensionIndexValues", GONE),
    ("4 SEG notice", "seg", "ContentDescription", "findings"),
    # 4: PM
    ("4 PM mapping", "pm", f"{SHARED}.RealWorldValueMappingSequence", GONE),
    ("4 PM slope", "pm", f"{MAPPING}.RealWorldValueSlope", 2.0),
    ("4 PM range", "pm", f"{MAPPING}.DoubleFloatRealWorldValueLastValueMapped", 255.0),
    ("4 PM quantity", "pm", f"{MAPPING}.QuantityDefinitionSequence", GONE),
    ("4 PM window", "pm", f"{SHARED}.FrameVOILUTSequence[0].WindowWidth", "80"),
    ("4 PM pixels", "pm", "FloatPixelData", GONE),
    ("4 PM bits", "pm", "BitsAllocated", 16),
    ("4 PM qualification", "pm", "ContentQualification", "PRODUCT"),
    # 4: KO
    ("4 KO title", "ko", "ConceptNameCodeSequence", [coded("113001", "DCM")]),
    ("4 KO evidence", "ko", EVIDENCE, GONE),
    # 4: GSPS
    ("4 PR units", "gsps", f"{OUTLINE}.GraphicAnnotationUnits", "DISPLAY"),
    ("4 PR type", "gsps", f"{OUTLINE}.GraphicType", "POINT"),
    ("4 PR points", "gsps", f"{OUTLINE}.NumberOfGraphicPoints", 3),
    ("4 PR notice", "gsps", "GraphicAnnotationSequence[0].TextObjectSequence[0].UnformattedTextValue", "score 0.9"),
    ("4 PR notice", "gsps", "GraphicAnnotationSequence[0].TextObjectSequence[0].BoundingBoxAnnotationUnits", "PIXEL"),
    ("4 PR window", "gsps", "SoftcopyVOILUTSequence", GONE),
    ("4 PR rescale", "gsps", "RescaleIntercept", "0"),
    ("4 PR layer", "gsps", "GraphicLayerSequence", GONE),
    ("4 PR area", "gsps", "DisplayedAreaSelectionSequence", GONE),
    ("4 PR LUT", "gsps", "PresentationLUTShape", GONE),
    # 4: PDF
    ("4 PDF conversion", "pdf", "ConversionType", GONE),
    ("4 PDF burned in", "pdf", "BurnedInAnnotation", "NO"),
    ("4 PDF title", "pdf", "DocumentTitle", ""),
    ("4 PDF concept", "pdf", "ConceptNameCodeSequence", []),
    ("4 PDF MIME", "pdf", "MIMETypeOfEncapsulatedDocument", "text/xml"),
    ("4 PDF length", "pdf", "EncapsulatedDocumentLength", GONE),
    ("4 PDF length", "pdf", "EncapsulatedDocumentLength", 12),
    ("4 PDF content", "pdf", "EncapsulatedDocument", b"<xml/> "[:6]),
    ("4 PDF source", "pdf", "SourceInstanceSequence", GONE),
    # 6: what highdicom leaves out or stamps
    ("6.1 conversion", "sc", "ConversionType", "DI"),
    ("6.1 source", "mf-sc", "SourceImageSequence", GONE),
    ("6.7 type 2", "sr", "PatientBirthDate", GONE),
    ("6.7 type 2", "seg", "StudyID", GONE),
    ("6.7 type 2", "ko", "StudyTime", GONE),
    ("6.7 type 2", "pdf", "AccessionNumber", GONE),
    ("6.8 now", "sc", "InstanceCreationTime", "235959.5"),
    ("6.8 now", "pm", "InstanceCreationDate", "20991231"),
    ("6.8 now", "seg", f"{EQUIPMENT}.ContributionDateTime", "20991231235959"),
    ("6.8 now", "gsps", "PresentationCreationTime", "235959"),
    ("6.8 now", "sr", "SeriesDate", "20991231"),
    ("6.8 now", "sc", "DateOfSecondaryCapture", "20991231"),
    ("6.8 now", "pdf", "AcquisitionDateTime", "20991231235959"),
    ("6.8 random", "seg", "DimensionOrganizationSequence[0].DimensionOrganizationUID", PYDICOM),
    ("6.8 random", "pm", "DimensionOrganizationSequence[0].DimensionOrganizationUID", MODEL_4),
    # 7: what validators said of copied sources
    ("7 positioner", "sc", "PositionerType", ""),
    ("7 tube", "sc", "KVP", "120"),
    ("7 kernel", "seg", "ConvolutionKernel", "B30"),
    ("7 private", "sr", "StationAETitle", "SCANNER"),
]


@pytest.mark.parametrize(
    ("document", "path", "value"), [row[1:] for row in VALUES], ids=[f"{row[0]}-{row[1]}-{row[2]}" for row in VALUES]
)
def test_selfcheck_catches_a_wrong_or_missing_attribute_by_its_name(document, path, value):
    item, evidence = good(document)
    assert faults_of(item, evidence) == []
    spoil(item.dataset, path, value)
    name = path.rpartition(".")[2]
    assert any(name in fault for fault in faults_of(item, evidence)), name


IDENTIFYING = sorted(set(IDENTITY) - {"IssuerOfPatientIDQualifiersSequence"})


@pytest.mark.parametrize("document", ["sc", "mf-sc", "seg", "pm", "gsps", "ko", "sr", "sr-volume", "pdf", "page"])
@pytest.mark.parametrize("keyword", IDENTIFYING)
def test_selfcheck_catches_identity_that_differs_from_the_source(document, keyword):
    item, evidence = good(document)
    others = {"SQ": [], "DA": "19991231", "TM": "112233", "CS": "M", "SH": "OTHER"}
    put(item.dataset, keyword, others.get(str(item.dataset[keyword].VR), "Other"))
    assert any(fault.startswith(f"{keyword}: differs") for fault in faults_of(item, evidence))


def _no_spacing(dataset: Dataset) -> None:
    dataset.PixelSpacing = ["0.2", "0.2"]


def _moved(dataset: Dataset) -> None:
    dataset.SourceImageSequence[0].SpatialLocationsPreserved = "NO"


def _library_short(dataset: Dataset) -> None:
    group = item_at(dataset, "111028", "126200")
    group.ContentSequence = list(group.ContentSequence)[:-1]


def _procedure(dataset: Dataset) -> None:
    item_at(dataset, "121058").ConceptCodeSequence = OUTSIDE_CID_100


def _normal(dataset: Dataset) -> None:
    item_at(dataset, "126010", "125007", "121071").ConceptCodeSequence = [coded("17621005", "SCT", "Normal")]


def _unit_1(dataset: Dataset) -> None:
    measured = item_at(dataset, "126010", "125007", "ANOMALY_SCORE").MeasuredValueSequence[0]
    measured.MeasurementUnitsCodeSequence = [coded("1", "UCUM", "no units")]


def _open(dataset: Dataset) -> None:
    region = item_at(dataset, "126010", "125007", "111030")
    region.GraphicData = list(region.GraphicData)[:-2]


def _point(dataset: Dataset) -> None:
    item_at(dataset, "126010", "125007", "111030").GraphicType = "POINT"


def _region_in_root(dataset: Dataset) -> None:
    other, _ = good("sr-regions")
    item_at(dataset, "126010").ContentSequence.append(item_at(other.dataset, "126010", "125007"))


def _segment_in_regions(dataset: Dataset) -> None:
    other, _ = good("sr-volume")
    item_at(dataset, "126010", "125007").ContentSequence.append(item_at(other.dataset, "126010", "125007", "121191"))


def _not_editable(dataset: Dataset) -> None:
    number = item_at(dataset, "126010", "125007", "ANOMALY_HEAT")
    number.ContentSequence = [item for item in number.ContentSequence if item.ValueType != "SCOORD"]


def _another_tracking(dataset: Dataset) -> None:
    item_at(dataset, "126010", "125007", "112040").UID = "1.2.3.4"


def _another_algorithm(dataset: Dataset) -> None:
    item_at(dataset, "126010", "125007", "111001").TextValue = "another"


def _another_device(dataset: Dataset) -> None:
    item_at(dataset, "121012").UID = "1.2.3.4"


def _no_relationship(dataset: Dataset) -> None:
    item_at(dataset, "126010", "125007", "112039").RelationshipType = "CONTAINS"


def _flagged(dataset: Dataset) -> Dataset:
    return next(item for item in dataset.ContentSequence if item.ValueType == "IMAGE")


def _named_key_image(dataset: Dataset) -> None:
    _flagged(dataset).ConceptNameCodeSequence = [coded("260753009", "SCT", "Source")]


def _extra_row(dataset: Dataset) -> None:
    item = Dataset()
    item.RelationshipType, item.ValueType, item.TextValue = "CONTAINS", "TEXT", "RESEARCH"
    item.ConceptNameCodeSequence = [coded("121106", "DCM", "Comment")]
    dataset.ContentSequence.append(item)


def _empty_frame(dataset: Dataset) -> None:
    dataset.PixelData = bytes(len(dataset.PixelData))


def _stamped_pdf(dataset: Dataset) -> None:
    data = dataset.EncapsulatedDocument
    start = data.index(b"/CreationDate (D:") + len(b"/CreationDate (D:")
    dataset.EncapsulatedDocument = data[:start] + b"20991231235959" + data[start + 14 :]


def _odd_pdf(dataset: Dataset) -> None:
    dataset.EncapsulatedDocument += b"\n"


def _private(dataset: Dataset) -> None:
    dataset.add_new(0x00091001, "LO", "left over")


def _deep_requests(dataset: Dataset) -> None:
    dataset.RequestAttributesSequence = [request(), request()]


STRUCTURES: list[tuple[str, str, str, Callable[[Dataset], None], str]] = [
    ("4 detector spacing", "sc", "DX", _no_spacing, "PixelSpacing: the source has none"),
    ("4 detector spacing", "mf-sc", "DX", _no_spacing, "PixelSpacing: the source has none"),
    ("4 grid changed", "sc", "CT", _moved, "ImagePositionPatient"),
    ("4 grid changed", "sc", "CT", _moved, "FrameOfReferenceUID"),
    ("4 grid changed", "sc", "CT", _moved, "SliceThickness"),
    ("3 unpaired", "sc", "chest", lambda dataset: put(dataset, "Laterality", ""), "Laterality"),
    ("3 requests", "sc", "CT", _deep_requests, "RequestAttributesSequence"),
    ("3 private", "sc", "CT", _private, "(0009,1001)"),
    ("A2 procedure", "sr", "CT", _procedure, "(121058).ConceptCodeSequence"),
    ("A6 open region", "sr-regions", "CT", _open, "GraphicData"),
    ("A6 point", "sr-regions", "CT", _point, "GraphicType"),
    ("A7 tracking", "sr", "CT", lambda ds: without(ds, "126010", "125007", "112040"), "(112040, DCM)"),
    ("A7 tracking", "sr-regions", "CT", lambda ds: without(ds, "126010", "125007", "112039"), "(112039, DCM)"),
    ("A7 tracking", "sr-regions", "CT", _another_tracking, "Tracking Unique Identifier"),
    ("A7 relationship", "sr", "CT", _no_relationship, "(112039): no row"),
    ("A10 algorithm", "sr", "CT", lambda ds: without(ds, "126010", "125007", "111003"), "(111003, DCM)"),
    ("A10 algorithm", "sr-volume", "CT", lambda ds: without(ds, "126010", "125007", "111001"), "(111001, DCM)"),
    ("A10 measured", "sr", "CT", lambda ds: without(ds, "126010", "125007", "ANOMALY_SCORE", "111003"), "(ANOMALY_"),
    ("A10 another", "sr", "CT", _another_algorithm, "another algorithm"),
    ("A10 device", "sr", "CT", lambda ds: without(ds, "121012"), "(121012, DCM)"),
    ("A10 device", "sr", "CT", lambda ds: without(ds, "121016"), "(121016, DCM)"),
    ("A10 device", "ko", "CT", _another_device, "(121012).UID"),
    ("A11 library", "sr", "CT", lambda ds: without(ds, "111028"), "(111028, DCM)"),
    ("A11 library", "sr-volume", "CT", _library_short, "Image Library"),
    ("A14 score", "sr", "no findings", lambda ds: without(ds, "126010", "125007", "ANOMALY_SCORE"), "ANOMALY_SCORE"),
    ("A14 threshold", "sr", "no findings", lambda ds: without(ds, "126010", "125007", "SCORE_THRESHOLD"), "SCORE_TH"),
    ("A14 normal", "sr", "no findings", _normal, "Present or Absent"),
    ("A14 silence", "sr", "no findings", lambda ds: without(ds, "126010", "125007", "121071"), "(121071, DCM)"),
    ("4 SR notice", "sr", "CT", lambda ds: without(ds, "121106"), "research banner"),
    ("4 SR units", "sr", "CT", _unit_1, "CodeValue"),
    ("4 SR mixed", "sr", "CT", _region_in_root, "(125007).ContentSequence"),
    ("4 SR mixed", "sr-regions", "CT", _segment_in_regions, "(121191): no row"),
    ("6.6 group", "sr", "CT", lambda ds: without(ds, "126010", "125007"), "(125007, DCM)"),
    ("8 editable", "sr-regions", "CT", _not_editable, "first NUM"),
    ("8 label", "sr-regions", "CT", lambda ds: without(ds, "126010", "125007", "121106"), "(121106, DCM)"),
    ("4 SEG empty", "seg", "CT", _empty_frame, "PixelData: frame 1 is empty"),
    ("6.3 key image", "ko", "CT", _named_key_image, "(260753009): no row"),
    ("4 KO row", "ko", "CT", _extra_row, "(121106): no row"),
    ("4 KO notice", "ko", "CT", lambda ds: without(ds, "113012"), "(113012, DCM)"),
    ("4 PDF date", "pdf", "CT", _stamped_pdf, "EncapsulatedDocument"),
    ("4 PDF padding", "pdf", "CT", _odd_pdf, "EncapsulatedDocument"),
]


@pytest.mark.parametrize(
    ("document", "what", "mistake", "said"),
    [row[1:] for row in STRUCTURES],
    ids=[f"{row[0]}-{row[1]}-{n}" for n, row in enumerate(STRUCTURES)],
)
def test_selfcheck_catches_a_wrong_structure_and_says_where(document, what, mistake, said):
    item, evidence = good(document, what)
    assert faults_of(item, evidence) == []
    mistake(item.dataset)
    assert any(said in fault for fault in faults_of(item, evidence)), faults_of(item, evidence)
