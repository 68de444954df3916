"""A synthetic chest radiograph (PA) with an opacity of known place, made by adding up attenuation along the beam."""

from __future__ import annotations

import numpy as np
from pydicom.sr.codedict import codes

from dicomnode.demo.phantoms_chest import chest_attenuation
from dicomnode.demo.phantoms_texture import Field, blur, enlarge
from dicomnode.demo.study_dataset import PhantomStudy, StudyBuilder, code_item, stored
from dicomnode.dicom.sop_classes import DIGITAL_X_RAY_FOR_PRESENTATION

_SIZE = 1024
_SPACING_MM = 0.35
_NOISE = 0.007


def make_dx_chest(seed: int) -> PhantomStudy:
    """Make one PA chest radiograph For Presentation, 1024 x 1024, 12 bit, of a person who does not exist.

    The truth mask holds the consolidation planted in one lung. The same seed gives the same study.
    """
    rng = np.random.default_rng([seed, 3])
    attenuation, opacity = chest_attenuation(rng, _SIZE // 2, 2 * _SPACING_MM)
    builder = StudyBuilder("DX", seed, DIGITAL_X_RAY_FOR_PRESENTATION, "Chest PA, synthetic", "Chest PA")
    image = _grey(rng, enlarge(attenuation, _SIZE))
    dataset = builder.add(stored(image * 4095, 0, 4095), enlarge(opacity, _SIZE) > 0.4)
    dataset.BodyPartExamined = "CHEST"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.ImagerPixelSpacing = [_SPACING_MM, _SPACING_MM]
    dataset.PatientOrientation = ["L", "F"]
    dataset.ViewPosition, dataset.ImageLaterality = "PA", "U"
    dataset.PositionerType = "NONE"
    dataset.AnatomicRegionSequence = [code_item(codes.SCT.Chest)]
    dataset.ViewCodeSequence = [code_item(codes.cid4010.PosteroAnterior)]
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
    dataset.AcquisitionContextSequence = []
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.LossyImageCompression = "00"
    dataset.KVP, dataset.DetectorType = 125, "DIRECT"
    dataset.AcquisitionDeviceProcessingDescription = ""
    return builder.finish("synthetic chest radiograph with an opacity in one lung")


def _grey(rng: np.random.Generator, attenuation: Field) -> Field:
    """Film-like grey 0..1 of log exposure, with quantum noise that grows where few photons arrive."""
    white = rng.standard_normal(attenuation.shape, dtype=np.float32)
    noise = _NOISE * blur(white, 0.8) / 0.35 * (0.5 + attenuation)
    exposed = blur(attenuation, 1.0) + noise
    return np.asarray(0.98 / (1 + np.exp(-(exposed - 0.47) * 5.0)), np.float32)
