"""Networks in one file, bare weights: scores and maps become labels, findings and places."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.detectors.contract import Outcome, Volume
from dicomnode.detectors.hosted.forward import load_forward
from dicomnode.detectors.hosted.plugin import host
from dicomnode.detectors.hosted.torchvision_names import densenet121, monai_name
from dicomnode.errors import ConfigError
from tests.unit.hosted_fixtures import (
    SPHERE,
    Brightness,
    BrightPart,
    ct_volume,
    dice,
    mask_of,
    radiograph,
    section,
    settings_of,
)

KINDS = ("torchscript", "export", "onnx")
CORNERS = '{ index = 0, name = "upper" }, { index = 1, name = "lower", colour = "#ff8000" }'
SEGMENT = 'output = "segmentation"\nactivation = "softmax"\ninput = { window = [50.0, 500.0] }\n'
CLASSIFY = 'output = "scores"\nactivation = "sigmoid"\ninput = { size = [64, 64], stored = true }\n'


def save(kind: str, module: torch.nn.Module, example: torch.Tensor, path: Path) -> Path:
    """The module in one of the formats."""
    module = module.eval()
    if kind == "torchscript":
        torch.jit.trace(module, example).save(str(path))
    elif kind == "export":
        torch.export.save(torch.export.export(module, (example,)), path)
    else:
        torch.onnx.export(module, (example,), str(path), dynamo=True, external_data=False, verbose=False)
    return path


def quietly_save(kind: str, module: torch.nn.Module, example: torch.Tensor, path: Path) -> Path:
    """The same, without what exporters warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return save(kind, module, example, path)


@pytest.fixture(scope="module", params=KINDS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """Kind, a segmenting network for images of 48 x 56, a classifying one for 64 x 64."""
    folder = tmp_path_factory.mktemp(request.param)
    segmenter = quietly_save(request.param, Brightness(), torch.zeros(1, 1, 48, 56), folder / "segment.bin")
    classifier = quietly_save(request.param, BrightPart(), torch.zeros(1, 1, 64, 64), folder / "classify.bin")
    return request.param, segmenter, classifier


def load(text: str):
    detector = host("m", settings_of(text))
    return detector.load(detector.location, "cpu")


def test_a_map_becomes_a_finding_on_every_slice(saved):
    """Probabilities over the threshold are the mask, plane by plane, on the planes' own grid."""
    kind, segmenter, _ = saved
    volume, truth = ct_volume()
    result = load(section(kind, segmenter, SEGMENT, SPHERE.replace("index = 1", "index = 1, threshold = 0.9"))).detect(
        volume
    )
    assert result.outcome is Outcome.FINDINGS
    assert dice(mask_of(volume, result.findings), truth) > 0.95
    assert result.score > 0.9 == result.calibration.threshold
    assert "softmax probability" in result.calibration.unit
    assert len(result.planes) == len(volume.planes)


def test_a_class_score_becomes_a_label_and_a_place(saved):
    """The classifier names the corner; covering parts of the image tells where it looked."""
    kind, _, classifier = saved
    volume = radiograph(bright=True)
    result = load(
        section(kind, classifier, CLASSIFY.replace("stored = true", "window = [128.0, 256.0]"), CORNERS)
    ).detect(volume)
    assert result.outcome is Outcome.FINDINGS
    assert [(label.name, label.present) for label in result.labels] == [("upper", False), ("lower", True)]
    (finding,) = result.findings
    assert (finding.label, finding.colour) == ("lower", (255, 128, 0))
    assert all(region.box[0] > 30 and region.box[1] > 38 for region in finding.regions)
    assert result.calibration.unit.endswith("of the label lower")


def test_no_label_over_its_threshold_is_no_finding(saved):
    """The score of the series is that of the label nearest to its threshold."""
    kind, _, classifier = saved
    result = load(section(kind, classifier, CLASSIFY, CORNERS)).detect(radiograph(bright=False))
    assert result.outcome is Outcome.NO_FINDINGS
    assert result.findings == ()
    assert result.score == max(label.score for label in result.labels) < 0.5


def test_an_output_of_another_shape_fails_with_the_reason(saved):
    """A section that describes another network than the file holds is told so, image or not."""
    kind, segmenter, classifier = saved
    third = '{ index = 2, name = "third" }'
    few = load(section(kind, classifier, CLASSIFY, third)).detect(radiograph(bright=True))
    assert (few.outcome, few.reason) == (Outcome.FAILED, "the network has 2 outputs, a label asks for number 2")
    maps = load(section(kind, segmenter, SEGMENT.replace("segmentation", "scores"))).detect(ct_volume()[0])
    assert maps.outcome is Outcome.FAILED
    assert "4 axes" in maps.reason


def test_a_file_with_another_hash_is_not_loaded(saved, tmp_path):
    """Neither by discovery nor when the file is changed after that."""
    kind, _, classifier = saved
    with pytest.raises(ConfigError, match="SHA-256"):
        host("m", settings_of(section(kind, classifier, CLASSIFY, CORNERS, sha256="0" * 64)))
    copy = tmp_path / "copy.bin"
    copy.write_bytes(classifier.read_bytes())
    detector = host("m", settings_of(section(kind, copy, CLASSIFY, CORNERS)))
    copy.write_bytes(copy.read_bytes() + b"x")
    with pytest.raises(ConfigError, match="SHA-256"):
        detector.load(copy, "cpu")


def test_a_file_of_another_format_is_refused_with_its_name(saved, tmp_path):
    """Rubbish with the right hash stops the start with a reason."""
    kind, _, _ = saved
    rubbish = tmp_path / "rubbish.bin"
    rubbish.write_bytes(b"not a network" * 100)
    with pytest.raises(ConfigError, match=r"rubbish\.bin cannot be loaded|does not take this file"):
        load(section(kind, rubbish, CLASSIFY, CORNERS))


def test_a_volume_network_sees_the_whole_stack(tmp_path):
    """dimensions = 3: (planes, rows, columns) in, resized and back."""
    path = quietly_save("torchscript", Brightness(), torch.zeros(1, 1, 10, 24, 28), tmp_path / "volume.pt")
    volume, truth = ct_volume()
    more = SEGMENT.replace("{ window", "{ dimensions = 3, size = [16, 48, 48], window")
    loaded = load(section("torchscript", path, more))
    assert dice(mask_of(volume, loaded.detect(volume).findings), truth) > 0.8
    single = loaded.detect(Volume(volume.summary, volume.planes[:1], None))
    assert (single.outcome, single.reason) == (Outcome.NOT_ANALYSED, "the images form no regular stack")


def test_onnx_without_onnxruntime_names_the_extra(tmp_path, monkeypatch):
    """The operator reads what to install."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"dicomnode\[onnx\]"):
        load(section("onnx", path, CLASSIFY, CORNERS))


def torchvision_weights(channels: int = 1, outputs: int = 2) -> dict[str, torch.Tensor]:
    """A DenseNet121 under torchvision's names."""
    from monai.networks.nets import DenseNet121

    torch.manual_seed(0)
    found = DenseNet121(spatial_dims=2, in_channels=channels, out_channels=outputs).state_dict()
    return {name.replace(".layers.", ".").replace("class_layers.out.", "classifier."): t for name, t in found.items()}


def test_every_name_of_torchvision_is_known_and_none_is_left_over():
    """The key map covers the whole network, the old spelling with a dot too; a missing tensor is refused."""
    weights = torchvision_weights()
    assert "features.denseblock1.denselayer1.norm1.weight" in weights
    image = torch.rand(1, 1, 64, 64)
    expected = densenet121(weights).eval()(image)
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in name else name: tensor
        for name, tensor in weights.items()
    }
    assert torch.equal(densenet121(old).eval()(image), expected)
    assert monai_name("module.features.norm5.bias") == "features.norm5.bias"
    weights.pop("features.norm0.weight")
    with pytest.raises(RuntimeError, match="Missing key"):
        densenet121(weights)


