"""SqueezeNet 1.0 with the names of torchvision (Iandola et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIRES = {
    3: (96, 16, 64),
    4: (128, 16, 64),
    5: (128, 32, 128),
    7: (256, 32, 128),
    8: (256, 48, 192),
    9: (384, 48, 192),
    10: (384, 64, 256),
    12: (512, 64, 256),
}
"""Place in ``features``: channels in, squeezed, and of each of the two expansions."""
STAGES = ((1, 96), (5, 256), (10, 512), (12, 512))
"""Last module and channels of the stages; strides 2, 4, 8, 16."""
LAST = 12


class Fire(nn.Module):
    """Squeeze by 1 x 1, expand by 1 x 1 and 3 x 3 side by side."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        small = F.relu(self.squeeze(images))
        return torch.cat([F.relu(self.expand1x1(small)), F.relu(self.expand3x3(small))], dim=1)


class SqueezeNet(nn.Module):
    """Convolution, fire modules and pools; only ``depth`` of the four stages are built.

    ``classes``: size of the classifier, 0 for none; it needs all four stages.
    """

    def __init__(self, depth: int = 4, classes: int = 0) -> None:
        super().__init__()
        self.ends = tuple(end for end, _ in STAGES[:depth])
        self.channels = tuple(channels for _, channels in STAGES[:depth])
        self.features = nn.Sequential(*(_part(place) for place in range(self.ends[-1] + 1)))
        self.classifier = nn.Sequential(nn.Identity(), nn.Conv2d(512, classes, 1)) if classes else None

    def stages(self, images: Tensor) -> list[Tensor]:
        """The output of every built stage, of normalised ``images``, shape (n, 3, h, w)."""
        outputs, deep = [], images
        for place, part in enumerate(self.features):
            deep = part(deep)
            if place in self.ends:
                outputs.append(deep)
        return outputs

    def forward(self, images: Tensor) -> Tensor:
        """Class scores, shape (n, classes)."""
        if self.classifier is None:
            raise ValueError("the network was built without a classifier")
        return F.relu(self.classifier(self.stages(images)[-1])).mean(dim=(2, 3))


def _part(place: int) -> nn.Module:
    if place == 0:
        return nn.Conv2d(3, 96, 7, stride=2)
    if place == 1:
        return nn.ReLU()
    if place in FIRES:
        return Fire(*FIRES[place])
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
