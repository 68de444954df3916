"""The plain auto-encoder with a small code, under three losses: squared, absolute, structural."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from dicomnode.detectors.methods.autoencoders.convolutions import CodedAutoEncoder
from dicomnode.detectors.methods.autoencoders.structural import ssim_map
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime
from dicomnode.detectors.methods.drawing import Drawn
from dicomnode.detectors.methods.residual import ResidualMethod, ResidualSettings


class AeSettings(ResidualSettings):
    """``loss``: l1 |x - x̂|, l2 (x - x̂)², ssim (1 - SSIM) / 2. ``latent``: size of the code. ``window``: side of
    the window of SSIM, odd, pixels."""

    loss: Literal["l1", "l2", "ssim"] = "l2"
    latent: int = Field(default=16, ge=1)
    window: int = Field(default=11, ge=3, le=15)

    @field_validator("window")
    @classmethod
    def _centred(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError("window is an odd number of pixels")
        return window


class L1Settings(AeSettings):
    """Settings of ``ae-l1``."""

    loss: Literal["l1"] = "l1"


class L2Settings(AeSettings):
    """Settings of ``ae-l2``."""

    loss: Literal["l2"] = "l2"


class SsimSettings(AeSettings):
    """Settings of ``ae-ssim``."""

    loss: Literal["ssim"] = "ssim"


class Ae(ResidualMethod[AeSettings]):
    """Loss: the mean of the map over healthy planes; the map is the loss pixel by pixel."""

    def make(self) -> nn.Module:
        return CodedAutoEncoder(self.settings.size, self.settings.width, self.settings.latent)

    def loss(self, drawn: Drawn) -> Tensor:
        return self.residual(drawn.healthy).mean()

    def residual(self, images: Tensor) -> Tensor:
        back: Tensor = self.network(images)
        if self.settings.loss == "ssim":
            return (0.5 - 0.5 * ssim_map(images, back, self.settings.window)).clamp(min=0.0)
        difference = images - back
        return difference.abs() if self.settings.loss == "l1" else difference**2


def _entry(
    name: str, settings: type[AeSettings], rows: tuple[str, ...], source: str, score: str, explains: str = ""
) -> MethodEntry:
    regime = Regime.SEMI_SUPERVISED
    return MethodEntry(name, Family.AUTOENCODER, regime, rows, source, score, settings, Ae, explains=explains)


METHODS = (
    _entry(
        "ae-l1",
        L1Settings,
        ("002-39",),
        "Tschuchnig & Gadermayr 2022, deviation based; Cai et al., Medical Image Analysis 2025 (AE-l1)",
        "mean of |x - x̂|, in parts of the grey range",
    ),
    _entry(
        "ae-l2",
        L2Settings,
        ("002-12", "002-39"),
        "Wei et al. 2018 (root mean square deviation of a convolutional AE); Cai et al. 2025 (AE)",
        "mean of (x - x̂)², in squared parts of the grey range",
    ),
    _entry(
        "ae-ssim",
        SsimSettings,
        ("002-39",),
        "Bergmann et al., VISAPP 2019; SSIM: Wang et al., IEEE TIP 2004, eq. 13",
        "mean of (1 - SSIM) / 2, 0..1",
        "residual map (structural dissimilarity)",
    ),
)
