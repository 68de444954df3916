"""MobileNetV2 1.0 with the names of torchvision (Sandler et al. 2018)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, number of blocks and stride of every group (table 2)."""
STAGES = ((3, 24), (6, 32), (13, 96), (17, 320))
"""Last module and channels of the stages; strides 4, 8, 16, 32."""
HEAD = 1280


class PaddedConvolution(nn.Conv2d):
    """A convolution that can pad as TensorFlow's SAME does: the odd pixel right and at the bottom."""

    same = False

    def forward(self, images: Tensor) -> Tensor:
        if not self.same or self.kernel_size[0] == 1:
            return super().forward(images)
        rows = _around(images.shape[2], self.kernel_size[0], self.stride[0])
        columns = _around(images.shape[3], self.kernel_size[1], self.stride[1])
        padded = F.pad(images, (*columns, *rows))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class InvertedResidual(nn.Module):
    """Widen by 1 x 1, convolve each channel by 3 x 3, narrow by 1 x 1."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        first = () if expansion == 1 else (_active(inputs, wide, 1, 1, 1),)
        narrow = (nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.conv = nn.Sequential(*first, _active(wide, wide, 3, stride, wide), *narrow)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        deep: Tensor = self.conv(images)
        return images + deep if self.shortcut else deep


class MobileNetV2(nn.Module):
    """Convolution and 17 inverted residuals; only ``depth`` of the four stages are built.

    ``classes``: size of the classifier, 0 for none; it needs all four stages and adds the last 1 x 1 convolution.
    """

    def __init__(self, depth: int = 4, classes: int = 0) -> None:
        super().__init__()
        self.ends = tuple(end for end, _ in STAGES[:depth])
        self.channels = tuple(channels for _, channels in STAGES[:depth])
        parts: list[nn.Module] = [_active(3, 32, 3, 2, 1)]
        inputs = 32
        for expansion, outputs, count, stride in GROUPS:
            for i in range(count):
                parts.append(InvertedResidual(inputs, outputs, stride if i == 0 else 1, expansion))
                inputs = outputs
        parts = parts[: self.ends[-1] + 1]
        if classes:
            parts.append(_active(inputs, HEAD, 1, 1, 1))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(HEAD, classes)) if classes else None

    def pad_same(self, same: bool) -> None:
        """Pad as TensorFlow does (``same``) or as torchvision does."""
        for part in self.modules():
            if isinstance(part, PaddedConvolution):
                part.same = same

    def stages(self, images: Tensor) -> list[Tensor]:
        """The output of every built stage, of normalised ``images``, shape (n, 3, h, w)."""
        outputs, deep = [], images
        for place in range(self.ends[-1] + 1):
            deep = self.features[place](deep)
            if place in self.ends:
                outputs.append(deep)
        return outputs

    def forward(self, images: Tensor) -> Tensor:
        """Class scores, shape (n, classes)."""
        if self.classifier is None:
            raise ValueError("the network was built without a classifier")
        result: Tensor = self.classifier(self.features(images).mean(dim=(2, 3)))
        return result


def convolution_names() -> list[str]:
    """torchvision's names of all convolutions and of the classifier, in the order of the computation."""
    names = ["features.0.0", "features.1.conv.0.0", "features.1.conv.1"]
    for place in range(2, 18):
        names += [f"features.{place}.conv.0.0", f"features.{place}.conv.1.0", f"features.{place}.conv.2"]
    return [*names, "features.18.0", "classifier.1"]


def normalisation_name(convolution: str) -> str:
    """The name of the batch normalisation behind ``convolution``."""
    head, last = convolution.rsplit(".", 1)
    return f"{head}.{int(last) + 1}"


def _active(inputs: int, outputs: int, side: int, stride: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        PaddedConvolution(inputs, outputs, side, stride, side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


def _around(side: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2
