"""A painter that makes one page of a PDF document, with reportlab: real text, embedded typefaces, no clock."""

from __future__ import annotations

from datetime import datetime
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfgen.canvas import Canvas

from dicomnode.report.page_pen import Colour
from dicomnode.report.page_typeface import BOLD, REGULAR, outlines

Bytes = npt.NDArray[np.uint8]
_MOST_PIXELS = 1100


class PdfPage:
    """A page of ``size`` points. ``title`` and ``made`` go into the document's own data; neither names the patient."""

    def __init__(self, size: tuple[float, float], title: str, creator: str, made: datetime) -> None:
        self._height = size[1]
        self._file = BytesIO()
        for name in (REGULAR, BOLD):
            pdfmetrics.registerFont(outlines(name))
        self._canvas = Canvas(
            self._file, pagesize=size, invariant=1, pageCompression=1, pdfVersion=(1, 4), lang="en",
            initialFontName=REGULAR,  # type: ignore[arg-type]  # the stub says float
        )  # fmt: skip
        self._canvas.setTitle(title)
        self._canvas.setAuthor(creator)
        self._canvas.setCreator(creator)
        self._canvas.setSubject("Research use only")
        self._canvas.setDateFormatter(lambda *_: _pdf_date(made))

    def finished(self) -> bytes:
        """The document; nothing can be drawn any more."""
        self._canvas.showPage()
        self._canvas.save()
        return self._file.getvalue()

    def width(self, text: str, size: float, *, bold: bool) -> float:
        return float(pdfmetrics.stringWidth(text, BOLD if bold else REGULAR, size))

    def text(self, at: tuple[float, float], text: str, size: float, colour: Colour, *, bold: bool) -> None:
        self._canvas.setFont(BOLD if bold else REGULAR, size)
        self._canvas.setFillColorRGB(*(value / 255 for value in colour))
        self._canvas.drawString(at[0], self._height - at[1], text)

    def area(self, box: tuple[float, float, float, float], colour: Colour) -> None:
        left, top, right, bottom = box
        self._canvas.setFillColorRGB(*(value / 255 for value in colour))
        self._canvas.rect(left, self._height - bottom, right - left, bottom - top, stroke=0, fill=1)

    def line(self, ends: tuple[float, float, float, float], colour: Colour, thickness: float) -> None:
        self._canvas.setStrokeColorRGB(*(value / 255 for value in colour))
        self._canvas.setLineWidth(thickness)
        self._canvas.line(ends[0], self._height - ends[1], ends[2], self._height - ends[3])

    def image(self, box: tuple[float, float, float, float], pixels: Bytes) -> None:
        left, top, right, bottom = box
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        picture.thumbnail((_MOST_PIXELS, _MOST_PIXELS), Image.Resampling.LANCZOS)
        self._canvas.drawImage(
            ImageReader(picture), left, self._height - bottom, width=right - left, height=bottom - top
        )


def _pdf_date(when: datetime) -> str:
    """A date as PDF writes it (ISO 32000-1 7.9.4)."""
    offset = when.strftime("%z")
    return f"D:{when:%Y%m%d%H%M%S}{offset[:3]}'{offset[3:5]}'"
