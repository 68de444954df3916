"""Where the values of the attributes of segmentations, maps, presentation states, PDF and key objects come from."""

from __future__ import annotations

from dicomnode.report.montage import LONG_SERIES
from tests.docs_conformance.attributes import AUTO, CAPTURE, COPY, DOCUMENT, FIXED, Origins


def _of(table: Origins, *keywords: str) -> Origins:
    return {keyword: table[keyword] for keyword in keywords}


SERIES = _of(CAPTURE, "RequestAttributesSequence", "BodyPartExamined", "Laterality")
"""What an image Series may say of the source."""

_LOSSY = _of(CAPTURE, "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

MULTI_FRAME: Origins = {
    "SOPClassUID": (FIXED, "Multi-frame True Color Secondary Capture Image Storage"),
    "InstanceNumber": (FIXED, "1"),
    "NumberOfFrames": (AUTO, f"one per source image, and a montage first where there are more than {LONG_SERIES}"),
    "FrameIncrementPointer": (AUTO, "to the functional groups where frames have a place, else to Page Number Vector"),
    "SharedFunctionalGroupsSequence": (COPY, "Pixel Measures, Plane Orientation of the source, on an unchanged grid"),
    "PerFrameFunctionalGroupsSequence": (COPY, "Plane Position of the source, on an unchanged grid"),
}

_FRAMES: Origins = {
    **_LOSSY,
    "InstanceNumber": (FIXED, "1"),
    "FrameOfReferenceUID": (COPY, "source; derived where a map needs one and the source has none"),
    "PositionReferenceIndicator": (COPY, "source, with Frame of Reference UID"),
    "PatientOrientation": (COPY, "source, where it has no place in space"),
    "ReferencedSeriesSequence": (AUTO, "the source Series and its Instances"),
    "DimensionOrganizationSequence": (AUTO, "derived UID"),
    "DimensionIndexSequence": (AUTO, "segment and place, or place alone"),
    "SamplesPerPixel": (FIXED, "1"),
    "PhotometricInterpretation": (FIXED, "`MONOCHROME2`"),
    "NumberOfFrames": (AUTO, "frames that are not empty"),
    "Rows": (AUTO, "of the source"),
    "Columns": (AUTO, "of the source"),
    "BurnedInAnnotation": (FIXED, "`NO`"),
    "ContentDescription": (AUTO, "what it shows, of which detector, `results.banner`"),
    "ContentCreatorName": (AUTO, "`dicomnode^` and the detector"),
    "PresentationLUTShape": (FIXED, "`IDENTITY`"),
    "SharedFunctionalGroupsSequence": (
        AUTO,
        "Pixel Measures, Plane Orientation of the source, what frames share",
    ),
    "PerFrameFunctionalGroupsSequence": (AUTO, "Frame Content, Plane Position of the source, Derivation Image"),
}

SEGMENTATION: Origins = {
    **_FRAMES,
    "SOPClassUID": (FIXED, "Segmentation Storage"),
    "Modality": (FIXED, "`SEG`"),
    "ImageType": (FIXED, "`DERIVED\\PRIMARY`"),
    "BitsAllocated": (FIXED, "1"),
    "BitsStored": (FIXED, "1"),
    "HighBit": (FIXED, "0"),
    "PixelRepresentation": (FIXED, "0"),
    "SegmentationType": (FIXED, "`BINARY`"),
    "SegmentSequence": (
        AUTO,
        "one per finding: label, Tracking ID and UID, algorithm identification, display colour; `AUTOMATIC`",
    ),
    "SegmentsOverlap": (AUTO, "whether two segments share a pixel"),
    "ContentLabel": (FIXED, "`AI_FINDINGS`"),
    "PixelData": (AUTO, "the regions of each finding"),
}

PARAMETRIC_MAP: Origins = {
    **_FRAMES,
    "SOPClassUID": (FIXED, "Parametric Map Storage"),
    "Modality": (FIXED, "`OT`"),
    "ImageType": (AUTO, "`DERIVED\\PRIMARY`, `VOLUME` or `STATIC`, `QUANTITY`"),
    "CodingSchemeIdentificationSequence": DOCUMENT["CodingSchemeIdentificationSequence"],
    "PixelPresentation": (FIXED, "`MONOCHROME`"),
    "ContentQualification": (FIXED, "`RESEARCH`"),
    "BitsAllocated": (FIXED, "32"),
    "RecognizableVisualFeatures": CAPTURE["RecognizableVisualFeatures"],
    "AcquisitionContextSequence": (FIXED, "empty"),
    "ContentLabel": (FIXED, "`AI_HEAT`"),
    "FloatPixelData": (AUTO, "heat, 0 to 1, of each source pixel"),
}

PRESENTATION_STATE: Origins = {
    "SOPClassUID": (FIXED, "Grayscale Softcopy Presentation State Storage"),
    "Modality": (FIXED, "`PR`"),
    "InstanceNumber": (FIXED, "1"),
    "ReferencedSeriesSequence": (AUTO, "the source Series and its Instances"),
    "SoftcopyVOILUTSequence": (COPY, "the window of the source, or the one that the overlay has"),
    "GraphicAnnotationSequence": (AUTO, "outlines in PIXEL units with Tracking ID and UID, text, the research notice"),
    "DisplayedAreaSelectionSequence": (AUTO, "the whole source image, scaled to fit"),
    "GraphicLayerSequence": (FIXED, "outlines; notice"),
    "ContentLabel": (FIXED, "`AI FINDINGS`"),
    "ContentDescription": (AUTO, "how many regions are outlined"),
    "ContentCreatorName": (FIXED, "empty: no person"),
    "PresentationCreationDate": (AUTO, "start of the analysis"),
    "PresentationCreationTime": (AUTO, "start of the analysis"),
    "PresentationLUTShape": (FIXED, "`IDENTITY`"),
}

PDF: Origins = {
    "SOPClassUID": (FIXED, "Encapsulated PDF Storage"),
    "Modality": (FIXED, "`DOC`"),
    "InstanceNumber": (FIXED, "1"),
    "RequestAttributesSequence": CAPTURE["RequestAttributesSequence"],
    "AcquisitionDateTime": (COPY, "source, from its date and time where it states no such value; empty without"),
    "ConversionType": (FIXED, "`WSD`"),
    "BurnedInAnnotation": (FIXED, "`YES`"),
    "RecognizableVisualFeatures": CAPTURE["RecognizableVisualFeatures"],
    "ConceptNameCodeSequence": (FIXED, "(18748-4, LN, Diagnostic imaging study)"),
    "VerificationFlag": (FIXED, "`UNVERIFIED`: no person has looked"),
    "DocumentTitle": (AUTO, 'outcome and "(RESEARCH)"'),
    "SourceInstanceSequence": (AUTO, "the source Instances"),
    "MIMETypeOfEncapsulatedDocument": (FIXED, "`application/pdf`"),
    "EncapsulatedDocument": (AUTO, "one page: outcome, figures, pictures, model; `results.banner`"),
    "EncapsulatedDocumentLength": (AUTO, "in bytes, without padding"),
}

KEY_OBJECTS: Origins = {
    "SOPClassUID": (FIXED, "Key Object Selection Document Storage"),
    "Modality": (FIXED, "`KO`"),
    "InstanceNumber": (FIXED, "1"),
    "ConceptNameCodeSequence": (FIXED, "(113000, DCM, Of Interest)"),
    "ContentTemplateSequence": (FIXED, "`DCMR`, `2010`"),
    **_of(
        DOCUMENT,
        "ReferencedPerformedProcedureStepSequence",
        "ReferencedRequestSequence",
        "CurrentRequestedProcedureEvidenceSequence",
        "ValueType",
        "ContinuityOfContent",
        "ContentSequence",
    ),
}
