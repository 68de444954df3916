"""Encapsulated PDF, the one-page report (PS3.3 A.45.1).

Its text and the patient's identification can be searched and copied; the document's own data name no patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from dicomnode.detectors.contract import DetectionResult, Volume
from dicomnode.dicom.references import InstanceReference
from dicomnode.report import codes
from dicomnode.report.anatomy import recognisable
from dicomnode.report.context import MANUFACTURER, ReportContext
from dicomnode.report.envelope import clock, envelope, series_description
from dicomnode.report.evidence import instance_item, sources
from dicomnode.report.page_content import PageContent, result_content
from dicomnode.report.page_layout import A4, upright
from dicomnode.report.page_patient import date_time
from dicomnode.report.page_pen import Palette, Pen
from dicomnode.report.page_pictures import Gallery, gallery
from dicomnode.report.pdf_canvas import PdfPage
from dicomnode.report.transcribe import copied

_PAPER = Palette(
    paper=(255, 255, 255),
    tint=(240, 242, 245),
    text=(20, 22, 26),
    dim=(92, 96, 104),
    rule=(170, 174, 180),
    alarm=(178, 64, 0),
    notice=(168, 30, 20),
    banner=(168, 30, 20),
)
_BODY = 8.0


def pdfs(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Iterator[Dataset]:
    """The report about one result, one A4 page."""
    content = result_content(volume, headers, result, context)
    dataset = envelope("pdf", headers, volume.planes[0].source.series, context)
    add_document(dataset, content, gallery(volume, headers, result, context), headers, context)
    add_sources(dataset, sources(volume.planes))
    dataset.RecognizableVisualFeatures = recognisable(headers[0])
    yield dataset


def pdf_bytes(content: PageContent, pictures: Gallery | None, made: datetime) -> bytes:
    """The document: one A4 page, typefaces embedded; the same content gives the same bytes."""
    page = PdfPage(A4, content.title, MANUFACTURER, made)
    upright(Pen(page, _PAPER, _BODY), content, pictures)
    return page.finished()


def add_document(
    dataset: Dataset,
    content: PageContent,
    pictures: Gallery | None,
    headers: Sequence[Dataset],
    context: ReportContext,
    what: str = "report",
) -> None:
    """Encapsulated Document Series, SC Equipment, Encapsulated Document (PS3.3 C.24.1, C.8.6.1, C.24.2).

    ``what``: for the Series Description. A document Series has no Laterality.
    """
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.Modality = "DOC"
    dataset.SeriesDescription = series_description(what, headers[0], context)
    dataset.update(copied(headers[0], ("RequestAttributesSequence",)))
    dataset.ConversionType = "WSD"
    dataset.AcquisitionDateTime = date_time(headers[0])
    dataset.BurnedInAnnotation = "YES"
    dataset.RecognizableVisualFeatures = "NO"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.DocumentTitle = f"{content.title}: {content.headline} (RESEARCH)"
    dataset.ConceptNameCodeSequence = [codes.code_item(codes.IMAGING_STUDY)]
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document = pdf_bytes(content, pictures, clock(headers[0], context))
    dataset.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    dataset.EncapsulatedDocumentLength = len(document)


def add_sources(dataset: Dataset, used: Iterable[InstanceReference]) -> None:
    """Source Instance Sequence: the Instances that the document was made from."""
    dataset.SourceInstanceSequence = [instance_item(source) for source in used]
