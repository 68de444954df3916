"""Backbones: torchvision's names and shapes, verified weights in every accepted format, the same random ones again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

from dicomnode.detectors.methods.backbones.frozen import BackboneSettings, FrozenBackbone, build_network
from dicomnode.detectors.methods.backbones.mobilenet_v2 import (
    MobileNetV2,
    PaddedConvolution,
    convolution_names,
    normalisation_name,
)
from dicomnode.detectors.methods.backbones.weights import CAFFE, TENSORFLOW, TORCHVISION, read_weights
from dicomnode.detectors.methods.catalogue import build_method
from dicomnode.errors import ConfigError

CAFFE_NAMES = {
    "features.0": "conv1",
    "classifier.1": "conv10",
    **{f"features.{place}": f"fire{n}" for n, place in zip(range(2, 10), (3, 4, 5, 7, 8, 9, 10, 12), strict=True)},
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def squeezenet_file(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file with Caffe's names and float16 kernels, random numbers; and what it should become."""
    torch.manual_seed(0)
    state = build_network("squeezenet1-0", classes=5).state_dict()
    arrays = {}
    for name, value in state.items():
        part, leaf = name.split(".", 2)[:2], name.split(".")[2:]
        head = CAFFE_NAMES[".".join(part)]
        arrays["/".join([head, ".".join(leaf)]) if len(leaf) == 2 else f"{head}.{leaf[0]}"] = (
            value.half().numpy() if value.dim() > 1 else value.numpy()
        )
    np.savez(folder / "squeezenet.npz", **arrays)
    return folder / "squeezenet.npz", state


