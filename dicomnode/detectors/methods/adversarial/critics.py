"""Critics and discriminators: how real a plane looks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dicomnode.detectors.methods.adversarial.generators import halvings_of


class PatchCritic(nn.Module):
    """The PatchGAN critic of StarGAN (Choi et al., CVPR 2018, table 5): one number for each patch.

    ``layers`` 4 x 4 convolutions of stride 2, LeakyReLU 0.01, ``width`` channels doubling with each; 3 x 3 to one
    channel. No normalisation: the gradient penalty is per sample. A plane too small for all layers gets as many as
    leave a map of 2 x 2. Input (n, inputs, size, size), output (n, 1, s, s).
    """

    def __init__(self, size: int, inputs: int, width: int = 64, layers: int = 6) -> None:
        super().__init__()
        self.body = nn.Sequential()
        channels = inputs
        for k in range(min(layers, size.bit_length() - 2)):
            self.body.append(nn.Conv2d(channels, width << k, 4, stride=2, padding=1))
            self.body.append(nn.LeakyReLU(0.01))
            channels = width << k
        self.head = nn.Conv2d(channels, 1, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.head(self.body(images))
        return answer.float()


class FeatureCritic(nn.Module):
    """A critic of whole planes that also answers its features.

    4 x 4 convolutions of stride 2 down to 4 x 4 pixels, then one linear layer. Group normalisation of each sample,
    which a gradient penalty allows (Gulrajani et al., 2017, section 4). Input (n, inputs, size, size).
    """

    def __init__(self, size: int, inputs: int, width: int) -> None:
        super().__init__()
        self.body, channels = nn.Sequential(), inputs
        for k in range(halvings_of(size, 4)):
            self.body.append(nn.Conv2d(channels, width << k, 4, stride=2, padding=1))
            if k:
                self.body.append(nn.GroupNorm(1, width << k))
            self.body.append(nn.LeakyReLU(0.2))
            channels = width << k
        self.head = nn.Linear(channels * 16, 1)

    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees, shape (n, features)."""
        answer: Tensor = self.body(images).flatten(1)
        return answer

    def forward(self, images: Tensor) -> Tensor:
        """How real, without bound, shape (n, 1)."""
        answer: Tensor = self.head(self.features(images))
        return answer.float()


def judged_real(logits: Tensor) -> Tensor:
    """Binary cross-entropy of ``logits`` against "real", the mean."""
    return F.softplus(-logits.float()).mean()


def judged_fake(logits: Tensor) -> Tensor:
    """Binary cross-entropy of ``logits`` against "made", the mean."""
    return F.softplus(logits.float()).mean()
