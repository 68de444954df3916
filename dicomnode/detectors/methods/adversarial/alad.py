"""ALAD: a bidirectional GAN with critics of both cycles; the score are features of the plane's cycle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dicomnode.detectors.methods.adversarial.critics import FeatureCritic, judged_fake, judged_real
from dicomnode.detectors.methods.adversarial.duel import CodedSettings, Duel, answered
from dicomnode.detectors.methods.adversarial.generators import CodeToPlane, PlaneToCode
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.fitting import Player


class JointCritic(nn.Module):
    """D_xz: whether a plane, shape (n, 1, size, size), and a code, shape (n, code), belong together; shape (n, 1)."""

    def __init__(self, size: int, code: int, width: int) -> None:
        super().__init__()
        hidden = 4 * width
        self.of_plane = PlaneToCode(size, hidden, width)
        self.of_code = nn.Sequential(nn.Linear(code, hidden), nn.LeakyReLU(0.2))
        self.head = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))

    def forward(self, images: Tensor, codes: Tensor) -> Tensor:
        answer: Tensor = self.head(torch.cat([self.of_plane(images), self.of_code(codes)], dim=1))
        return answer


class Alad(Duel[CodedSettings]):
    """min over E, G and max over D_xz, D_xx, D_zz of V(D_xz) + V(D_xx) + V(D_zz) (eq. 2), all with spectral
    normalisation; score |f(x, x) - f(x, G(E(x)))|₁, f: features of D_xx (algorithm 1). The map is |x - G(E(x))|.
    """

    judging = ("encoder", "generator", "planes")

    def make(self) -> nn.Module:
        own = self.settings
        hidden = 4 * own.width
        parts = {
            "encoder": PlaneToCode(own.size, own.code, own.width),
            "generator": CodeToPlane(own.size, own.code, own.width),
            "joint": JointCritic(own.size, own.code, own.width),
            "planes": FeatureCritic(own.size, 2, own.width),
            "codes": nn.Sequential(nn.Linear(2 * own.code, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)),
        }
        for name in CRITICS:
            for layer in parts[name].modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    nn.utils.parametrizations.spectral_norm(layer)
        return nn.ModuleDict(parts)

    def players(self) -> Sequence[Player]:
        return self.player(CRITICS, self._critics_loss), self.player(("generator", "encoder"), self._generator_loss)

    def _pairs(self, drawn: Drawn) -> tuple[tuple[Tensor, Tensor], ...]:
        """The answers of the three critics, each to its real and its made pair."""
        real, parts = drawn.healthy, self.parts
        codes = torch.randn(len(real), self.settings.code, generator=drawn.noise).to(real.device)
        found, made = parts["encoder"](real), parts["generator"](codes)
        cycled, back = parts["generator"](found), parts["encoder"](made)
        return (
            (parts["joint"](real, found), parts["joint"](made, codes)),
            (self._planes(real, real), self._planes(real, cycled)),
            (parts["codes"](torch.cat([codes, codes], 1)), parts["codes"](torch.cat([codes, back], 1))),
        )

    def _planes(self, one: Tensor, other: Tensor) -> Tensor:
        answer: Tensor = self.parts["planes"](torch.cat([one, other], dim=1))
        return answer

    def _critics_loss(self, drawn: Drawn) -> Tensor:
        return torch.stack([judged_real(real) + judged_fake(fake) for real, fake in self._pairs(drawn)]).sum()

    def _generator_loss(self, drawn: Drawn) -> Tensor:
        return torch.stack([judged_fake(real) + judged_real(fake) for real, fake in self._pairs(drawn)]).sum()

    def judge_batch(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        rebuilt = self.parts["generator"](self.parts["encoder"](images))
        features = cast("FeatureCritic", self.parts["planes"]).features
        alike, apart = features(torch.cat([images, images], 1)), features(torch.cat([images, rebuilt], 1))
        return answered(self.settings, (alike - apart).abs().sum(1), (images - rebuilt).abs(), masks)


CRITICS = ("joint", "planes", "codes")


METHODS = (
    MethodEntry(
        "alad",
        Family.ADVERSARIAL,
        Regime.SEMI_SUPERVISED,
        ("002-34", "003"),
        "Zenati et al., ALAD, ICDM 2018, eq. 2 and algorithm 1",
        "sum of |f(x, x) - f(x, x̂)|, features of the critic of pairs of planes",
        CodedSettings,
        Alad,
    ),
)
