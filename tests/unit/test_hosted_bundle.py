"""MONAI bundles: what they segment lies where it lies, and what cannot be hosted says why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.detectors.contract import Outcome, Volume
from dicomnode.detectors.hosted.plugin import host
from dicomnode.errors import ConfigError
from tests.unit.hosted_fixtures import SPHERE, ct_volume, dice, mask_of, section, settings_of, write_bundle


def load(folder: Path, labels: str = SPHERE, accept: str = '"CT"'):
    text = section("bundle", folder, "", labels).replace('["CT", "DX"]', accept)
    detector = host("m", settings_of(text))
    return detector.load(detector.location, "cpu")


def test_a_bundle_segments_the_sphere_on_the_grid_of_the_images(tmp_path):
    """Preprocessing, inference and inversion keep the place: the mask overlaps the truth on anisotropic slices."""
    volume, truth = ct_volume()
    loaded = load(write_bundle(tmp_path / "b"))
    result = loaded.detect(volume)
    assert result.outcome is Outcome.FINDINGS
    assert dice(mask_of(volume, result.findings), truth) > 0.85
    (finding,) = result.findings
    assert (finding.label, finding.concept.value, finding.tracking_id) == ("sphere", "4147007", "m-1")
    assert [(one.name, one.score, one.present) for one in result.labels] == [("sphere", 1.0, True)]
    assert result.calibration.n_patients == 0
    assert "no probability" in result.calibration.unit
    assert (loaded.model.name, loaded.model.licence) == ("m", "Apache-2.0")
    assert result.parameters["bundle version"] == "0.1.0"


def test_an_oblique_stack_with_reversed_slices_keeps_its_place_too(tmp_path):
    """The affine of the Volume is used, not the order of its axes: a turned scan of the same pixels finds the same."""
    volume, truth = ct_volume()
    turned = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0)
    planes = tuple(
        type(plane)(plane.pixels, plane.source, None, plane.spacing, (p[0], p[1], -p[2]), turned)
        for plane in volume.planes
        for p in [plane.position]
    )
    result = load(write_bundle(tmp_path / "b")).detect(Volume(volume.summary, planes, volume.slice_spacing))
    assert dice(mask_of(volume, result.findings), truth) > 0.85


def test_nothing_over_the_threshold_is_no_finding(tmp_path):
    """An empty segmentation is an answer, with the label at 0."""
    result = load(write_bundle(tmp_path / "b")).detect(ct_volume(sphere=False)[0])
    assert result.outcome is Outcome.NO_FINDINGS
    assert result.findings == ()
    assert [one.score for one in result.labels] == [0.0]


def test_a_bundle_that_leaves_its_prediction_on_its_own_grid_is_brought_back(tmp_path):
    """Without Invertd the node resamples by the affine."""
    volume, truth = ct_volume()
    post = {"_target_": "Compose", "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}]}
    result = load(write_bundle(tmp_path / "b", postprocessing=post)).detect(volume)
    assert dice(mask_of(volume, result.findings), truth) > 0.8


def test_channels_are_labels_where_there_are_several(tmp_path):
    """A one-hot output is read by channel."""
    volume, truth = ct_volume()
    post = {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True, "to_onehot": 2},
        ],
    }
    result = load(write_bundle(tmp_path / "b", postprocessing=post)).detect(volume)
    assert dice(mask_of(volume, result.findings), truth) > 0.85


def test_a_small_segmentation_does_not_count(tmp_path):
    """``min_mm3`` keeps specks from being findings."""
    labels = SPHERE.replace(" }", ", min_mm3 = 1000000.0 }", 2).replace(", min_mm3 = 1000000.0 }, min", " }, min", 1)
    labels = labels.replace('meaning = "Mass", min_mm3 = 1000000.0 }', 'meaning = "Mass" }')
    assert load(write_bundle(tmp_path / "b"), labels).detect(ct_volume()[0]).outcome is Outcome.NO_FINDINGS


def test_single_images_are_not_analysed(tmp_path):
    """A volume model says so when there is no volume."""
    volume, _ = ct_volume()
    result = load(write_bundle(tmp_path / "b")).detect(Volume(volume.summary, volume.planes[:1], None))
    assert result.outcome is Outcome.NOT_ANALYSED
    assert "stack" in result.reason


def test_one_changed_byte_keeps_a_bundle_out_unread(tmp_path):
    """Nothing of a bundle is parsed before its hash holds: an expression that would write a file never runs."""
    folder, trace = write_bundle(tmp_path / "b"), tmp_path / "trace"
    text = section("bundle", folder, "")
    config = folder / "configs" / "inference.json"
    changed = json.loads(config.read_text()) | {"network_def": f"$__import__('pathlib').Path({str(trace)!r}).touch()"}
    config.write_text(json.dumps(changed))
    with pytest.raises(ConfigError, match="SHA-256"):
        host("m", settings_of(text))
    from dicomnode.detectors.hosted.plugin import HostedDetector

    with pytest.raises(ConfigError, match="b has SHA-256"):
        HostedDetector("m", settings_of(text)).load(folder, "cpu")
    assert not trace.exists()


def test_surprising_expressions_are_refused_although_the_hash_is_right(tmp_path):
    """The second look: what no inference needs is named."""
    trace = tmp_path / "trace"
    inferer = {"_target_": "SimpleInferer", "more": "@more"}
    for number, expression in enumerate((f"$__import__('os').system('touch {trace}')", "$exec('import socket')")):
        with pytest.raises(ConfigError, match=r"more uses (__import__|exec)"):
            load(write_bundle(tmp_path / str(number), inferer=inferer, more=expression))
    with pytest.raises(ConfigError, match=r"imports::0 uses subprocess"):
        load(write_bundle(tmp_path / "import", imports=["$import subprocess"]))
    with pytest.raises(ConfigError, match=r"more makes a shutil\.rmtree"):
        load(write_bundle(tmp_path / "target", inferer=inferer, more={"_target_": "shutil.rmtree", "path": "/nowhere"}))
    assert not trace.exists()


def test_what_the_parts_do_not_reach_is_never_evaluated(tmp_path):
    """Bundles set up training and CUDA in other entries; those are not run, and do not keep a bundle out."""
    trace = tmp_path / "trace"
    folder = write_bundle(
        tmp_path / "b",
        initialize=[
            "$setattr(torch.backends.cudnn, 'benchmark', True)",
            f"$__import__('pathlib').Path('{trace}').touch()",
        ],
        datalist="$open('/nowhere/list.csv').read()",
        network_def="%nets::small",
        nets={
            "small": json.loads((write_bundle(tmp_path / "o") / "configs" / "inference.json").read_text())[
                "network_def"
            ]
        },
    )
    assert load(folder).detect(ct_volume()[0]).outcome is Outcome.FINDINGS
    assert not trace.exists()


def altered(folder: Path, **formats: object) -> Path:
    """The bundle with other entries in its metadata: of the image, or at the top."""
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    for key, value in formats.items():
        place = metadata if key in metadata else metadata["network_data_format"]["inputs"]["image"]
        place[key] = value
    path.write_text(json.dumps(metadata))
    return folder


REFUSED = {
    "several channels": (lambda f: altered(write_bundle(f), num_channels=4), "4 channels from several series"),
    "another modality": (lambda f: altered(write_bundle(f), modality="MR"), "it is for MR, the section accepts CT"),
    "a package": (
        lambda f: altered(write_bundle(f), required_packages_version={"no-such-package-here": "1"}),
        "needs no-such-package-here, which is not installed",
    ),
    "images": (lambda f: altered(write_bundle(f), spatial_shape=[64, 64]), "single images"),
    "an evaluator only": (
        lambda f: write_bundle(f, network_def=None, inferer=None),
        "no network_def, no inferer; it has an evaluator only",
    ),
    "an unknown network": (
        lambda f: write_bundle(f, network_def={"_target_": "monai.networks.nets.NoSuchNet"}),
        "network_def: ",
    ),
    "a network that wants torchvision": (
        lambda f: write_bundle(
            f, network_def={"_target_": "monai.networks.nets.TorchVisionFCModel", "model_name": "resnet18"}
        ),
        "network_def: ",
    ),
    "no reader": (
        lambda f: write_bundle(f, preprocessing={"_target_": "Compose", "transforms": []}),
        "does not begin with LoadImaged",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bundle_that_cannot_be_hosted_says_why(tmp_path, case):
    """The operator reads the reason, not a stack trace."""
    make, reason = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        load(make(tmp_path / "b"))
    assert "the bundle cannot be hosted: " in str(caught.value)
    assert reason in str(caught.value)


def test_weights_have_to_fit_and_to_be_tensors(tmp_path):
    """Strict keys, and a pickle that is more than tensors is not loaded."""
    folder = write_bundle(tmp_path / "strict")
    weights = torch.load(folder / "models" / "model.pt", weights_only=True)
    weights.pop("model.0.conv.bias")
    torch.save(weights, folder / "models" / "model.pt")
    with pytest.raises(ConfigError, match=r"Missing key|Error\(s\) in loading"):
        load(folder)
    folder = write_bundle(tmp_path / "pickled")
    torch.save({"model": Path("x"), "run": print}, folder / "models" / "model.pt")
    with pytest.raises(ConfigError, match="no plain state dict"):
        load(folder)
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(ConfigError, match=r"model\.pt is missing"):
        load(folder)


def test_a_label_that_the_bundle_does_not_have_is_refused(tmp_path):
    """A section cannot ask for a channel that is not there."""
    with pytest.raises(ConfigError, match=r"label 7 \(sphere\) is none of its channels 0, 1"):
        load(write_bundle(tmp_path / "b"), SPHERE.replace("index = 1", "index = 7"))


def test_swin_unetr_of_older_bundles_is_taken(tmp_path):
    """MONAI removed ``img_size``; bundles that still give it build."""
    network = {
        "_target_": "SwinUNETR", "spatial_dims": 3, "img_size": 96, "in_channels": 1, "out_channels": 2,
        "feature_size": 12, "depths": [1, 1, 1, 1],
    }  # fmt: skip
    folder = write_bundle(tmp_path / "b", network_def=network)
    with pytest.raises(ConfigError, match=r"model\.pt: RuntimeError"):
        load(folder)


def test_the_answer_repeats_to_the_bit(tmp_path):
    """Deterministic on the CPU."""
    volume, _ = ct_volume()
    loaded = load(write_bundle(tmp_path / "b"))
    first, second = (mask_of(volume, loaded.detect(volume).findings) for _ in range(2))
    assert np.array_equal(first, second)