XRV = """
architecture = "densenet121"
output = "scores"
activation = "sigmoid"
input = { size = [64, 64], square = true, stored = true, range = [-1024.0, 1024.0] }
"""


def test_weights_of_torchxrayvision_bring_their_thresholds(tmp_path):
    """A label without a threshold of its own has that of the weights (op_threshs); one that names one keeps it."""
    path = tmp_path / "xrv.pt"
    torch.save({**torchvision_weights(), "op_threshs": torch.tensor([float("nan"), 0.02])}, path)
    labels = '{ index = 1, name = "Effusion" }, { index = 0, name = "Mass", threshold = 0.999 }'
    result = load(section("state-dict", path, XRV, labels)).detect(radiograph(bright=True))
    assert [(one.name, round(one.threshold, 4)) for one in result.labels] == [("Effusion", 0.02), ("Mass", 0.999)]
    assert result.outcome is Outcome.FINDINGS
    assert result.parameters["place of a label"] == "Grad-CAM"
    assert all(finding.label == "Effusion" for finding in result.findings)


def test_safetensors_and_pt_give_the_same(tmp_path):
    """Both ways to keep tensors; a .pt that holds more than tensors is refused."""
    from safetensors.torch import save_file

    weights = torchvision_weights()
    torch.save({"state_dict": weights}, tmp_path / "a.pt")
    save_file(weights, tmp_path / "a.safetensors")
    scores = [
        load(section("state-dict", tmp_path / name, XRV, CORNERS)).detect(radiograph(bright=True)).score
        for name in ("a.pt", "a.safetensors")
    ]
    assert scores[0] == scores[1]
    torch.save({"state_dict": weights, "model": Path("x")}, tmp_path / "b.pt")
    with pytest.raises(ConfigError, match=r"b\.pt cannot be loaded as state-dict"):
        load(section("state-dict", tmp_path / "b.pt", XRV, CORNERS))


def test_the_torchxrayvision_range_is_what_that_package_makes(tmp_path):
    """-1024 to 1024 over what the stored bits can express, the middle square, 224 as configured."""
    from dicomnode.detectors.hosted.picture import to_network

    path = tmp_path / "a.pt"
    torch.save(torchvision_weights(), path)
    settings = settings_of(section("state-dict", path, XRV, CORNERS))
    plane = radiograph(bright=True).planes[0]
    made = to_network(plane, settings.input)
    assert made.shape == (1, 64, 64)
    assert made.max() == pytest.approx((2 * 230 / 255 - 1) * 1024, rel=0.02)
    assert load_forward(settings, path, "cpu").forward(made[None]).shape == (1, 2)
    assert np.isfinite(made).all()
