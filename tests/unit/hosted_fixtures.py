"""Small models to be hosted, made where they are needed, and a phantom with a bright sphere for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dicomnode.config import parse_config
from dicomnode.config.hosted import Hosted
from dicomnode.detectors.contract import Plane, Volume
from dicomnode.detectors.hosted.digest import digest
from dicomnode.dicom.references import InstanceReference, SeriesReference
from dicomnode.dicom.summary import SeriesSummary

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CENTRE, RADIUS = (-8.0, 12.0, 20.0), 14.0
SERIES = SeriesReference("2.25.10", "2.25.11")
SPHERE = '{ index = 1, name = "sphere", code = { value = "4147007", scheme = "SCT", meaning = "Mass" } }'


def sphere_mask(spacing: tuple[float, float, float], shape: tuple[int, int, int], corner: np.ndarray) -> np.ndarray:
    """Where the sphere is, (planes, rows, columns); ``spacing``: between planes, rows and columns in mm; LPS."""
    k, i, j = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    x, y, z = (corner[a] + index * step for a, (index, step) in enumerate(zip((j, i, k), spacing[::-1], strict=True)))
    return (x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2 + (z - CENTRE[2]) ** 2 <= RADIUS**2


def ct_volume(*, sphere: bool = True, rows: int = 48, columns: int = 56, n: int = 20) -> tuple[Volume, np.ndarray]:
    """A stack at 0 HU in air with a sphere of 200 HU, and the sphere's mask; pixels and slices are not isotropic."""
    spacing, corner = (3.0, 1.5, 1.25), np.array([-36.0, -30.0, -8.0])
    truth = sphere_mask(spacing, (n, rows, columns), corner) & sphere
    noise = np.random.default_rng(3).normal(0, 2, truth.shape)
    pixels = np.full(truth.shape, -1000.0)
    pixels[:, 6:-6, 6:-6] = 0.0
    pixels = (np.where(truth, 200.0, pixels) + noise).astype(np.float32)
    planes = tuple(
        Plane(
            pixels=pixels[k],
            source=InstanceReference("2.25.10", "2.25.11", "1.2.840.10008.5.1.4.1.1.2", f"2.25.{100 + k}"),
            spacing=(spacing[1], spacing[2]),
            position=(corner[0], corner[1], corner[2] + spacing[0] * k),
            orientation=AXIAL,
            stored_min=-1024.0,
            stored_max=3071.0,
        )
        for k in range(n)
    )
    summary = SeriesSummary(SERIES, n, {"Modality": ("CT",), "SeriesDescription": ("Abdomen 3 mm",)})
    return Volume(summary, planes, spacing[0]), truth


