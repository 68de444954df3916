"""ResNet 18 and 50 and Wide ResNet 50-2 with the names of torchvision (He et al. 2016; Zagoruyko 2016)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two convolutions 3 x 3 and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, width: int) -> None:  # noqa: ARG002 - as Bottleneck
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, images: Tensor) -> Tensor:
        deep = F.relu(self.bn1(self.conv1(images)))
        return F.relu(self.bn2(self.conv2(deep)) + self.downsample(images))


class Bottleneck(nn.Module):
    """Convolutions 1 x 1, 3 x 3 (with the stride) and 1 x 1, and a shortcut. ``width``: channels inside per 64."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, width: int) -> None:
        super().__init__()
        inner = planes * width // 64
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = _shortcut(inputs, 4 * planes, stride)

    def forward(self, images: Tensor) -> Tensor:
        deep = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(images))))))
        return F.relu(self.bn3(self.conv3(deep)) + self.downsample(images))


class ResNet(nn.Module):
    """The stages layer1 to layer4, strides 4, 8, 16, 32; only ``depth`` of them are built.

    ``classes``: size of the classifier, 0 for none; it needs all four stages.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        counts: tuple[int, int, int, int],
        *,
        width: int = 64,
        depth: int = 4,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.channels = tuple(64 * 2**i * block.expansion for i in range(depth))
        inputs = 64
        for i, outputs in enumerate(self.channels):
            planes, stride = 64 * 2**i, 1 if i == 0 else 2
            first = block(inputs, planes, stride, width)
            rest = (block(outputs, planes, 1, width) for _ in range(counts[i] - 1))
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *rest))
            inputs = outputs
        self.fc = nn.Linear(inputs, classes) if classes else None

    def stages(self, images: Tensor) -> list[Tensor]:
        """The output of every built stage, of normalised ``images``, shape (n, 3, h, w)."""
        deep = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        outputs = []
        for i in range(len(self.channels)):
            deep = self.get_submodule(f"layer{i + 1}")(deep)
            outputs.append(deep)
        return outputs

    def forward(self, images: Tensor) -> Tensor:
        """Class scores, shape (n, classes)."""
        if self.fc is None:
            raise ValueError("the network was built without a classifier")
        result: Tensor = self.fc(self.stages(images)[-1].mean(dim=(2, 3)))
        return result


def resnet18(depth: int = 4, classes: int = 0) -> ResNet:
    """ResNet 18; stages of 64, 128, 256, 512 channels."""
    return ResNet(BasicBlock, (2, 2, 2, 2), depth=depth, classes=classes)


def resnet50(depth: int = 4, classes: int = 0) -> ResNet:
    """ResNet 50; stages of 256, 512, 1024, 2048 channels."""
    return ResNet(Bottleneck, (3, 4, 6, 3), depth=depth, classes=classes)


def wide_resnet50_2(depth: int = 4, classes: int = 0) -> ResNet:
    """Wide ResNet 50-2; stages as ResNet 50, twice as wide inside."""
    return ResNet(Bottleneck, (3, 4, 6, 3), width=128, depth=depth, classes=classes)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    if inputs == outputs and stride == 1:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
