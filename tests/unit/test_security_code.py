"""What the code never does, and what no weights file can make it do."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import pickle
import re
import subprocess
import sys
import tomllib
import warnings
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import dicomnode
from dicomnode.detectors.hosted.bundle import BundleRefused, _with_weights
from dicomnode.detectors.hosted.forward import load_forward
from dicomnode.detectors.methods.backbones.weights import _arrays
from dicomnode.errors import ConfigError
from dicomnode.models.registry import EXECUTABLE_FORMATS, ModelRegistry, open_model
from tests.supply.__main__ import main
from tests.supply.audit import EXCEPTIONS, Exemption, audit, exemptions, judge
from tests.supply.lock import CONSTRAINTS, CPU_LOCK, LOCK, hashes, pins, render
from tests.unit.hosted_fixtures import section, settings_of

ROOT = Path(__file__).parents[2]
PACKAGE = Path(dicomnode.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAY_NAME_PICKLE = {
    "detectors/hosted/forward.py": "the exception that a refused pickle raises",
    "detectors/methods/backbones/weights.py": "the same",
    "detectors/methods/fitting.py": "the same",
}
FORBIDDEN_MODULES = {"pickle", "joblib", "marshal", "shelve", "dill", "cloudpickle", "telnetlib", "ftplib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "input"}
FORBIDDEN_METHODS = {
    "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "pickle.load", "pickle.loads",
    "joblib.load", "marshal.loads", "subprocess.getoutput", "subprocess.getstatusoutput", "pd.read_pickle",
    "ssl._create_unverified_context", "tempfile.mktemp",
}  # fmt: skip
TAME = {"detectors/hosted/forward.py": {"torch.export.load", "torch.jit.load"}}


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def dotted(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""


def sins(source: str, name: str) -> list[str]:
    """What ``source`` does that no module of the node may do, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        named = {module.partition(".")[0] for module in modules} & FORBIDDEN_MODULES
        if named - ({"pickle"} if name in MAY_NAME_PICKLE else set()):
            found.append(f"{line}: imports {named}")
        if isinstance(node, ast.Call):
            found += [f"{line}: {what}" for what in _calls(node, name)]
    return found


def _calls(node: ast.Call, name: str) -> list[str]:
    called = dotted(node.func)
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    shell, whole, objects = (keywords.get(key) for key in ("shell", "weights_only", "allow_pickle"))
    found = []
    if called in FORBIDDEN_CALLS or called in FORBIDDEN_METHODS:
        found.append(called)
    if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
        found.append("shell")
    if called == "torch.load" and not (isinstance(whole, ast.Constant) and whole.value is True):
        found.append("torch.load without weights_only=True")
    if called in ("torch.export.load", "torch.jit.load", "torch.package.PackageImporter", "torch.hub.load"):
        found += [called] if called not in TAME.get(name, ()) else []
    if objects is not None and not (isinstance(objects, ast.Constant) and objects.value is False):
        found.append("allow_pickle")
    if called in ("np.load", "numpy.load") and objects is None:
        found.append("np.load that does not say allow_pickle=False")
    return found


def test_s13_no_module_runs_what_it_reads() -> None:
    """S13: no pickle, joblib, eval, exec, yaml.load, shell, torch.load of more than tensors."""
    found = {name: sins(path.read_text(encoding="utf-8"), name) for path in FILES for name in [named(path)]}
    assert len(found) > 200
    assert {name: bad for name, bad in found.items() if bad} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "exec(text)",
        "yaml.load(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=flag)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.jit.load(path)",
    ],
)
def test_the_rule_against_running_what_is_read_would_notice(source: str) -> None:
    """The check is one that can fail."""
    assert sins(source, "report/page.py")


def test_modules_that_may_name_pickle_only_catch_its_error() -> None:
    """S13: the exceptions to the rule are named and used for nothing else."""
    for name in MAY_NAME_PICKLE:
        source = (PACKAGE / name).read_text(encoding="utf-8")
        used = set(re.findall(r"\bpickle\.(\w+)", source)) | set(re.findall(r"from pickle import (.+)", source))
        assert used == {"UnpicklingError"}


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "the canary ran")


@pytest.fixture
def canary(tmp_path: Path):
    """The pickle, and proof at the end that nobody ran it."""
    sung = tmp_path / "sung"
    yield Canary(sung)
    assert not sung.exists(), "the canary ran"


def test_the_canary_sings(tmp_path: Path) -> None:
    """The canary is one: whoever unpickles it, runs it."""
    path = tmp_path / "sung"
    pickle.loads(pickle.dumps(Canary(path)))
    assert path.read_text() == "the canary ran"


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".npy"])
def test_s13_a_model_folder_with_a_pickle_is_refused(canary: Canary, tmp_path: Path, suffix: str) -> None:
    """S13: by its name, before anything in the folder is opened."""
    assert suffix in EXECUTABLE_FORMATS
    folder = model_folder(tmp_path)
    (folder / f"weights{suffix}").write_bytes(pickle.dumps(canary))
    with pytest.raises(ConfigError, match="only safetensors"):
        open_model(folder)
    registry = ModelRegistry([folder.parent], shipped=False)
    assert registry.list() == []


