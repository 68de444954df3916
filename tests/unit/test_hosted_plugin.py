"""Hosted models as detectors: found by their section, let in by their hash, refused with a reason."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dicomnode.cli import cli
from dicomnode.config import parse_config
from dicomnode.detect.warm import WarmDetectors
from dicomnode.detectors.contract import Detector, HasOwnModel
from dicomnode.detectors.discovery import discover
from dicomnode.detectors.hosted.digest import digest
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.errors import ConfigError
from dicomnode.models.registry import ModelRegistry
from dicomnode.node.build import Blueprint
from tests.unit.hosted_fixtures import SERIES, SPHERE, section

ROUTE = """[[peer]]
name = "p"
folder = "/tmp"
[[route]]
name = "r"
detector = "m"
send_to = ["p"]
when.Modality = "CT"
"""
COMMAND = 'output = "scores"\ngives = "dicom"\ncommand = ["{path}", "{input}", "{output}"]\n'


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A file to be hosted."""
    path = tmp_path / "tool"
    path.write_text("#!/bin/sh\n")
    return path


def blueprint(text: str) -> Blueprint:
    return Blueprint(*parse_config(text))


def summary(**attributes: tuple[object, ...]) -> SeriesSummary:
    return SeriesSummary(SERIES, 1, attributes)


def test_a_section_is_a_detector_of_its_name(program: Path) -> None:
    """It stands beside the built-in ones, with the section's version and model."""
    config = parse_config(section("command", program, COMMAND))[0]
    found = discover(config.hosted)
    detector = found.detectors["m"]
    assert {"cxr", "ct-head", "m"} <= set(found.detectors)
    assert isinstance(detector, Detector)
    assert isinstance(detector, HasOwnModel)
    assert (detector.version, detector.own_model.sha256) == ("3", digest(program))
    assert detector.description == "hosted external program: sphere"


def test_it_accepts_what_its_conditions_say_and_tells_why_not(program: Path) -> None:
    """Conditions as in a route, with the first that fails named."""
    text = section("command", program, COMMAND).replace('["CT", "DX"]', "\"CT\", SeriesDescription = { regex = 'abd' }")
    detector = discover(parse_config(text)[0].hosted).detectors["m"]
    assert detector.accepts(summary(Modality=("CT",), SeriesDescription=("Abdomen",))).accepted
    refused = detector.accepts(summary(Modality=("MR",)))
    assert (refused.accepted, refused.reason) == (False, "Modality: MR is not CT; m is configured for other series")
    assert "SeriesDescription" in detector.accepts(summary(Modality=("CT",), SeriesDescription=("Head",))).reason


def test_the_conditions_are_among_the_headers_that_are_kept(program: Path) -> None:
    """What ``accept`` asks for is read when images arrive."""
    text = section("command", program, COMMAND).replace('["CT", "DX"]', '"CT", ConvolutionKernel = "B30"')
    assert "ConvolutionKernel" in parse_config(text)[0].rule_keywords


def test_a_wrong_hash_stops_a_node_that_routes_to_it_with_the_line(program: Path) -> None:
    """And without a route it is only listed as broken."""
    text = section("command", program, COMMAND, sha256="1" * 64)
    assert "m" not in blueprint(text).detectors()
    assert "SHA-256" in discover(parse_config(text)[0].hosted).broken["m"]
    with pytest.raises(
        ConfigError, match=r"line 18: route\[1\]\.detector: detector 'm' cannot be used: .* has SHA-256"
    ):
        blueprint(text + ROUTE).detectors()


def test_the_name_of_a_built_in_detector_is_taken(program: Path) -> None:
    """A hosted model cannot stand in for one silently."""
    found = discover(parse_config(section("command", program, COMMAND, name="cxr"))[0].hosted)
    assert found.broken["cxr"] == "another detector is already called cxr"
    assert found.detectors["cxr"] is discover().detectors["cxr"]


def test_a_route_with_a_hosted_model_needs_no_registry_and_takes_no_other_model(program: Path) -> None:
    """Its weights' hash is the one in the section."""
    plan = blueprint(section("command", program, COMMAND) + ROUTE)
    assert plan.check_models(plan.detectors()) == {"m": digest(program)}
    other = blueprint(section("command", program, COMMAND) + ROUTE + 'model = "cxr-lungs"\n')
    with pytest.raises(ConfigError, match="takes no other: leave model out"):
        other.check_models(other.detectors())


def test_the_worker_loads_it_like_any_other(program: Path) -> None:
    """Warm detectors ask it for its own place."""
    plan = blueprint('[node]\naccelerator = "cpu"\n' + section("command", program, COMMAND) + ROUTE)
    warm = WarmDetectors(plan.config, plan.detectors(), ModelRegistry())
    warm.warm(plan.config)
    assert warm.get("m", None).model.name == "m"


