"""The files in deploy/ fit the project and each other. What was not run is in deploy/README.md."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from dicomnode.cli import cli
from dicomnode.config import Config, load_config
from dicomnode.detectors.discovery import discover
from dicomnode.models.registry import ModelRegistry
from dicomnode.node.supervisor import DRAIN_S

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
UNIT = (DEPLOY / "dicomnode.service").read_text()
GUIDE = (DEPLOY / "README.md").read_text()


# The systemd unit


def directives() -> dict[str, list[str]]:
    """Every directive of the unit with its values in order; comments left out."""
    found: dict[str, list[str]] = {}
    for line in UNIT.splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectControlGroups", "yes"),
        ("RestrictNamespaces", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX AF_NETLINK"),
        ("SystemCallArchitectures", "native"),
        ("CapabilityBoundingSet", ""),
        ("UMask", "0077"),
        ("StateDirectory", "dicomnode"),
        ("StateDirectoryMode", "0700"),
        ("Restart", "on-failure"),
        ("RestartPreventExitStatus", "2"),
        ("KillMode", "mixed"),
        ("KillSignal", "SIGTERM"),
        ("OOMPolicy", "continue"),
    ],
)
def test_the_unit_is_hardened(name: str, value: str) -> None:
    assert directives()[name] == [value]


def test_the_unit_allows_system_services_calls_only() -> None:
    allowed, refused = directives()["SystemCallFilter"]
    assert allowed == "@system-service"
    assert refused.startswith("~")
    assert {"@privileged", "@mount", "@module"} <= set(refused[1:].split())


def test_the_unit_waits_for_the_drain() -> None:
    assert int(directives()["TimeoutStopSec"][0]) > DRAIN_S
    node = compose()["services"]["node"]
    assert int(node["stop_grace_period"].removesuffix("s")) > DRAIN_S


def test_the_unit_starts_a_command_that_exists() -> None:
    words = shlex.split(directives()["ExecStart"][0])
    assert Path(words[0]).name == "dicomnode"
    assert CliRunner().invoke(cli, [*words[1:2], "--help"]).exit_code == 0
    assert words[2:] == ["--config", "/etc/dicomnode/dicomnode.toml"]
    assert directives()["WorkingDirectory"] == ["/var/lib/dicomnode"]


def test_the_unit_is_sections_and_directives() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",), allow_no_value=False)
    parser.read_string(UNIT)
    assert parser.sections() == ["Unit", "Service", "Install"]


if shutil.which("systemd-analyze"):

    def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
        """Only the program is replaced by one that is installed here."""
        unit = tmp_path / "dicomnode.service"
        unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT, flags=re.MULTILINE))
        command = ["systemd-analyze", "verify", "--man=no", str(unit)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        own = [line for line in result.stderr.splitlines() if "dicomnode.service" in line]
        assert (result.returncode, own) == (0, [])

    def test_systemd_rates_the_exposure_of_the_unit_as_low(tmp_path: Path) -> None:
        """0 is none, 10 is everything; a plain unit has 9.6."""
        unit = tmp_path / "dicomnode.service"
        unit.write_text(UNIT)
        command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "LC_ALL": "C"})
        assert result.returncode == 0, result.stdout


# The container


def instructions() -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n\s*", "", CONTAINERFILE)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(line.strip().split(" ", 1)[0], line.strip().split(" ", 1)[1]) for line in lines]


def values(instruction: str) -> list[str]:
    return [value for name, value in instructions() if name == instruction]


def test_the_base_image_is_one_pinned_version_that_the_project_supports() -> None:
    images = {value.split(" ")[0] for value in values("FROM")}
    assert len(images) == 1
    version = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-\w+", images.pop())
    assert version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={version[1]}"


def test_whatever_is_copied_exists_and_passes_the_ignore_file() -> None:
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    sources = [word for value in values("COPY") if "--from" not in value for word in value.split()[:-1]]
    assert len(sources) >= 5
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source.rstrip('/')}" in ignored


def test_everything_the_build_needs_is_copied() -> None:
    """pyproject.toml names the readme and the licence files; without them the build of the package fails."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = {word for value in values("COPY") for word in value.split()[:-1]}
    assert {"pyproject.toml", "constraints.txt", "dicomnode/", project["readme"], *project["license-files"]} <= copied


def test_the_weights_are_part_of_the_package() -> None:
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "dicomnode"
    ]
    shipped = [path for model in ModelRegistry().list() for path in model.folder.iterdir()]
    assert shipped
    assert {path.suffix for path in shipped} <= {Path(pattern).suffix for pattern in package_data}


def test_every_installation_in_the_container_is_constrained() -> None:
    installs = [command for value in values("RUN") for command in value.split("&&") if "pip install" in command]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in command for command in installs)
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_the_container_does_not_run_as_root() -> None:
    last = CONTAINERFILE[CONTAINERFILE.rindex("\nFROM ") :]
    user = re.search(r"^USER (\d+):(\d+)$", last, re.MULTILINE)
    assert user
    assert int(user[1]) > 0
    assert f"--uid {user[1]}" in last
    assert last.index("USER ") > last.index("RUN ")
    assert values("STOPSIGNAL") == ["SIGTERM"]


def test_the_container_starts_the_node_with_the_configuration_it_holds() -> None:
    command = json.loads(values("ENTRYPOINT")[0]) + json.loads(values("CMD")[0])
    assert command == ["dicomnode", "serve"]
    target = values("COPY")[-1].split()[-1]
    assert f"DICOMNODE_CONFIG={target}" in CONTAINERFILE
    ports = {str(Config().node.port), str(Config().node.console_port)}
    assert set(values("EXPOSE")[0].split()) == ports