def mobilenet_file(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A file with numbered folded operations (gaps where there is no weight), 7 classes, and a text beside them."""
    draw = np.random.default_rng(0)
    state = build_network("mobilenet-v2", classes=7).state_dict()
    arrays: dict[str, np.ndarray] = {"spec": np.array('{"ops": []}')}
    for number, name in enumerate(convolution_names()):
        shape = tuple(state[f"{name}.weight"].shape)
        shape = (*shape, 1, 1) if len(shape) == 2 else shape
        spread = (2 / np.prod(shape[1:])) ** 0.5
        arrays[f"op{number + number // 9:03}.weight"] = draw.normal(0, spread, shape).astype(np.float16)
        arrays[f"op{number + number // 9:03}.bias"] = draw.normal(0, 0.1, shape[0]).astype(np.float32)
    np.savez(folder / "mobilenet.npz", **arrays)
    return folder / "mobilenet.npz", arrays


@pytest.mark.parametrize(
    ("name", "count", "channels"),
    [
        ("resnet18", 11_689_512, (64, 128, 256, 512)),
        ("resnet50", 25_557_032, (256, 512, 1024, 2048)),
        ("wide-resnet50-2", 68_883_240, (256, 512, 1024, 2048)),
        ("squeezenet1-0", 1_248_424, (96, 256, 512, 512)),
        ("mobilenet-v2", 3_504_872, (24, 32, 96, 320)),
    ],
)
def test_a_network_is_the_published_one(name, count, channels):
    """The number of parameters with 1000 classes is that of torchvision; stages have the published channels."""
    with torch.device("meta"):
        network = build_network(name, classes=1000)
    assert sum(one.numel() for one in network.parameters()) == count
    assert network.channels == channels


def test_names_are_those_of_torchvision():
    """Spot checks of every kind of name, so that a state dict of torchvision fits."""
    with torch.device("meta"):
        resnet = set(build_network("resnet50", classes=2).state_dict())
        squeezenet = set(build_network("squeezenet1-0", classes=2).state_dict())
        mobilenet = set(build_network("mobilenet-v2", classes=2).state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias"} <= resnet
    assert {"layer4.2.conv3.weight", "layer3.5.bn2.num_batches_tracked", "fc.weight"} <= resnet
    assert "layer1.1.downsample.0.weight" not in resnet
    assert {"features.0.bias", "features.12.expand3x3.weight", "classifier.1.bias"} <= squeezenet
    assert {"features.1.conv.1.weight", "features.2.conv.3.running_mean", "features.18.0.weight"} <= mobilenet


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1-0", "mobilenet-v2"])
def test_features_come_from_the_chosen_layers_only(name):
    """One tensor (n, c, h, w) per layer, sides falling; deeper stages are not even built; zoom doubles the grid."""
    backbone = FrozenBackbone(name, (1, 3), 1)
    backbone.fill_random(3)
    planes = torch.rand(2, 1, 64, 64)
    first, third = backbone(planes)
    assert (first.shape[:2], third.shape[:2]) == ((2, backbone.channels[0]), (2, backbone.channels[1]))
    assert first.shape[-1] > 3 * third.shape[-1]
    assert len(backbone.network.channels) == 3
    larger = FrozenBackbone(name, (1, 3), 2)
    larger.fill_random(3)
    assert abs(larger(planes)[0].shape[-1] - 2 * first.shape[-1]) <= 3


def test_a_backbone_never_learns():
    """It stays in evaluation mode and asks for no gradient, whatever is done to the network around it."""
    backbone = FrozenBackbone("resnet18", (1,), 1)
    backbone.fill_random(0)
    outer = nn.Sequential(backbone).train()
    assert outer.training
    assert not any(part.training for part in backbone.modules())
    assert not any(one.requires_grad for one in outer.parameters())


def test_random_weights_come_again_with_their_seed():
    """The same seed gives the same features and fingerprint, another one does not."""
    backbone = FrozenBackbone("resnet18", (1, 2), 1)
    marks = []
    for seed in (5, 6, 5):
        backbone.fill_random(seed)
        marks.append(backbone.fingerprint())
    assert torch.equal(marks[0], marks[2])
    assert not torch.allclose(marks[0], marks[1], rtol=1e-2)
    assert backbone.regenerates


def test_caffe_arrays_of_squeezenet_are_taken_over(tmp_path):
    """Every array finds its place; planes enter as 0..255 less Caffe's means."""
    path, state = squeezenet_file(tmp_path)
    weights = read_weights(path, digest(path))
    assert weights.convention == CAFFE
    assert weights.arrays.keys() == state.keys()
    assert all(torch.allclose(weights.arrays[key], state[key], atol=1e-3) for key in state)
    backbone = FrozenBackbone("squeezenet1-0", (1,), 1)
    backbone.fill_from(weights)
    planes = torch.rand(1, 1, 64, 64)
    fed = torch.cat([planes * 255 - mean for mean in (104, 117, 123)], dim=1)
    kernels = state["features.0.weight"].half().float()
    expected = F.relu(F.conv2d(fed, kernels, state["features.0.bias"], stride=2))
    assert torch.allclose(backbone(planes)[0], expected, rtol=1e-3, atol=1e-2)
    assert not backbone.regenerates


def test_folded_arrays_of_mobilenet_are_unfolded(tmp_path):
    """The network answers what the folded operations, padded as TensorFlow does, answer."""
    path, arrays = mobilenet_file(tmp_path)
    weights = read_weights(path, digest(path))
    assert weights.convention == TENSORFLOW
    network = build_network("mobilenet-v2", classes=7)
    assert isinstance(network, MobileNetV2)
    state = {key: value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
    network.load_state_dict({**state, **weights.arrays})
    network.pad_same(True)
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64) * 2 - 1
        assert torch.allclose(network.eval()(images), folded(images, arrays), rtol=1e-3, atol=1e-3)


def folded(images: torch.Tensor, arrays: dict[str, np.ndarray]) -> torch.Tensor:
    """MobileNetV2 written out over folded operations: an independent reading of the paper's table 2."""
    kernels = iter(sorted(key for key in arrays if key.endswith(".weight")))

    def step(deep: torch.Tensor, stride: int = 1, *, active: bool = True, each: bool = False) -> torch.Tensor:
        key = next(kernels)
        kernel = torch.from_numpy(arrays[key]).float()
        bias = torch.from_numpy(arrays[key.replace(".weight", ".bias")])
        if kernel.shape[-1] == 3:
            deep = F.pad(deep, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        deep = F.conv2d(deep, kernel, bias, stride=stride, groups=deep.shape[1] if each else 1)
        return deep.clamp(0, 6) if active else deep

    deep = step(images, 2)
    for expansion, outputs, count, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(count):
            start = deep
            deep = step(deep) if expansion > 1 else deep
            deep = step(step(deep, stride if i == 0 else 1, each=True), active=False)
            deep = deep + start if i else deep
            assert deep.shape[1] == outputs
    return step(step(deep).mean(dim=(2, 3), keepdim=True), active=False).flatten(1)


def test_the_padding_of_the_file_is_kept_with_the_arrays(tmp_path):
    """A backbone restored from its own arrays pads as the one they came from, in both directions."""
    path, _ = mobilenet_file(tmp_path)
    filled, fresh = FrozenBackbone("mobilenet-v2", (1, 2), 1), FrozenBackbone("mobilenet-v2", (1, 2), 1)
    filled.fill_from(read_weights(path, digest(path)))
    fresh.load_state_dict(filled.state_dict())
    planes = torch.rand(1, 1, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(filled(planes), fresh(planes), strict=True))
    fresh.fill_random(0)
    assert not any(part.same for part in fresh.modules() if isinstance(part, PaddedConvolution))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])
