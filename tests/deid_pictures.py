"""Objects with and without writing in their pixels, for the tests of de-identification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

import dicomnode.report

CT, US, SC = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.7"
FONT = Path(dicomnode.report.__file__).parent / "fonts" / "DejaVuSansCondensed.ttf"


def written(
    picture: np.ndarray, text: str, at: tuple[int, int], size: int = 16, *, contrast: float = 1.0, smooth: bool = True
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """``picture`` with ``text`` and the box (left, top, right, bottom) that it fills.

    ``contrast``: how far from the grey of the place to the far end of all greys.
    """
    plate = Image.new("L", picture.shape[1::-1], 0)
    pen = ImageDraw.Draw(plate)
    pen.fontmode = "L" if smooth else "1"
    pen.text(at, text, fill=255, font=ImageFont.truetype(str(FONT), size))
    ink = np.asarray(plate) / 255.0
    grey = picture.astype(float)
    low, high, here = grey.min(), grey.max(), float(np.median(grey[ink > 0.3]))
    target = here + contrast * (high - here) if high - here >= here - low else here - contrast * (here - low)
    rows, columns = np.nonzero(ink > 0.3)
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    return np.rint(grey * (1 - ink) + target * ink).astype(picture.dtype), box


def smooth_picture(rows: int = 240, columns: int = 320, top: int = 200) -> np.ndarray:
    """Soft greys without any edge, 8 bits."""
    y, x = np.mgrid[0:rows, 0:columns]
    return (top * 0.5 * (1 + np.sin(x / 47.0) * np.cos(y / 39.0))).astype(np.uint8)


def image(pixels: np.ndarray, sop_class: str = CT, **values: Any) -> FileDataset:
    """An uncompressed object. ``pixels``: (rows, columns), or (frames, rows, columns), with 3 samples behind if RGB."""
    colours = pixels.ndim > 2 and pixels.shape[-1] == 3
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    ds = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientName, ds.PatientID = "Sample^Quentin", "QX-88321"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "Acme Medical", "Looker 3"
    spatial = pixels.shape[:-1] if colours else pixels.shape
    ds.Rows, ds.Columns = spatial[-2:]
    if len(spatial) == 3:
        ds.NumberOfFrames = spatial[0]
    ds.SamplesPerPixel = 3 if colours else 1
    ds.PhotometricInterpretation = "RGB" if colours else "MONOCHROME2"
    if colours:
        ds.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds
