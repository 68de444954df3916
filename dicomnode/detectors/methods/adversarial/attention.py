"""Self-attention between all places of a grid of features (Zhang et al., SAGAN, ICML 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """x + γ attention(x), γ learned from 0. Keeps the shape (n, width, rows, columns)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = max(1, width // 8)
        self.ask, self.tell = nn.Conv2d(width, self.inner, 1), nn.Conv2d(width, self.inner, 1)
        self.value = nn.Conv2d(width, width, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        ask, tell = self.ask(images).flatten(2), self.tell(images).flatten(2)
        weights = (ask.transpose(1, 2) @ tell / self.inner**0.5).softmax(dim=-1)
        gathered = self.value(images).flatten(2) @ weights.transpose(1, 2)
        answer: Tensor = images + self.gamma * gathered.view_as(images)
        return answer
