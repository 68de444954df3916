"""Brainomaly: translation to healthy by an additive map, without a mask (Siddiquee et al., WACV 2024)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from dicomnode.detectors.methods.adversarial.translation import Translation, TranslationSettings
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime


class BrainomalySettings(TranslationSettings):
    """As HealthyGAN, on planes of 192 pixels."""

    size: int = Field(default=192, ge=16, le=512, multiple_of=4)


class Brainomaly(Translation[BrainomalySettings]):
    """x' = tanh(x + G(x)), L_G = -E_A D(x') + λ_id E_B |x - x'|; score mean |x - x'| / 2.

    "No change" needs G(x) = atanh(x) - x, which has no bound at black and white: black outside the organ is never
    quite kept (at G = 0 the map is 0.12 there). The clamped variant has no such defect.
    """

    def translated(self, images: Tensor) -> Tensor:
        answer: Tensor = self.parts["generator"](images).float()
        return self.changed(images, answer)

    def changed(self, images: Tensor, answer: Tensor) -> Tensor:
        """x' of x, -1..1, and G(x), both of shape (n, channels, size, size)."""
        return (images + answer).tanh()

    def generator_loss(self, mixed: Tensor, healthy: Tensor) -> Tensor:
        adversarial: Tensor = -self.parts["critic"](self.translated(mixed)).mean()
        return adversarial + self.settings.identity * (healthy - self.translated(healthy)).abs().mean()


class BrainomalyClamped(Brainomaly):
    """x' = clamp(x + tanh G(x), -1, 1): G = 0 changes nothing."""

    def changed(self, images: Tensor, answer: Tensor) -> Tensor:
        return (images + answer.tanh()).clamp(-1.0, 1.0)


SOURCE = "Siddiquee et al., Brainomaly, WACV 2024"
SCORE = "mean of |x - x'| / 2, in parts of the grey range"
METHODS = (
    MethodEntry(
        "brainomaly",
        Family.ADVERSARIAL,
        Regime.HEALTHY_AND_MIXED,
        ("003",),
        SOURCE,
        SCORE,
        BrainomalySettings,
        Brainomaly,
        explains="difference map (plane minus its translation to healthy)",
    ),
    MethodEntry(
        "brainomaly-clamped",
        Family.ADVERSARIAL,
        Regime.HEALTHY_AND_MIXED,
        ("003",),
        SOURCE + ", with a clamped residual in place of tanh(x + G(x))",
        SCORE,
        BrainomalySettings,
        BrainomalyClamped,
        explains="difference map (plane minus its translation to healthy)",
    ),
)
