"""Made-up abnormal planes: a small Wasserstein GAN on the labelled abnormal ones, and how like them its images are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.adversarial.critics import FeatureCritic
from dicomnode.detectors.methods.adversarial.generators import CodeToPlane
from dicomnode.detectors.methods.adversarial.wasserstein import critic_loss
from dicomnode.detectors.methods.classical.features import handcrafted
from dicomnode.detectors.methods.contract import Planes, Run
from dicomnode.detectors.methods.drawing import Drawn, draw_from, plane_pool
from dicomnode.detectors.methods.fitting import Fit, Player, parameters, run_fit

CODE, WIDTH, PENALTY, CRITIC_MOVES = 32, 16, 10.0, 3
BETAS = (0.0, 0.9)


class PlaneMaker:
    """WGAN-GP (Gulrajani et al., NeurIPS 2017) on planes of one class; ``size``: 4 times a power of 2, pixels."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.network = nn.ModuleDict(
            {"generator": CodeToPlane(size, CODE, WIDTH), "critic": FeatureCritic(size, 1, WIDTH)}
        )

    def fit(self, planes: Planes, run: Run, steps: int, batch: int = 16) -> None:
        """Learn what ``planes`` look like. Changes the network in place."""
        draw = draw_from(plane_pool(planes, self.size), None, batch, run.augmentation)
        players = (
            Player("critic", parameters(self.network["critic"]), self._critic, 2e-4, BETAS, cycle=False, clip=None),
            Player(
                "generator", parameters(self.network["generator"]), self._fooled, 2e-4, BETAS, CRITIC_MOVES,
                cycle=False, clip=None,
            ),
        )  # fmt: skip
        run_fit(Fit(self.network, players, draw, steps), run)
        self.network.to("cpu").eval()

    def make(self, count: int, seed: int) -> Array:
        """``count`` new images, shape (count, size, size), 0..1."""
        with torch.inference_mode():
            codes = torch.randn(count, CODE, generator=torch.Generator().manual_seed(seed))
            made: Array = self.network["generator"](codes)[:, 0].numpy()
        return made

    def _images(self, drawn: Drawn) -> Tensor:
        codes = torch.randn(len(drawn.healthy), CODE, generator=drawn.noise).to(drawn.healthy.device)
        images: Tensor = self.network["generator"](codes)
        return images

    def _critic(self, drawn: Drawn) -> Tensor:
        fake = self._images(drawn).detach()
        return critic_loss(self.network["critic"], drawn.healthy, fake, PENALTY, drawn.noise)

    def _fooled(self, drawn: Drawn) -> Tensor:
        answer: Tensor = -self.network["critic"](self._images(drawn)).mean()
        return answer


def likeness(real: Planes, made: Planes) -> Mapping[str, float]:
    """Cluster figures of real against made-up planes on handcrafted features: our reading of the "validation metrics
    widely used in clustering algorithms" of Zinga (methods.md 001-6). Silhouette near 0, a high Davies-Bouldin and a
    low Calinski-Harabasz index mean that the two sets cannot be told apart."""
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score
    from sklearn.preprocessing import StandardScaler

    rows = StandardScaler().fit_transform(np.concatenate([handcrafted(real), handcrafted(made)]))
    sides = np.repeat([0, 1], [len(real), len(made)])
    return {
        "silhouette": float(silhouette_score(rows, sides)),
        "davies_bouldin": float(davies_bouldin_score(rows, sides)),
        "calinski_harabasz": float(calinski_harabasz_score(rows, sides)),
    }