def test_torchvision_names_are_taken_as_they_are(tmp_path, suffix):
    """A state dict with a classifier, in each format, fills a backbone that ends earlier."""
    torch.manual_seed(1)
    state = {key: value.half().float() for key, value in build_network("resnet18", classes=4).state_dict().items()}
    path = tmp_path / f"resnet{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    elif suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in state.items()})
    else:
        torch.save(state, path)
    backbone = FrozenBackbone("resnet18", (1, 2), 1)
    settings = BackboneSettings(backbone_weights=path, backbone_sha256=digest(path), layers=(1, 2))
    backbone.fill(settings)
    assert torch.equal(backbone.network.get_parameter("conv1.weight"), state["conv1.weight"])
    assert tuple(backbone.mean.tolist()) == pytest.approx(TORCHVISION.mean)


def test_a_wrong_hash_a_wrong_file_and_wrong_names_are_refused(tmp_path):
    """ConfigError before anything is read, for what is not arrays, and for arrays of another network."""
    path, _ = squeezenet_file(tmp_path)
    with pytest.raises(ConfigError, match="SHA-256"):
        read_weights(path, "0" * 64)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_weights(tmp_path / "nothing.npz", "0" * 64)
    with pytest.raises(ConfigError, match="do not fit"):
        FrozenBackbone("resnet18", (1,), 1).fill_from(read_weights(path, digest(path)))
    for suffix in (".npz", ".safetensors", ".pth"):
        broken = tmp_path / f"broken{suffix}"
        broken.write_bytes(b"this is no file of arrays")
        with pytest.raises(ConfigError, match="not a file of arrays"):
            read_weights(broken, digest(broken))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    """Neither an .npz with pickled objects nor a pickled module is opened."""
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, **{"conv1.weight": np.array([{"a": 1}], dtype=object)}, allow_pickle=True)
    module = tmp_path / "module.pth"
    torch.save(nn.Linear(2, 2), module)
    for path in (pickled, module):
        with pytest.raises(ConfigError, match="not a file of arrays"):
            read_weights(path, digest(path))


def test_settings_that_do_not_make_sense_are_refused():
    """Weights without a hash, layers out of order or beyond the fourth, a hash of the wrong length."""
    for wrong in (
        {"backbone_weights": "a.npz"},
        {"layers": [2, 1]},
        {"layers": [5]},
        {"layers": []},
        {"backbone_weights": "a.npz", "backbone_sha256": "12"},
    ):
        with pytest.raises(ConfigError, match="settings of padim"):
            build_method("padim", wrong)


def test_the_normalisation_behind_a_convolution():
    """torchvision's numbering."""
    assert normalisation_name("features.2.conv.1.0") == "features.2.conv.1.1"
    assert normalisation_name("features.2.conv.2") == "features.2.conv.3"
