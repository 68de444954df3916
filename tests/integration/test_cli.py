"""The command line: JSON where a program may read, exit status 2 for a wrong configuration, never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dicomnode.demo.phantoms import make_dx_chest, make_mr_flair
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate

CONFIG = """
[node]
data_dir = "{data}"
[[peer]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 1
[[route]]
name = "chest"
when = {{ Modality = ["CR", "DX"] }}
detector = "cxr"
send_to = ["pacs"]
"""


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dicomnode", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(CONFIG.format(data=tmp_path / "data"))
    return path


def test_route_test_says_which_rule_and_why_not(config: Path, tmp_path: Path) -> None:
    make_dx_chest(seed=41).write(tmp_path / "dx")
    make_mr_flair(seed=42).write(tmp_path / "mr")
    answer = run("route", "test", tmp_path / "dx", tmp_path / "mr", "--json", "--config", config, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    series = {item["Modality"]: item for item in json.loads(answer.stdout)["series"]}
    assert series["DX"]["taken"] == ["chest"]
    assert series["MR"]["taken"] == []
    assert "MR is not CR, DX" in series["MR"]["reasons"][0]["text"]
    nothing = run("route", "test", tmp_path / "mr", "--config", config, cwd=tmp_path)
    assert nothing.returncode == 1
    assert "not analysed, because" in nothing.stdout


def test_lists_are_json_for_programs(tmp_path: Path) -> None:
    models = run("models", "list", "--json", cwd=tmp_path)
    assert models.returncode == 0, models.stderr
    assert all(len(model["sha256"]) == 64 for model in json.loads(models.stdout)["models"])
    detectors = run("detectors", "list", "--json", cwd=tmp_path)
    assert {item["name"] for item in json.loads(detectors.stdout)["detectors"]} >= {"cxr", "ct-head", "mr-brain-flair"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[node]\nport = 'x'\n", "line 2"),
        ("[nod]\n", "line 1"),
        (CONFIG.format(data="d").replace('"cxr"', '"no-such"'), "line 12"),
        (CONFIG.format(data="d").replace('["pacs"]', '["nobody"]'), "line 13"),
    ],
)
def test_a_wrong_configuration_stops_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    answer = run("serve", "--config", path, cwd=tmp_path)
    assert answer.returncode == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_status_before_the_first_start_says_so(config: Path, tmp_path: Path) -> None:
    answer = run("status", "--config", config, cwd=tmp_path)
    assert answer.returncode == 2
    assert "has the node run" in answer.stderr


def test_doctor_names_the_fault_and_the_remedy(config: Path, tmp_path: Path) -> None:
    answer = run("doctor", "--json", "--config", config, cwd=tmp_path)
    assert answer.returncode == 1
    checks = {check["check"]: check for check in json.loads(answer.stdout)["checks"]}
    assert checks["peer pacs"]["level"] == "fault"
    assert checks["peer pacs"]["mend"]
    assert checks["model cxr-lungs"]["level"] == "ok"


def test_reading_the_log_is_logged(config: Path, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/data/dicomnode.sqlite3")
    migrate(store)
    store.close()
    run("audit", "list", "--patient", "P1", "--config", config, cwd=tmp_path)
    answer = run("audit", "list", "--json", "--config", config, cwd=tmp_path)
    rows = json.loads(answer.stdout)
    assert rows[0]["kind"] == "audit log used"
    assert rows[0]["body"]["filters"]["patient"] == "P1"
    shown = run("audit", "show", "1", "--json", "--config", config, cwd=tmp_path)
    assert json.loads(shown.stdout)["seq"] == 1
    assert run("audit", "show", "999", "--config", config, cwd=tmp_path).returncode == 1
    table = run("audit", "export", "--output", tmp_path / "a.csv", "--config", config, cwd=tmp_path)
    assert table.returncode == 0, table.stderr
    assert (tmp_path / "a.csv").read_text().startswith("seq,ts,kind")


def test_sending_nothing_is_an_error_and_a_wrong_destination_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no image")
    answer = run("send", tmp_path, "--to", "PACS@127.0.0.1:1", cwd=tmp_path)
    assert answer.returncode == 1
    wrong = run("send", tmp_path, "--to", "nonsense", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "AET@HOST:PORT" in wrong.stderr