@pytest.mark.parametrize(
    ("processes", "healthy"),
    [
        ([{"role": "receive", "alive": True}, {"role": "deliver", "alive": True}], True),
        ([{"role": "receive", "alive": True}, {"role": "deliver", "alive": False}], False),
        ([], False),
    ],
)
def test_the_health_check_tells_a_living_node_from_a_dead_one(
    tmp_path: Path, processes: list[dict[str, Any]], healthy: bool
) -> None:
    """The very command of the image, with a ``dicomnode`` that answers as ``status --json`` does."""
    (tmp_path / "answer.json").write_text(json.dumps({"processes": processes}))
    program = tmp_path / "dicomnode"
    program.write_text(f'#!/bin/sh\ntest "$*" = "status --json" && cat {tmp_path}/answer.json\n')
    program.chmod(0o755)
    command = values("HEALTHCHECK")[0].split("CMD ", 1)[1]
    path = f"{tmp_path}:{Path(os.__file__).parents[2] / 'bin'}:{os.environ['PATH']}"
    result = subprocess.run(["/bin/sh", "-c", command], env={"PATH": path}, capture_output=True, timeout=120)
    assert (result.returncode == 0) == healthy
    assert not result.stderr


# Compose


def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_compose_has_only_keys_of_the_specification() -> None:
    """The parts of the Compose specification that the file uses; a misspelt key would be refused there too."""
    known = {
        "": {"name", "services", "networks", "volumes"},
        "service": {
            "build", "image", "depends_on", "networks", "ports", "volumes", "init", "read_only", "tmpfs", "cap_drop",
            "security_opt", "stop_grace_period", "restart", "environment",
        },
        "build": {"context", "dockerfile"},
    }  # fmt: skip
    whole = compose()
    assert set(whole) <= known[""]
    for service in whole["services"].values():
        assert set(service) <= known["service"]
        assert set(service.get("build", {})) <= known["build"]
        assert set(service["networks"]) <= set(whole["networks"])
        assert set(service.get("depends_on", {})) <= set(whole["services"])
        assert all(isinstance(value, str) for value in service.get("environment", {}).values())


def test_every_volume_is_declared_or_a_file_that_exists() -> None:
    whole = compose()
    used = [volume.split(":") for service in whole["services"].values() for volume in service["volumes"]]
    named = {parts[0] for parts in used if not parts[0].startswith(".")}
    assert named == set(whole["volumes"])
    files = [parts for parts in used if parts[0].startswith(".")]
    assert len(files) == 2
    assert all((DEPLOY / parts[0]).is_file() and parts[2] == "ro" for parts in files)


def test_every_port_is_published_on_loopback_only() -> None:
    ports = [port for service in compose()["services"].values() for port in service["ports"]]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_is_built_here_or_pinned() -> None:
    for service in compose()["services"].values():
        assert "build" in service or re.fullmatch(r"[\w/]+:\d[\w.]+", service["image"])
    build = compose()["services"]["node"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Containerfile"


def test_the_node_of_compose_has_no_privilege() -> None:
    node = compose()["services"]["node"]
    assert node["cap_drop"] == ["ALL"]
    assert node["security_opt"] == ["no-new-privileges:true"]
    assert node["read_only"] is True


def test_no_password_is_in_the_files() -> None:
    users = compose()["services"]["orthanc"]["environment"]["ORTHANC__REGISTERED_USERS"]
    assert "${ORTHANC_PASSWORD:?" in users
    assert "RegisteredUsers" not in pacs()


# The node and the PACS know each other


def pacs() -> dict[str, Any]:
    loaded = json.loads((DEPLOY / "orthanc.json").read_text())
    assert isinstance(loaded, dict)
    return loaded


def address(service: str) -> str:
    return str(compose()["services"][service]["networks"]["dicom"]["ipv4_address"])


def test_the_node_knows_the_pacs_as_compose_starts_it() -> None:
    config, _ = load_config(DEPLOY / "dicomnode.toml")
    peer = config.peer_named("pacs")
    assert peer
    assert (peer.ae_title, peer.host, peer.port, peer.may_send) == (
        pacs()["DicomAet"], address("orthanc"), pacs()["DicomPort"], True,
    )  # fmt: skip


def test_the_pacs_knows_the_node_as_compose_starts_it() -> None:
    config, _ = load_config(DEPLOY / "dicomnode.toml")
    known = pacs()["DicomModalities"]["dicomnode"]
    assert (known["AET"], known["Host"], known["Port"]) == (config.node.ae_title, address("node"), config.node.port)
    assert known["AllowStore"]
    assert known["AllowFind"], "the node asks the PACS how many images a series has"
    assert known["AllowEcho"], "dicomnode doctor asks by C-ECHO"


def test_the_node_of_compose_writes_into_its_volume() -> None:
    config, _ = load_config(DEPLOY / "dicomnode.toml")
    mounted = {volume.split(":")[0]: volume.split(":")[1] for volume in compose()["services"]["node"]["volumes"]}
    assert str(config.node.data_dir) == mounted["node-data"]
    assert mounted["./dicomnode.toml"] == values("COPY")[-1].split()[-1]


def test_the_node_of_compose_has_the_routes_of_the_example() -> None:
    config, _ = load_config(DEPLOY / "dicomnode.toml")
    example, _ = load_config(ROOT / "conf" / "dicomnode.toml")
    assert config.route == example.route
    assert {route.detector for route in config.route} <= set(discover().detectors)


def test_the_guide_names_every_file_and_says_what_was_not_run() -> None:
    assert {path.name for path in DEPLOY.iterdir()} <= set(re.findall(r"`([\w.]+)`", GUIDE))
    assert "not run" in GUIDE.lower()
