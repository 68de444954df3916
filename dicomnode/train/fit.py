"""The training loop of one network on healthy pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.contract import Array
from dicomnode.detectors.networks import Network, build_network
from dicomnode.errors import ConfigError

Progress = Callable[[str, float], None]
"""Called with the name of the running step and its share done, 0..1."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How one network is fitted. ``passes``: pictures seen, with repetition. ``rotate``: largest turn, degrees."""

    architecture: Mapping[str, object]
    seed: int = 0
    passes: int = 60_000
    batch: int = 32
    learning_rate: float = 1e-3
    mirror: bool = True
    rotate: float = 10.0
    accelerator: str = "cpu"
    augmentation: Mapping[str, float] = field(default_factory=lambda: {"shift": 0.04, "zoom": 0.06, "gain": 0.08})


def fit_network(images: Array, options: FitOptions, progress: Progress | None = None) -> Network:
    """Fit one network on ``images``, shape (n, size, size), 0..1; answers it on the CPU, ready for inference.

    Adam with a one-cycle rate; bf16 autocast on an accelerator, float32 on the CPU. The same seed, pictures, number
    of threads and machine give the same weights on the CPU. Raises ConfigError when there is no picture.
    """
    if len(images) == 0:
        raise ConfigError("there is no healthy picture to train on")
    torch.manual_seed(options.seed)
    noise = torch.Generator().manual_seed(options.seed)
    network = build_network(options.architecture).to(torch.device(options.accelerator))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pool = torch.from_numpy(np.ascontiguousarray(images)).float()[:, None]
    steps = max(1, math.ceil(options.passes / options.batch))
    optimiser = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=options.learning_rate, total_steps=steps + 1, pct_start=0.1
    )
    network.train()
    for step in range(steps):
        chosen = torch.randint(0, len(pool), (min(options.batch, max(2, len(pool))),), generator=noise)
        batch = augment(at_size(pool[chosen], options), options, noise).to(options.accelerator)
        _step(network, batch, optimiser, noise)
        schedule.step()
        if progress is not None and step % 50 == 0:
            progress(str(options.architecture["kind"]), step / steps)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network.to("cpu").eval()


def at_size(batch: Tensor, options: FitOptions) -> Tensor:
    """``batch`` averaged down to the network's own size."""
    factor = batch.shape[-1] // int(str(options.architecture["size"]))
    return F.avg_pool2d(batch, factor) if factor > 1 else batch


def augment(batch: Tensor, options: FitOptions, noise: torch.Generator) -> Tensor:
    """Turned, moved, zoomed, mirrored and brightened copies of ``batch``, shape (n, 1, size, size), 0..1."""
    n = len(batch)
    limits = options.augmentation
    angle = math.radians(options.rotate) * _between(n, noise)
    zoom = 1.0 + limits["zoom"] * _between(n, noise)
    flip = torch.where(torch.rand(n, generator=noise) < 0.5, -1.0, 1.0) if options.mirror else torch.ones(n)
    shift = limits["shift"] * 2 * torch.stack([_between(n, noise), _between(n, noise)], dim=1)
    turn = torch.stack([zoom * torch.cos(angle) * flip, -zoom * torch.sin(angle), shift[:, 0]], dim=1)
    rise = torch.stack([zoom * torch.sin(angle) * flip, zoom * torch.cos(angle), shift[:, 1]], dim=1)
    grid = F.affine_grid(torch.stack([turn, rise], dim=1), list(batch.shape), align_corners=False)
    moved = F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    gain = 1.0 + limits["gain"] * _between(n, noise)
    return (moved * gain[:, None, None, None]).clamp(0.0, 1.0)


def _between(n: int, noise: torch.Generator) -> Tensor:
    return 2.0 * torch.rand(n, generator=noise) - 1.0


def _step(network: Network, batch: Tensor, optimiser: torch.optim.Optimizer, noise: torch.Generator) -> None:
    optimiser.zero_grad(set_to_none=True)
    kind = batch.device.type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind != "cpu"):
        loss = network.loss(batch, noise)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
