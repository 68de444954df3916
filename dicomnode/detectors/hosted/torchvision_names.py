"""Weights under torchvision's names (which torchxrayvision keeps) in MONAI's DenseNet121.

MONAI puts the layers of a dense layer one level deeper, ``denselayer1.layers.norm1``, and calls the head
``class_layers.out``; everything else has the same name and shape (Huang et al., CVPR
2017; torchvision.models.densenet).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

_DENSE_LAYER = re.compile(r"(denselayer\d+)\.(norm|relu|conv)\.?([12])\.")
_HEAD = "class_layers.out."


def monai_name(name: str) -> str:
    """The name in MONAI's DenseNet of a tensor that torchvision calls ``name`` (``norm.1`` is its oldest spelling)."""
    plain = name.removeprefix("module.").removeprefix("model.")
    if plain.startswith("classifier."):
        return _HEAD + plain.removeprefix("classifier.")
    return _DENSE_LAYER.sub(r"\1.layers.\2\3.", plain)


def densenet121(weights: Mapping[str, Tensor]) -> nn.Module:
    """MONAI's DenseNet121 with these weights, its channels and outputs as theirs; every tensor has to fit.

    Input (n, channels, rows, columns), output (n, labels). Raises RuntimeError for tensors that are missing or left
    over, KeyError where there is no first convolution or no head.
    """
    from monai.networks.nets.densenet import DenseNet121

    named = {monai_name(name): tensor for name, tensor in weights.items()}
    channels = int(named["features.conv0.weight"].shape[1])
    module: nn.Module = DenseNet121(
        spatial_dims=2, in_channels=channels, out_channels=int(named[_HEAD + "weight"].shape[0])
    )
    module.load_state_dict(named, strict=True)
    return module
