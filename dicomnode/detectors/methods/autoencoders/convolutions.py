"""The convolutions that the auto-encoders share. Names of layers are part of kept weights: do not rename."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


def down(inputs: int, outputs: int) -> nn.Sequential:
    """Half the side: convolution 4 x 4, stride 2, batch normalisation, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)
    )


def up(inputs: int, outputs: int) -> nn.Sequential:
    """Twice the side: transposed convolution 4 x 4, stride 2, batch normalisation, leaky ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1),
    )


class CodedAutoEncoder(nn.Module):
    """Four times down, a code of ``latent`` numbers, four times up (the networks of MedIAnomaly, Cai et al. 2025).

    Input: shape (n, 1, size, size), 0..1. ``codes``: vectors of ``latent`` numbers that ``encode`` answers, side by
    side (2 for mean and log variance). ``outputs``: channels of what ``decode`` answers. Raises ValueError when the
    size is not a multiple of 16.
    """

    def __init__(self, size: int, width: int, latent: int, *, outputs: int = 1, codes: int = 1) -> None:
        super().__init__()
        if size % 16:
            raise ValueError("the size is a multiple of 16")
        widths = [1, width, 2 * width, 4 * width, 4 * width]
        self.side, self.deep = size // 16, 4 * width
        flat = self.deep * self.side * self.side
        self.encoder = nn.Sequential(*(down(a, b) for a, b in pairwise(widths)))
        self.to_latent = nn.Linear(flat, codes * latent)
        self.from_latent = nn.Sequential(nn.Linear(latent, flat), nn.LeakyReLU(0.1))
        back = widths[:0:-1]
        self.decoder = nn.Sequential(*(up(a, b) for a, b in zip(back, [*back[1:], width], strict=True)))
        self.head = nn.Conv2d(width, outputs, 3, padding=1)

    def encode(self, images: Tensor) -> Tensor:
        """The codes, shape (n, codes * latent)."""
        codes: Tensor = self.to_latent(self.encoder(images).flatten(1))
        return codes

    def decode(self, code: Tensor) -> Tensor:
        """Images of codes, shape (n, latent); shape (n, outputs, size, size)."""
        grid = self.from_latent(code).view(-1, self.deep, self.side, self.side)
        images: Tensor = self.head(self.decoder(grid))
        return images

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))


def block(inputs: int, outputs: int) -> nn.Sequential:
    """The same side: convolution 3 x 3, batch normalisation, SiLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU())
