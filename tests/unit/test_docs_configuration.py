"""The example file and docs/configuration.md name every key, and the example file holds the defaults."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from dicomnode.config import Config, load_config, parse_config
from dicomnode.detectors.discovery import discover
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.errors import ConfigError
from dicomnode.route import decide
from tests.unit.config_keys import Key, config_keys, operators

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "conf" / "dicomnode.toml"
EXAMPLE_TEXT = EXAMPLE.read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
LEAVES = [key for key in config_keys() if len(key) > 1]
SETTINGS = ("node", "receive", "assemble", "detect", "results", "gates", "drift", "retention", "audit", "deid")


def _section(table: str) -> str:
    """The part of the guide about one table."""
    found = re.search(rf"^## `\[+{table}\]+`(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert found, f"the guide has no section on [{table}]"
    return found[1]


def _example_section(table: str) -> str:
    """The lines of the example file from the first header of one table to the next table."""
    lines, within = [], False
    for line in EXAMPLE_TEXT.splitlines():
        header = re.match(r"\[+(\w+)\]+", line)
        within = header[1] == table if header else within
        lines += [line] if within else []
    return "\n".join(lines)


@pytest.mark.parametrize("key", LEAVES, ids=".".join)
def test_every_key_is_in_the_guide(key: Key) -> None:
    assert f"`{key[-1]}`" in _section(key[0])


@pytest.mark.parametrize("key", LEAVES, ids=".".join)
def test_every_key_is_in_the_example_file_with_a_comment_before_it(key: Key) -> None:
    lines = _example_section(key[0]).splitlines()
    name = key[-2] if key == ("results", "peer", "objects") else key[-1]
    patterns = (rf"#? ?{name} = ", rf"#? ?\[results\.{name}\.", rf"# \[+deid\.{name}\]", rf"#.*\b{name} = ")
    places = [number for number, line in enumerate(lines) if any(re.match(pattern, line) for pattern in patterns)]
    assert places, f"{name} is not in [{key[0]}]"
    first = places[0]
    assert lines[first].startswith("#") or lines[first - 1].startswith("#"), f"{name} has no comment"


@pytest.mark.parametrize("operator", sorted(operators()))
def test_every_operator_is_in_the_guide(operator: str) -> None:
    assert re.search(rf"\| .*`{operator}`.* \|", _section("route"))


@pytest.mark.parametrize("key", [key for key in LEAVES if len(key) == 2], ids=".".join)
def test_the_guide_states_the_default(key: Key) -> None:
    row = next(line for line in _section(key[0]).splitlines() if line.startswith(f"| `{key[-1]}` |"))
    stated = row.split("|")[3].strip()
    assert stated == _stated(config_keys()[key])


def _stated(field: Any) -> str:
    if field.default_factory is not None or field.default is None:
        return "none"
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    if isinstance(field.default, (str, Path)):
        return f'`"{field.default}"`'
    if isinstance(field.default, tuple):
        return "`[" + ", ".join(f'"{item}"' for item in field.default) + "]`"
    return f"`{field.default}`"


@pytest.mark.parametrize("table", SETTINGS)
def test_the_example_file_holds_exactly_the_defaults(table: str) -> None:
    config, _ = load_config(EXAMPLE)
    assert getattr(config, table) == getattr(Config(), table)


def test_the_example_file_writes_every_default_out() -> None:
    """Only settings without a default value, and the table of overrides, stand in comments."""
    raw = tomllib.loads(EXAMPLE_TEXT)
    written = {(table, key) for table in SETTINGS for key in raw[table]}
    keys = {key: field for key, field in config_keys().items() if len(key) == 2 and key[0] in SETTINGS}
    assert {key for key, field in keys.items() if _stated(field) != "none"} == written


def test_the_example_file_has_the_tables_of_the_contract_in_order() -> None:
    headers = re.findall(r"^(\[+\w+\]+)", EXAMPLE_TEXT, re.MULTILINE)
    assert list(dict.fromkeys(headers)) == [
        "[node]",
        "[receive]",
        "[assemble]",
        "[detect]",
        "[[peer]]",
        "[[route]]",
        "[hosted]",
        "[results]",
        "[gates]",
        "[drift]",
        "[retention]",
        "[audit]",
        "[deid]",
    ]


def test_the_example_runs_beside_an_orthanc_with_stock_settings() -> None:
    config, _ = load_config(EXAMPLE)
    assert [(peer.ae_title, peer.host, peer.port, peer.may_send) for peer in config.entities] == [
        ("ORTHANC", "127.0.0.1", 4242, True)
    ]
    assert all(route.send_to == ("pacs",) for route in config.route)


def test_what_the_example_has_in_comments_is_right_too() -> None:
    """Every commented setting, uncommented, is accepted."""
    text = re.sub(r"^# (?=(\[+[\w.]+\]+|[a-z_0-9]+ = .*)$)", "", EXAMPLE_TEXT, flags=re.MULTILINE)
    config, _ = parse_config(text)
    assert [type(peer).__name__ for peer in config.peer] == ["Peer", "Peer", "StowPeer", "FolderPeer", "Peer"]
    assert config.results.objects_for("pacs") == ("sr",)
    assert (config.results.profile, config.results.status) == ("sc-sr", ("not analysed",))
    assert config.results.status_for("pacs") == ()
    assert config.node.model_dir
    assert config.audit.checkpoint_path
    assert config.route[0].model == discover().detectors["ct-head"].default_model


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL))
def test_every_example_of_the_guide_is_accepted(block: str) -> None:
    peer = '[[peer]]\nname = "pacs"\nae_title = "A"\nhost = "h"\nport = 1\n'
    for part in block.splitlines() if block.startswith("tls") else [block]:
        assert parse_config(peer + part + "\n")[0].peer[0].name == "pacs"


@pytest.mark.parametrize("example", re.findall(r"\| `([A-Z]\w+ = .+?)` \|$", GUIDE, re.MULTILINE))
def test_every_condition_of_the_guide_is_accepted(example: str) -> None:
    text = f'[[route]]\nname = "r"\ndetector = "cxr"\nsend_to = ["sender"]\nwhen.{example}\n'
    assert list(parse_config(text)[0].route[0].when) == [example.split(" ", maxsplit=1)[0]]


def test_the_guide_shows_faults_as_they_are_reported() -> None:
    """The three example lines of the guide come from the loader, up to the line numbers."""
    shown = re.findall(r"^conf/dicomnode\.toml, line \d+: (.+)$", GUIDE, re.MULTILINE)
    assert len(shown) == 3
    route = '[[route]]\nname = "r"\ndetector = "cxr"\nsend_to = ["archive"]\nwhen.Modality = {}\n'
    said = []
    for text in ("[node]\nprot = 1\n", route.replace("{}", '{ regx = "C" }'), route.replace("{}", '"CT"')):
        with pytest.raises(ConfigError) as caught:
            parse_config(text)
        said.append(str(caught.value).split(": ", 1)[1])
    assert said == shown


SERIES = {
    "chest film that names no body part but its description": (
        {"Modality": ("CR",), "StudyDescription": ("Thorax pa",)},
        ["chest x-ray"],
    ),
    "digital chest film": (
        {"Modality": ("DX",), "BodyPartExamined": ("CHEST",), "ViewPosition": ("AP",)},
        ["chest x-ray"],
    ),
    "soft-tissue head CT": (
        {"Modality": ("CT",), "BodyPartExamined": ("HEAD",), "SeriesDescription": ("Head 5.0 soft",)},
        ["head CT"],
    ),
    "head CT without description": ({"Modality": ("CT",), "BodyPartExamined": ("HEAD",)}, ["head CT"]),
    "bone-kernel head CT": (
        {"Modality": ("CT",), "BodyPartExamined": ("HEAD",), "SeriesDescription": ("Head 1.0 BONE",)},
        [],
    ),
    "brain FLAIR": (
        {"Modality": ("MR",), "BodyPartExamined": ("BRAIN",), "SeriesDescription": ("AX FLAIR",)},
        ["brain FLAIR"],
    ),
    "knee": ({"Modality": ("MR",), "BodyPartExamined": ("KNEE",), "SeriesDescription": ("pd sag",)}, []),
    "our own overlay": ({"Modality": ("OT",), "BodyPartExamined": ("CHEST",)}, []),
    "our own report": ({"Modality": ("SR",), "BodyPartExamined": ("CHEST",)}, []),
}


@pytest.mark.parametrize("name", SERIES)
def test_the_example_routes_take_what_a_department_wants_and_nothing_else(name: str) -> None:
    attributes, expected = SERIES[name]
    config, _ = load_config(EXAMPLE)
    decision = decide(config, discover().detectors, SeriesSummary(SeriesReference("1.2", "1.2.3"), 1, attributes))
    assert [route.name for route in decision.taken] == expected
    assert all(reason.text for reason in decision.reasons)
