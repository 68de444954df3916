"""A synthetic brain FLAIR with a tumour and oedema of known place."""

from __future__ import annotations

import numpy as np

from dicomnode.demo.phantoms_head import SLICE_MM, HeadSlice, Tissue, head_slices
from dicomnode.demo.phantoms_texture import Field, blur, grain, smooth_noise
from dicomnode.demo.study_dataset import PhantomStudy, StudyBuilder, stored
from dicomnode.dicom.sop_classes import MR_IMAGE

_SIZE = 256
_SPACING_MM = 0.859375
_OEDEMA_MM = 13.0
_NOISE = 2.2
_SCALE = 4.0
_SIGNAL = {
    Tissue.AIR: 0, Tissue.SKIN: 80, Tissue.FAT: 132, Tissue.MUSCLE: 34, Tissue.CORTICAL_BONE: 5, Tissue.DIPLOE: 44,
    Tissue.CSF: 11, Tissue.GREY_MATTER: 62, Tissue.WHITE_MATTER: 50, Tissue.DEEP_GREY: 58, Tissue.FALX: 26,
    Tissue.OEDEMA: 104, Tissue.LESION: 132,
}  # fmt: skip
_TABLE = np.array([_SIGNAL[tissue] for tissue in Tissue], np.float32)


def make_mr_flair(seed: int) -> PhantomStudy:
    """Make 20 axial FLAIR slices, 256 x 256, 5 mm apart, of a head that does not exist.

    The truth masks hold the tumour and its oedema, both bright. The same seed gives the same study.
    """
    rng = np.random.default_rng([seed, 2])
    builder = StudyBuilder("MR", seed, MR_IMAGE, "Brain MR, synthetic", "Axial T2 FLAIR 5 mm")
    sensitivity = 1 + 0.10 * smooth_noise(rng, (_SIZE, _SIZE), 60.0)
    for head in head_slices(rng, _SIZE, _SPACING_MM, _OEDEMA_MM):
        truth = np.isin(head.labels, (Tissue.LESION, Tissue.OEDEMA))
        dataset = builder.add(stored(_signal(rng, head, sensitivity) * _SCALE, 0, 1023), truth)
        builder.place(dataset, _SPACING_MM, SLICE_MM, head.z)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.WindowCenter, dataset.WindowWidth = 360, 720
        dataset.ScanningSequence, dataset.SequenceVariant = ["SE", "IR"], ["SK", "SP"]
        dataset.ScanOptions, dataset.MRAcquisitionType = "", "2D"
        dataset.SequenceName = "*tir2d1_16"
        dataset.RepetitionTime, dataset.EchoTime, dataset.InversionTime = 9000, 105, 2500
        dataset.EchoTrainLength, dataset.FlipAngle, dataset.EchoNumbers = 16, 150, 1
        dataset.MagneticFieldStrength, dataset.ImagingFrequency, dataset.ImagedNucleus = 1.5, 63.87, "1H"
        dataset.SpacingBetweenSlices = SLICE_MM
        dataset.AcquisitionNumber = 1
    return builder.finish("synthetic brain FLAIR with a tumour and oedema")


def _signal(rng: np.random.Generator, head: HeadSlice, sensitivity: Field) -> Field:
    """Magnitude image: partial volume, receive field, texture and Rician noise."""
    image = _TABLE[head.labels]
    brain = head.depth > 0
    image[brain] *= 1 + 0.05 * grain(rng, _SIZE, 4.0)[brain]
    image[~brain] *= 1 + 0.15 * grain(rng, _SIZE, 8.0)[~brain]
    tumour = np.isin(head.labels, (Tissue.LESION, Tissue.OEDEMA))
    image[tumour] *= 1 + 0.09 * grain(rng, _SIZE, 4.0)[tumour]
    soft = blur(tumour.astype(np.float32), 2.0)
    image = blur(image, 0.6 / _SPACING_MM) * (1 - soft) + blur(image, 1.6 / _SPACING_MM) * soft
    image *= sensitivity * (1 + 0.25 * np.exp(-np.maximum(head.depth, -12) / 30))
    real, imaginary = _NOISE * blur(rng.standard_normal((2, *image.shape), dtype=np.float32), 0.5) / 0.56
    return np.asarray(np.hypot(image + real, imaginary), np.float32)
