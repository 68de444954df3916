"""Where in an image a classifier sees a label: Grad-CAM where its layers are known, occlusion where they are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from dicomnode.detectors.contract import Array, Mask

REGION = 0.6
"""Share of the greatest value of a map from which a pixel belongs to the region."""
_STEPS = 12
_BATCH = 16


def grad_cam(module: nn.Module, image: Array, index: int, accelerator: str) -> Array | None:
    """Grad-CAM of output ``index`` at the last feature map (Selvaraju et al., ICCV 2017), shape (rows, columns), 0..1.

    ``image``: (channels, rows, columns). None where no part of the image raises the output.
    """
    features = module.get_submodule("features")
    kept: list[Tensor] = []
    handle = features.register_forward_hook(lambda _module, _input, output: kept.append(output))
    try:
        with torch.enable_grad():
            batch = torch.from_numpy(image[None]).to(accelerator).requires_grad_()
            output = module(batch)[0, index]
            (gradient,) = torch.autograd.grad(output, kept[0])
    finally:
        handle.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    coarse = torch.relu((weights * kept[0].detach()).sum(dim=1, keepdim=True))
    rows, columns = image.shape[-2:]
    fine = nn.functional.interpolate(coarse, size=(rows, columns), mode="bilinear")[0, 0]
    return _whole(fine.cpu().numpy())


def occlusion(scores: Callable[[Array], Array], image: Array, index: int) -> Array | None:
    """How much the score of ``index`` falls when a part of the image is covered (Zeiler and Fergus, ECCV 2014).

    ``scores``: batch (n, channels, rows, columns) to (n, labels). A square of two twelfths of the image, filled with
    its mean, moves in steps of one twelfth. Shape (rows, columns), 0..1; None where covering never lowers the score.
    """
    _, rows, columns = image.shape
    edges = [np.linspace(0, length, _STEPS + 1).astype(int) for length in (rows, columns)]
    corners = [(i, j) for i in range(_STEPS - 1) for j in range(_STEPS - 1)]
    whole = float(scores(image[None])[0, index])
    filling = image.mean(axis=(1, 2), keepdims=True)
    total, times = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.float32)
    for start in range(0, len(corners), _BATCH):
        places = [(slice(*edges[0][[i, i + 2]]), slice(*edges[1][[j, j + 2]])) for i, j in corners[start:][:_BATCH]]
        covered = np.repeat(image[None], len(places), axis=0)
        for one, (down, across) in zip(covered, places, strict=True):
            one[:, down, across] = filling
        for place, score in zip(places, scores(covered)[:, index], strict=True):
            total[place] += max(0.0, whole - float(score))
            times[place] += 1
    return _whole(np.asarray(total / np.maximum(times, 1), np.float32))


def _whole(values: Array) -> Array | None:
    peak = float(values.max())
    if not np.isfinite(peak) or peak <= 1e-6:
        return None
    return np.asarray(values / peak, np.float32)


def region(heat: Array) -> Mask:
    """The pixels of a map, 0..1, that belong to the region."""
    return np.asarray(heat >= REGION, bool)
