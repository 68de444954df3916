"""Generators: plane to plane (StarGAN), code to plane, plane to code."""

from __future__ import annotations

from torch import Tensor, nn


class Translator(nn.Module):
    """The generator of StarGAN (Choi et al., CVPR 2018, table 4), as HealthyGAN and Brainomaly use it.

    7 x 7 convolution to ``width`` channels; two 4 x 4 of stride 2; ``blocks`` residual blocks; two transposed back;
    7 x 7 to ``outputs``. No biases. Instance normalisation is affine without running statistics, so a trained one
    answers as in training. Input (n, inputs, size, size), output (n, outputs, size, size), not bounded.
    Raises ValueError when the size is not a multiple of 4.
    """

    def __init__(self, size: int, inputs: int, outputs: int, width: int = 64, blocks: int = 6) -> None:
        super().__init__()
        if size % 4:
            raise ValueError("the size is a multiple of 4")
        w = width
        self.layers = nn.Sequential(
            *_normed(nn.Conv2d(inputs, w, 7, padding=3, bias=False), w),
            *_normed(nn.Conv2d(w, 2 * w, 4, stride=2, padding=1, bias=False), 2 * w),
            *_normed(nn.Conv2d(2 * w, 4 * w, 4, stride=2, padding=1, bias=False), 4 * w),
            *(Residual(4 * w) for _ in range(blocks)),
            *_normed(nn.ConvTranspose2d(4 * w, 2 * w, 4, stride=2, padding=1, bias=False), 2 * w),
            *_normed(nn.ConvTranspose2d(2 * w, w, 4, stride=2, padding=1, bias=False), w),
            nn.Conv2d(w, outputs, 7, padding=3, bias=False),
        )

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.layers(images)
        return answer


class Residual(nn.Module):
    """x + f(x), f of two 3 x 3 convolutions with instance normalisation. Keeps the shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_normed(nn.Conv2d(width, width, 3, padding=1, bias=False), width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.InstanceNorm2d(width, affine=True),
        )

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = images + self.layers(images)
        return answer


def _normed(layer: nn.Module, width: int) -> tuple[nn.Module, ...]:
    return layer, nn.InstanceNorm2d(width, affine=True), nn.ReLU(inplace=True)


class CodeToPlane(nn.Module):
    """A code, shape (n, code), to a plane (n, 1, size, size), 0..1, through transposed convolutions from 4 x 4.

    Group normalisation: an encoder that learns against a finished generator sees it as it will be judged.
    ``spatial``: codes have the shape (n, code, side, side) and keep their place. Raises ValueError when the size is
    not 4 times a power of 2.
    """

    def __init__(self, size: int, code: int, width: int, *, spatial: int | None = None) -> None:
        super().__init__()
        start = spatial or 4
        halvings = halvings_of(size, start)
        deep = width << (halvings - 1)
        enter = nn.Conv2d(code, deep, 1) if spatial else nn.Linear(code, deep * start * start)
        self.enter, self.grid = enter, (deep, start, start)
        self.layers = nn.Sequential(nn.GroupNorm(1, deep), nn.LeakyReLU(0.2))
        channels = deep
        for _ in range(halvings):
            following = max(width, channels // 2)
            self.layers.append(nn.ConvTranspose2d(channels, following, 4, stride=2, padding=1))
            self.layers.append(nn.GroupNorm(1, following))
            self.layers.append(nn.LeakyReLU(0.2))
            channels = following
        self.layers.append(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, codes: Tensor) -> Tensor:
        answer: Tensor = self.layers(self.enter(codes).view(-1, *self.grid))
        return answer.sigmoid()


class PlaneToCode(nn.Module):
    """Planes, shape (n, inputs, size, size), to codes (n, code), or (n, code, spatial, spatial), by convolutions."""

    def __init__(self, size: int, code: int, width: int, *, inputs: int = 1, spatial: int | None = None) -> None:
        super().__init__()
        self.layers, channels, end = nn.Sequential(), inputs, spatial or 4
        for k in range(halvings_of(size, end)):
            self.layers.append(nn.Conv2d(channels, width << k, 4, stride=2, padding=1))
            self.layers.append(nn.GroupNorm(1, width << k))
            self.layers.append(nn.LeakyReLU(0.2))
            channels = width << k
        if spatial:
            self.layers.append(nn.Conv2d(channels, code, 1))
        else:
            self.layers.append(nn.Flatten())
            self.layers.append(nn.Linear(channels * end * end, code))

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.layers(images)
        return answer


def halvings_of(size: int, end: int) -> int:
    """How often ``size`` is halved to ``end``. Raises ValueError when it is not a power of 2 times ``end``."""
    times = (size // end).bit_length() - 1
    if times < 1 or end << times != size:
        raise ValueError(f"the size is a power of 2 times {end}, at least {2 * end}")
    return times
