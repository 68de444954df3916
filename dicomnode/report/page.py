"""The one-page report as a Secondary Capture, for a PACS that shows nothing else (PS3.3 A.8.1).

It bears the patient's name, ID and birth date in its pixels, as a report page in a radiology department does, and
says so by Burned In Annotation YES.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.detectors.contract import DetectionResult, Volume
from dicomnode.report import colours
from dicomnode.report.context import ReportContext
from dicomnode.report.envelope import envelope
from dicomnode.report.legend import notices
from dicomnode.report.page_canvas import PixelPage
from dicomnode.report.page_content import PageContent, result_content
from dicomnode.report.page_layout import SCREEN, lying
from dicomnode.report.page_pen import Bytes, Palette, Pen
from dicomnode.report.page_pictures import Gallery, gallery
from dicomnode.report.secondary_capture import (
    add_capture,
    add_derivation,
    add_pixels,
    add_series,
    derivation_text,
    outcomes,
    window_text,
)
from dicomnode.report.window import windows_of

_DARK = Palette(
    paper=(0, 0, 0),
    tint=(30, 30, 34),
    text=colours.TEXT,
    dim=colours.DIM_TEXT,
    rule=colours.RULE,
    alarm=colours.FINDINGS,
    notice=colours.NOTICE,
    banner=colours.BANNER,
)
_PIXELS_PER_POINT = 2.0
_BODY = 8.0


def pages(
    volume: Volume, headers: Sequence[Dataset], result: DetectionResult, context: ReportContext
) -> Iterator[Dataset]:
    """The page about one result, 1600 x 1200 pixels."""
    content = result_content(volume, headers, result, context)
    dataset = envelope("page", headers, volume.planes[0].source.series, context)
    add_series(dataset, SecondaryCaptureImageStorage, "report", headers, headers[0], context)
    add_capture(dataset, headers, (), ("report page", outcomes(result), *notices(result, context)), context)
    grey = window_text(windows_of(volume, headers))
    text = "Report page with reduced overlay pictures. " + derivation_text(grey, 1, result.calibration, context)
    add_derivation(dataset, volume.planes, headers, text[:1024], resampled=True, in_place=False)
    add_page(dataset, content, gallery(volume, headers, result, context))
    yield dataset


def add_page(dataset: Dataset, content: PageContent, pictures: Gallery | None) -> None:
    """Draw the page and make it the pixels of ``dataset``."""
    pixels = page_pixels(content, pictures)
    rows, columns = pixels.shape[:2]
    add_pixels(dataset, rows, columns, np.ascontiguousarray(pixels).tobytes())


def page_pixels(content: PageContent, pictures: Gallery | None) -> Bytes:
    """The page for a monitor, shape (1200, 1600, 3), uint8, RGB, light on black."""
    page = PixelPage(SCREEN, _PIXELS_PER_POINT, _DARK.paper)
    lying(Pen(page, _DARK, _BODY), content, pictures)
    return page.pixels