def test_s13_a_pickle_under_the_name_of_safetensors_is_not_loaded(canary: Canary, tmp_path: Path) -> None:
    """S13: with the right hash in the card too."""
    content = pickle.dumps(canary)
    folder = model_folder(tmp_path, content)
    from safetensors import SafetensorError
    from safetensors.torch import load

    model = open_model(folder)
    with pytest.raises(SafetensorError):
        load(model.read_weights())


def test_s13_weights_with_another_hash_are_refused(tmp_path: Path) -> None:
    """S13: one byte, before or after the registry looked at it."""
    folder = model_folder(tmp_path)
    model = open_model(folder)
    (folder / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(ConfigError, match="SHA-256"):
        open_model(folder)
    with pytest.raises(ConfigError, match="SHA-256"):
        model.read_weights()


def model_folder(tmp_path: Path, weights: bytes = b"weights") -> Path:
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "calibration.json").write_bytes(b"{}")
    card = {
        "name": "mine",
        "version": "1",
        "detector": "d",
        "sha256": hashlib.sha256(weights).hexdigest(),
        "calibration_sha256": hashlib.sha256(b"{}").hexdigest(),
        "licence": "CC0",
        "intended_use": "tests",
        "preprocessing": {},
        "architecture": {},
    }
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def poisoned(kind: str, canary: Canary) -> bytes:
    """A file of ``kind`` with a pickle in each place where such a file has one."""
    buffer = io.BytesIO()
    if kind == "export":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(nn.Flatten().eval(), (torch.zeros(1, 1, 8, 8),))
            torch.export.save(program, buffer)
        return with_canary(buffer.getvalue(), canary)
    torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": canary}, buffer)
    return buffer.getvalue()


def with_canary(archive: bytes, canary: Canary) -> bytes:
    """Every pickled member of a PT2 archive becomes the canary."""
    inner = io.BytesIO()
    torch.save(canary, inner)
    target, changed = io.BytesIO(), 0
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename.endswith(".pt"):
                content, changed = inner.getvalue(), changed + 1
            new.writestr(item.filename, content)
    assert changed
    return target.getvalue()


@pytest.mark.parametrize("kind", ["state-dict", "export", "torchscript"])
def test_s13_a_hosted_model_that_holds_a_pickle_runs_nothing(canary: Canary, tmp_path: Path, kind: str) -> None:
    """S13: its hash is the configured one, and still it is refused."""
    path = tmp_path / "model.bin"
    path.write_bytes(poisoned(kind, canary))
    more = 'output = "scores"\n' + ('architecture = "densenet121"\n' if kind == "state-dict" else "")
    settings = settings_of(section(kind, path, more, '{ index = 0, name = "x" }'))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_forward(settings, path, "cpu")


def test_s13_a_bundle_with_a_pickle_runs_nothing(canary: Canary, tmp_path: Path) -> None:
    """S13: models/model.pt of a MONAI bundle is read as tensors only."""
    path = tmp_path / "model.pt"
    torch.save({"model": canary}, path)
    with pytest.raises(BundleRefused):
        _with_weights(nn.Flatten(), path)


@pytest.mark.parametrize("name", ["backbone.pth", "backbone.npz", "backbone.safetensors"])
def test_s13_backbone_weights_with_a_pickle_run_nothing(canary: Canary, name: str) -> None:
    """S13: in each form in which backbones come."""
    buffer = io.BytesIO()
    if name.endswith("npz"):
        import numpy as np

        np.savez(buffer, a=np.array([canary], dtype=object))
    else:
        torch.save({"a": canary}, buffer)
    with pytest.raises(ConfigError):
        _arrays(buffer.getvalue(), Path(name))


def test_s14_no_example_application_is_reachable() -> None:
    """S14: pynetdicom's applications (qrscp and its like) are imported by nothing that the node starts."""
    code = (
        "import importlib, sys\nfrom dicomnode.cli import COMMANDS\n"
        "rooms = [f'dicomnode.cli.{name}' for name in COMMANDS.values()]\n"
        "rooms += ['dicomnode.node.roles', 'dicomnode.node.flow', 'dicomnode.receive', 'dicomnode.deliver.worker']\n"
        "[importlib.import_module(name) for name in rooms + ['dicomnode.deliver.commit_worker']]\n"
        "print([name for name in sys.modules if name.startswith(('pynetdicom.apps', 'gdcm'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280, cwd=ROOT)
    assert result.stdout.strip().splitlines()[-1:] == ["[]"], result.stderr[-2000:]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"dicomnode": "dicomnode.cli:main"}


def test_s14_python_gdcm_is_no_dependency() -> None:
    """S14: neither required, nor pinned, nor named by the code."""
    for path in (ROOT / "pyproject.toml", CONSTRAINTS, LOCK):
        assert "python-gdcm" not in path.read_text(encoding="utf-8"), path.name
    importing = [
        path
        for path in FILES
        if re.search(r"^\s*(import|from) (gdcm|pynetdicom\.apps)\b", path.read_text(), re.MULTILINE)
    ]
    assert not importing


