"""MedAI AnomalyPro: translation to healthy with a mask (Kumar et al.), which is HealthyGAN (Siddiquee et al., 2022).

x is in -1..1, (b, m) = G(x), B_int = tanh(b), M = (tanh(m) + 1) / 2.

    translation     T(x) = M B_int + (1 - M) x      (Kumar et al., eq. 2)
    reconstruction  R(x) = M x + (1 - M) B_int      (eq. 1)

Both come from the same x. Kumar et al. print eq. 1 as the translated plane of the mixed set. That literal reading is
not built: with it M = 1 keeps the lesion and M = 0, which the text asks of a healthy plane, replaces all of it. It
contradicts the text's own meaning of the mask, and when it is trained the mask falls to about 0 and the method stays
near chance (AUC 0.6 where the reading here reaches 0.9). Also put right: the penalty is (‖∇D‖₂ - 1)², not
(‖∇D‖² - 1)²; and the generator's adversarial loss is -E D, not the critic's loss.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from dicomnode.detectors.methods.adversarial.translation import Translation, TranslationSettings
from dicomnode.detectors.methods.contract import Family, MethodEntry, Regime

EPSILON = 0.01
"""ε of the focus loss."""


class AnomalyProSettings(TranslationSettings):
    """``reconstruction``: λ_rec. ``focus``: λ_f. ``small``: λ_small, ``zero_one``: λ_01 inside the focus loss.

    The paper gives no such figures: these are those of HealthyGAN's code. Its learning rate falls by 0.1 % in all,
    so it is constant here. The generator answers ``channels`` + 1 channels (the recipe 3 + 1, a grey plane 1 + 1).
    """

    reconstruction: float = Field(default=1.0, ge=0)
    focus: float = Field(default=0.1, ge=0)
    small: float = Field(default=1.0, ge=0)
    zero_one: float = Field(default=1.0, ge=0)


class AnomalyPro(Translation[AnomalyProSettings]):
    """L_G = L_adv + λ_rec L_rec + λ_id L_id + λ_f L_f (eq. 5); score mean |x - T(x)| / 2.

    The map is |x - T(x)| / 2 and not the mask M, which finds lesions worse.
    """

    mask_channels = 1

    def answered(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """B_int, shape of ``images``, -1..1, and M, shape (n, 1, size, size), 0..1."""
        both: Tensor = self.parts["generator"](images).float()
        return both[:, :-1].tanh(), (both[:, -1:].tanh() + 1) / 2

    def translated(self, images: Tensor) -> Tensor:
        return translation(images, *self.answered(images))

    def generator_loss(self, mixed: Tensor, healthy: Tensor) -> Tensor:
        own, critic = self.settings, self.parts["critic"]
        of_mixed, mask_of_mixed = self.answered(mixed)
        of_healthy, mask_of_healthy = self.answered(healthy)
        adversarial: Tensor = -critic(translation(mixed, of_mixed, mask_of_mixed)).mean()
        adversarial = adversarial - critic(translation(healthy, of_healthy, mask_of_healthy)).mean()
        rebuilt = (mixed - reconstruction(mixed, of_mixed, mask_of_mixed)).abs().mean()
        kept = (healthy - of_healthy).abs().mean()
        focus = (self.focus_loss(mask_of_mixed) + self.focus_loss(mask_of_healthy)) / 2
        return adversarial + own.reconstruction * rebuilt + own.identity * kept + own.focus * focus

    def focus_loss(self, mask: Tensor) -> Tensor:
        """λ_small (mean M)² + λ_01 (mean 1 / (|M - 0.5| + ε) - 1 / (0.5 + ε)): a small mask, of 0 and 1."""
        small = mask.mean() ** 2
        undecided = (1 / ((mask - 0.5).abs() + EPSILON)).mean() - 1 / (0.5 + EPSILON)
        return self.settings.small * small + self.settings.zero_one * undecided


def translation(images: Tensor, healthy: Tensor, mask: Tensor) -> Tensor:
    """T(x) = M B_int + (1 - M) x: healthy tissue where the mask is 1."""
    return mask * healthy + (1 - mask) * images


def reconstruction(images: Tensor, healthy: Tensor, mask: Tensor) -> Tensor:
    """R(x) = M x + (1 - M) B_int: makes B_int equal x outside the mask."""
    return mask * images + (1 - mask) * healthy


METHODS = (
    MethodEntry(
        "anomalypro",
        Family.ADVERSARIAL,
        Regime.HEALTHY_AND_MIXED,
        ("003",),
        "Kumar et al., MedAI AnomalyPro, eq. 1-5; Siddiquee et al., HealthyGAN, SASHIMI 2022",
        "mean of |x - T(x)| / 2, in parts of the grey range",
        AnomalyProSettings,
        AnomalyPro,
        explains="difference map (plane minus its translation to healthy)",
    ),
)