def radiograph(*, bright: bool, shape: tuple[int, int] = (96, 80)) -> Volume:
    """One projection, 0..255, dark but for a square in its lower right when ``bright``."""
    pixels = np.random.default_rng(5).normal(40, 2, shape)
    if bright:
        pixels[shape[0] // 2 + 8 : shape[0] // 2 + 30, shape[1] // 2 + 6 : shape[1] // 2 + 28] = 230
    source = InstanceReference("2.25.20", "2.25.21", "1.2.840.10008.5.1.4.1.1.1.1", "2.25.22")
    plane = Plane(pixels.astype(np.float32), source, spacing=(0.5, 0.5))
    return Volume(SeriesSummary(SERIES, 1, {"Modality": ("DX",)}), (plane,))


def section(kind: str, path: Path, more: str, labels: str = SPHERE, sha256: str | None = None, name: str = "m") -> str:
    """A section of the configuration with the right hash, or with another one."""
    return (
        f'[hosted.{name}]\nkind = "{kind}"\npath = "{path}"\nsha256 = "{sha256 or digest(path)}"\n'
        f'licence = "Apache-2.0"\nversion = "3"\naccept = {{ Modality = ["CT", "DX"] }}\nlabels = [{labels}]\n{more}\n'
    )


def settings_of(text: str) -> Hosted:
    """The section as the node reads it."""
    return next(iter(parse_config(text)[0].hosted.values()))


class Brightness(nn.Module):
    """Two maps, background and "brighter than 0.5 of the input's range"; works for images and volumes."""

    def forward(self, batch: Tensor) -> Tensor:
        bright = (batch[:, :1] - 0.5) * 40.0
        return torch.cat([-bright, bright], dim=1)


class BrightPart(nn.Module):
    """One score: the brightest patch of the lower right quarter, another of the upper left."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(8)

    def forward(self, batch: Tensor) -> Tensor:
        pooled = self.pool(batch[:, :1])
        rows, columns = pooled.shape[-2] // 2, pooled.shape[-1] // 2
        late = pooled[:, :, rows:, columns:].amax(dim=(1, 2, 3))
        early = pooled[:, :, :rows, :columns].amax(dim=(1, 2, 3))
        return (torch.stack([early, late], dim=1) - 0.5) * 12.0


def write_bundle(folder: Path, **changes: Any) -> Path:
    """A MONAI bundle whose network finds what is over 100 HU. ``changes``: entries of its inference configuration."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    metadata = {
        "version": "0.1.0",
        "monai_version": "1.6.1",
        "required_packages_version": {"nibabel": "5.2.1", "pytorch-ignite": "0.4.11"},
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1,
                    "spatial_shape": [64, 64, 64], "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image", "format": "segmentation", "num_channels": 2, "spatial_shape": [64, 64, 64],
                    "channel_def": {"0": "background", "1": "sphere"},
                }
            },
        },
    }  # fmt: skip
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    config = {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "dataset_dir": "/nowhere",
        "datalist": "$list(sorted(glob.glob(os.path.join(@dataset_dir, '*.nii.gz'))))",
        "network_def": {
            "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 4],
            "strides": [1], "kernel_size": 1, "up_kernel_size": 1, "num_res_units": 0, "norm": None, "act": None,
            "bias": True,
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "reader": "ITKReader"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0], "mode": "bilinear"},
                {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -200, "a_max": 300, "b_min": 0,
                 "b_max": 1, "clip": True},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 16], "sw_batch_size": 2, "overlap": 0.25},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
                 "nearest_interp": False, "to_tensor": True},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "/nowhere"},
            ],
        },
        "evaluator": {"_target_": "SupervisedEvaluator", "device": "@device"},
    }  # fmt: skip
    config |= changes
    (folder / "configs" / "inference.json").write_text(
        json.dumps({key: value for key, value in config.items() if value is not None})
    )
    torch.save(bright_unet().state_dict(), folder / "models" / "model.pt")
    return folder


def bright_unet() -> nn.Module:
    """MONAI's UNet with weights that answer ±(40 x - 24): it finds values over 0.6, 100 HU in the bundle's range."""
    from monai.networks.nets import UNet

    network = UNet(
        spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 4), strides=(1,), kernel_size=1,
        up_kernel_size=1, num_res_units=0, norm=None, act=None, bias=True,
    )  # fmt: skip
    weights = network.state_dict()
    for tensor in weights.values():
        tensor.zero_()
    weights["model.0.conv.weight"][0, 0] = 1.0
    weights["model.2.conv.weight"][0] = torch.tensor([-40.0, 40.0]).reshape(2, 1, 1, 1)
    weights["model.2.conv.bias"][:] = torch.tensor([24.0, -24.0])
    return network


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of two masks, 0 to 1."""
    return float(2 * (found & truth).sum() / max(1, found.sum() + truth.sum()))


def mask_of(volume: Volume, findings: tuple[Any, ...]) -> np.ndarray:
    """All pixels of findings, (planes, rows, columns)."""
    whole = np.zeros((len(volume.planes), *volume.planes[0].shape), bool)
    for region in (region for finding in findings for region in finding.regions):
        whole[region.plane] |= region.mask
    return whole