def test_s19_every_pin_is_locked_by_hash_and_nothing_else_is() -> None:
    """S19: requirements.lock holds exactly the versions of constraints.txt; `make lock` after a change."""
    pinned = pins(CONSTRAINTS.read_text(encoding="utf-8"))
    locked = hashes(LOCK.read_text(encoding="utf-8"))
    assert {f"{name}=={version}" for name, version in pinned.items()} == set(locked)
    assert all(locked.values())
    [(cpu, known)] = hashes(CPU_LOCK.read_text(encoding="utf-8")).items()
    assert cpu == f"torch=={pinned['torch']}+cpu"
    assert known


def test_s19_make_installs_by_hash() -> None:
    """S19: the lock is what is installed from, and everything that pyproject.toml asks for is in it."""
    rule = (ROOT / "Makefile").read_text().split("$(READY): ")[1].split("\n\n")[0]
    for lock in ("requirements-cpu.lock", "requirements.lock"):
        assert f"--require-hashes --no-deps --requirement {lock}" in rule
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", one)[0]).lower() for one in asked}
    assert names <= set(pins(LOCK.read_text(encoding="utf-8")))


def test_s19_what_is_installed_here_is_what_is_locked() -> None:
    """S19: no package runs in another version than the locked one."""
    from importlib.metadata import distributions

    locked = pins(LOCK.read_text(encoding="utf-8"))
    found = {re.sub(r"[-_.]+", "-", one.name).lower(): one.version.partition("+")[0] for one in distributions()}
    assert {name: found[name] for name in locked if name in found and found[name] != locked[name]} == {}


def test_a_version_without_a_hash_makes_no_lock() -> None:
    """An index that names no hash must not empty the lock."""
    with pytest.raises(ValueError, match="has no hash"):
        render({"click==1": set()})


TODAY = date(2026, 11, 21)
FOUND = {"name": "click", "version": "8.5.1", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": []}]}


def excuse(**changes) -> Exemption:
    values = {"id": "CVE-1", "package": "click", "version": "8.5.1", "until": TODAY, "reason": "not reachable"}
    return Exemption(**values | changes)


def test_s19_a_known_vulnerability_fails_unless_it_is_excused_for_now() -> None:
    """S19: by id or alias, for this version, until its date."""
    assert judge([FOUND], [], TODAY).open == ("click 8.5.1: PYSEC-1",)
    assert judge([FOUND], [excuse()], TODAY).open == ()
    for other in (excuse(id="CVE-2"), excuse(version="8.5.0"), excuse(until=TODAY - timedelta(days=1))):
        assert judge([FOUND], [other], TODAY).open


def test_s19_a_package_that_nobody_knows_is_not_called_safe() -> None:
    """S19: pip-audit skips what its service does not answer for and ends with status 0; we say so."""
    verdict = judge([{"name": "click", "skip_reason": "Dependency not found on PyPI"}], [], TODAY)
    assert (verdict.asked, verdict.unknown, verdict.open) == (0, ("click",), ())
    assert "COULD NOT BE ASKED: 1 of 1 (click)" in verdict.text


@pytest.mark.parametrize(("answer", "status", "said"), [
    ({"dependencies": [FOUND]}, 1, "VULNERABLE: click 8.5.1: PYSEC-1"),
    ({"dependencies": [{"name": "click", "version": "8.5.1", "vulns": []}]}, 0, "1 packages asked about, 0 open"),
    ({"dependencies": [{"name": "click", "skip_reason": "?"}]}, 0, "COULD NOT BE ASKED: 1 of 1"),
    (None, 0, "COULD NOT BE ASKED: 1 of 1"),
], ids=["vulnerable", "clean", "skipped", "no answer"])  # fmt: skip
def test_s19_the_command_reads_the_report_and_not_the_status(
    tmp_path: Path, answer: object, status: int, said: str
) -> None:
    """S19: a program that speaks as pip-audit does stands for it."""
    program, wanted = tmp_path / "pip-audit", tmp_path / "lock.txt"
    text = "boom" if answer is None else json.dumps(answer)
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit 0\n")
    program.chmod(0o755)
    wanted.write_text("click==8.5.1\n")
    result = CliRunner().invoke(main, ["audit", "--pip-audit", str(program), "--requirements", str(wanted)])
    assert (result.exit_code, said in result.output) == (status, True), result.output
    assert audit(str(program), wanted, TODAY).asked == (1 if answer and "skip_reason" not in text else 0)


def test_s19_exceptions_are_for_pinned_versions_and_not_over() -> None:
    """S19: whoever lives with a vulnerability looks again within half a year."""
    pinned, now = pins(CONSTRAINTS.read_text(encoding="utf-8")), datetime.now(UTC).date()
    for entry in exemptions():
        assert pinned.get(entry.package) == entry.version, entry
        assert now <= entry.until <= now + timedelta(days=184), entry
        assert len(entry.reason) > 20, entry
    assert EXCEPTIONS.is_file()
