"""A synthetic head CT with an intracerebral haemorrhage of known place."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from dicomnode.demo.phantoms_head import SLICE_MM, HeadSlice, Tissue, head_slices
from dicomnode.demo.phantoms_texture import Field, blur, grain
from dicomnode.demo.study_dataset import PhantomStudy, StudyBuilder, stored
from dicomnode.dicom.sop_classes import CT_IMAGE

_SIZE = 512
_SPACING_MM = 0.458984375
_OEDEMA_MM = 6.0
_NOISE_HU = 3.6
_HOUNSFIELD = {
    Tissue.AIR: -1000, Tissue.SKIN: 35, Tissue.FAT: -95, Tissue.MUSCLE: 52, Tissue.CORTICAL_BONE: 1250,
    Tissue.DIPLOE: 720, Tissue.CSF: 8, Tissue.GREY_MATTER: 36, Tissue.WHITE_MATTER: 29, Tissue.DEEP_GREY: 36,
    Tissue.FALX: 50, Tissue.OEDEMA: 19, Tissue.LESION: 67,
}  # fmt: skip
_TABLE = np.array([_HOUNSFIELD[tissue] for tissue in Tissue], np.float32)


def make_ct_head(seed: int) -> PhantomStudy:
    """Make 20 axial slices, 512 x 512, 5 mm apart, in HU, of a head that does not exist.

    The truth masks hold the haemorrhage (about 67 HU, oedema rim excluded). The same seed gives the same study.
    """
    rng = np.random.default_rng([seed, 1])
    builder = StudyBuilder("CT", seed, CT_IMAGE, "Head CT, synthetic", "Axial brain 5 mm")
    for head in head_slices(rng, _SIZE, _SPACING_MM, _OEDEMA_MM):
        dataset = builder.add(stored(_hounsfield(rng, head) + 1024, 0, 4095), head.labels == Tissue.LESION)
        builder.place(dataset, _SPACING_MM, SLICE_MM, head.z)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
        dataset.WindowCenter, dataset.WindowWidth = 40, 80
        dataset.KVP, dataset.XRayTubeCurrent, dataset.ExposureTime = 120, 300, 1000
        dataset.ConvolutionKernel = "H31s"
        dataset.ReconstructionDiameter = _SIZE * _SPACING_MM
        dataset.GantryDetectorTilt = 0
        dataset.AcquisitionNumber = 1
    return builder.finish("synthetic head CT with an intracerebral haemorrhage")


def _hounsfield(rng: np.random.Generator, head: HeadSlice) -> Field:
    image = _TABLE[head.labels]
    brain = head.depth > 0
    image += np.where(brain, 4 * np.exp(-head.depth / 7), 0)  # residual beam hardening under the skull
    image[brain] += 1.2 * grain(rng, _SIZE, 8.0)[brain]
    clot = head.labels == Tissue.LESION
    image[clot] += 2.5 * grain(rng, _SIZE, 4.0)[clot]
    image = np.maximum(image, _head_holder(head))
    soft = blur(np.clip(image, -20, 90), 0.95 / _SPACING_MM)  # thick slices blur the sulci
    image = np.where(head.depth > 3, soft, blur(image, 0.5 / _SPACING_MM))
    white = rng.standard_normal(image.shape, dtype=np.float32)
    quantum = ndimage.uniform_filter(white, 2, mode="wrap") * 2
    return np.asarray(image + _NOISE_HU * quantum, np.float32)


def _head_holder(head: HeadSlice) -> Field:
    """A carbon fibre shell behind the head."""
    shell = np.abs(np.hypot(head.x, head.y - 2) - 112) < 1.1
    return np.where(shell & (head.y > 35), np.float32(180), np.float32(-1000))