def test_listing_a_hosted_model_needs_no_torch(program: Path) -> None:
    """The router asks ``accepts`` in a process that never loads it."""
    config = program.with_name("c.toml")
    config.write_text(section("command", program, COMMAND))
    code = (
        "import sys; from pathlib import Path; from dicomnode.config import load_config; "
        "from dicomnode.detectors.discovery import discover; "
        f"found = discover(load_config(Path({str(config)!r}))[0].hosted); "
        "assert 'm' in found.detectors, found.broken; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_prints_the_hash_that_a_section_needs(program: Path) -> None:
    """Of a file it is sha256sum's; of a folder it is that of sha256sum's lines in order of path."""
    runner = CliRunner()
    assert (
        runner.invoke(cli, ["models", "hash", str(program)]).output.strip()
        == hashlib.sha256(b"#!/bin/sh\n").hexdigest()
    )
    folder = program.with_name("folder")
    (folder / "sub").mkdir(parents=True)
    (folder / "b").write_bytes(b"b")
    (folder / "sub" / "a").write_bytes(b"a")
    shell = r"find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
    expected = subprocess.run(["bash", "-c", shell], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert runner.invoke(cli, ["models", "hash", str(folder)]).output.strip() == expected.split()[0] == digest(folder)


@pytest.mark.parametrize("change", ["rename", "content", "add", "move"])
def test_every_change_of_a_folder_changes_its_hash(tmp_path: Path, change: str) -> None:
    """Names, places and contents all count."""
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("1")
    (folder / "b").write_text("2")
    before = digest(folder)
    if change == "rename":
        (folder / "a").rename(folder / "c")
    elif change == "content":
        (folder / "a").write_text("3")
    elif change == "add":
        (folder / "sub" / "d").write_text("")
    else:
        (folder / "a").rename(folder / "sub" / "a")
    assert digest(folder) != before


def test_a_link_in_a_folder_is_refused(tmp_path: Path) -> None:
    """What it leads to could change while the hash stays."""
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a").write_text("1")
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="link is a link"):
        digest(folder)
    with pytest.raises(ConfigError, match="no file"):
        digest(folder_without_files(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read"):
        digest(tmp_path / "missing")


def folder_without_files(tmp_path: Path) -> Path:
    empty = tmp_path / "empty"
    empty.mkdir()
    return empty


BASE = section("command", Path("x"), COMMAND, sha256="0" * 64)
NETWORK = 'output = "scores"\n'
FAULTS = {
    "no modality": (BASE.replace("Modality", "BodyPartExamined"), "at least which Modality"),
    "not a keyword": (BASE.replace("Modality =", "Modalitty ="), "is not a DICOM keyword"),
    "hash": (BASE.replace("0" * 64, "0" * 63), "sha256"),
    "two labels": (BASE.replace("labels = [", 'labels = [{ index = 1, name = "a" }, '), "same index or the same name"),
    "private code": (BASE.replace('"SCT"', '"99MINE"'), "private scheme"),
    "anatomy": (BASE.replace(SPHERE, '{ index = 1, name = "a", anatomy = true }'), "needs its code"),
    "no input": (BASE.replace('"{input}", ', ""), "{input} is missing"),
    "a key of another kind": (BASE + 'activation = "softmax"\n', "unknown key"),
    "two scales": (
        section("onnx", Path("x"), NETWORK + "input = { stored = true, window = [1, 2] }", sha256="0" * 64),
        "one of window, percentiles and stored",
    ),
    "size": (section("onnx", Path("x"), NETWORK + "input = { size = [64] }", sha256="0" * 64), "one number for each"),
    "mean": (section("onnx", Path("x"), NETWORK + "input = { mean = [0.5] }", sha256="0" * 64), "mean and sd together"),
    "segmenting weights": (
        section("state-dict", Path("x"), 'architecture = "densenet121"\noutput = "segmentation"\n', sha256="0" * 64),
        "classifies images",
    ),
    "kind": (BASE.replace('kind = "command"', 'kind = "wizard"'), "kind wizard"),
    "no kind": (BASE.replace('kind = "command"\n', ""), "kind None"),
    "name": (BASE.replace("[hosted.m]", '[hosted."M x"]'), "pattern"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_section_that_makes_no_sense_is_refused_with_its_line(case: str) -> None:
    """Before anything is read from the model."""
    text, reason = FAULTS[case]
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert reason in str(caught.value)
    assert "configuration, line " in str(caught.value)
