"""The configuration: what is right is frozen, what is wrong stops the start and names its line."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from dicomnode.config import Condition, Config, load_config, parse_config
from dicomnode.errors import ConfigError
from dicomnode.store.engine import Store
from tests.unit.config_keys import config_keys

PEER = '[[peer]]\nname = "pacs"\nae_title = "PACS"\nhost = "h"\nport = 104\n'
ROUTE = '[[route]]\nname = "r"\ndetector = "cxr"\nsend_to = ["pacs"]\n'
GOOD = f'{PEER}{ROUTE}when = {{ Modality = "CT" }}\n'

FAULTS = {
    "unknown key": ("[node]\nport = 1\nprot = 2\n", 3, "node.prot: unknown key"),
    "unknown table": ("[node]\n\n[nodes]\nport = 1\n", 3, "nodes: unknown key"),
    "unknown key of a peer": (PEER + "prot = 1\n", 6, "peer[1].prot: unknown key"),
    "unknown key of the second peer": (PEER + PEER.replace("pacs", "b") + "prot = 1\n", 11, "peer[2].prot"),
    "unknown operator": (PEER + ROUTE + '\nwhen = { Modality = { regx = "CT" } }\n', 11, "Modality.regx: unknown key"),
    "unknown operator inside not": (PEER + ROUTE + "when.Rows.not.mini = 3\n", 10, "Rows.not.mini: unknown key"),
    "text for a number": ('[node]\nport = "11112"\n', 2, "node.port"),
    "true for a number": ("[receive]\nmax_associations = true\n", 2, "receive.max_associations"),
    "number for true": ("[assemble]\nuse_c_find = 1\n", 2, "assemble.use_c_find"),
    "infinite time": ("[assemble]\nquiet_period_s = inf\n", 2, "assemble.quiet_period_s"),
    "time that is no number": ("[assemble]\nquiet_period_s = nan\n", 2, "assemble.quiet_period_s"),
    "table for a text": ("[node]\nhost = {}\n", 2, "node.host"),
    "date": ("[node]\nhost = 2026-01-01\n", 2, "a date or time has to be a text in quotes"),
    "out of range": ("[node]\nport = 65536\n", 2, "node.port"),
    "AE title too long": ('[node]\nae_title = "SEVENTEENLETTERS!"\n', 2, "node.ae_title: an AE title"),
    "UID root": ('[node]\nuid_root = "1.02"\n', 2, "node.uid_root"),
    "accelerator": ('[node]\naccelerator = "gpu"\n', 2, "node.accelerator"),
    "missing key": ('\n[[peer]]\nname = "a"\nae_title = "A"\nhost = "h"\n', 2, "peer[1].port: Field required"),
    "TLS without authority": (PEER + 'tls = { cert = "c.pem" }\n', 6, "peer[1].tls.ca: Field required"),
    "commitment": (PEER + "commit = true\n", 6, "peer[1].commit"),
    "peer twice": (PEER + PEER, 7, "used twice"),
    "reserved peer name": (PEER.replace("pacs", "sender"), 2, "reserved"),
    "route twice": (GOOD + ROUTE + 'when = { Modality = "MR" }\n', 12, "used twice"),
    "unknown destination": (
        PEER
        + '[[route]]\nname = "r"\ndetector = "cxr"\nwhen = { Modality = "CT" }\nsend_to = [\n  "pacs",\n  "x"\n]\n',
        10,
        "there is no peer named 'x'",
    ),
    "no destination": (GOOD.replace('["pacs"]', "[]"), 9, "route[1].send_to"),
    "override for nobody": ('\n[results.peer."a.b"]\nobjects = ["sc"]\n', 2, "there is no peer named 'a.b'"),
    "unknown object": ('[results]\nobjects = ["sc", "seg"]\n', 2, "results.objects[2]"),
    "banner without its word": ('[results]\nbanner = "for everybody"\n', 2, "RESEARCH"),
    "retention below six months": ("[audit]\nretention_days = 182\n", 2, "audit.retention_days"),
    "waits in the wrong order": ("\n[assemble]\nmax_wait_s = 10.0\n", 2, "max_wait_s is shorter"),
    "not a keyword": (PEER + ROUTE + '[route.when]\nModality = "CT"\nBodyPart = "CHEST"\n', 12, "not a DICOM keyword"),
    "tag number": (PEER + ROUTE + '[route.when]\n"(0008,0060)" = "CT"\n', 11, "not a DICOM keyword"),
    "sequence": (PEER + ROUTE + "[route.when]\nRequestAttributesSequence = { exists = true }\n", 11, "sequence"),
    "pixels": (PEER + ROUTE + "[route.when]\nPixelData = { exists = true }\n", 11, "bulk data"),
    "empty when": (PEER + ROUTE + "when = {}\n", 10, "this would take every series"),
    "empty condition": (PEER + ROUTE + "when = { Rows = {} }\n", 10, "matches nothing"),
    "empty list": (PEER + ROUTE + "when = { Rows = [] }\n", 10, "matches nothing"),
    "true as a value": (PEER + ROUTE + "when = { Rows = true }\n", 10, "not true or false"),
    "true in a list": (PEER + ROUTE + "when = { Rows = [1, true] }\n", 10, "Rows[2]"),
    "broken expression": (PEER + ROUTE + "when = { Modality = { regex = '(' } }\n", 10, "not a regular expression"),
    "bounds in the wrong order": (PEER + ROUTE + "when = { Rows = { min = 3, max = 2 } }\n", 10, "min is greater"),
    "TOML syntax": ("[node]\nport = \n", 2, "not valid TOML"),
    "TOML that ends too early": ('[node]\nhost = """a\nb\n', 4, "not valid TOML"),
    "key twice": ("[node]\nport = 1\nport = 2\n", 3, "not valid TOML"),
}


def fault_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "x.toml")
    return str(caught.value)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_stops_the_start_and_names_its_line(name: str) -> None:
    text, line, message = FAULTS[name]
    said = fault_of(text)
    assert re.search(rf"^x\.toml, line {line}: .*{re.escape(message)}", said, re.MULTILINE), said


def test_every_fault_of_a_file_is_reported_at_once() -> None:
    said = fault_of('[node]\nprot = 1\nport = "a"\n[audit]\nretention_days = 1\n').splitlines()
    assert sorted(line.split(":")[0] for line in said) == ["x.toml, line 2", "x.toml, line 3", "x.toml, line 5"]


def test_a_fault_is_reported_once_even_where_several_types_were_possible() -> None:
    assert len(fault_of(PEER + ROUTE + "when = { Rows = [[1]] }\n").splitlines()) == 1


def test_text_over_several_lines_is_not_taken_for_tables() -> None:
    text = '[results]\nbanner = """RESEARCH\n[node]\nport = 1"""\n\n[node]\nport = 0.5\n'
    assert fault_of(text).startswith("x.toml, line 7: node.port")


def test_dotted_keys_have_their_own_lines() -> None:
    assert fault_of("node.port = 1\nnode.prot = 2\n").startswith("x.toml, line 2: node.prot")


def test_a_file_that_cannot_be_read_is_a_configuration_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "latin.toml")


def test_an_empty_file_is_the_defaults() -> None:
    config, source = parse_config("")
    assert config == Config()
    assert len(source.sha256) == 64
    assert source.sha256 != parse_config("# changed\n")[1].sha256


def test_the_configuration_is_frozen() -> None:
    config, _ = parse_config(GOOD)
    with pytest.raises(ValidationError, match="frozen"):
        config.node.port = 1
    with pytest.raises(ValidationError, match="frozen"):
        config.route[0].detector = "other"


def test_no_setting_is_a_secret() -> None:
    """Passwords come from the environment or a file, never from here; ``key`` is the path of one."""
    suspicious = re.compile(r"secret|password|passwd|token|credential|api_?key", re.IGNORECASE)
    assert len(config_keys()) > 40
    assert not [key for key in config_keys() if suspicious.search(".".join(key))]


def test_a_password_in_a_database_url_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError) as caught:
        Store("postgresql://node:hunter2@db/node")
    assert "hunter2" not in str(caught.value)


def test_conditions_may_be_values_lists_or_tables() -> None:
    config, _ = parse_config(
        PEER
        + ROUTE
        + '[route.when]\nModality = ["CR", "DX"]\nRows = { min = 512, max = 4096.5 }\nKVP = 70\n'
        + 'BodyPartExamined = { exists = true, not = { regex = "knee" } }\n'
    )
    assert config.route[0].when == {
        "Modality": Condition(equals=("CR", "DX")),
        "Rows": Condition(min=512, max=4096.5),
        "KVP": Condition(equals=(70,)),
        "BodyPartExamined": Condition(exists=True, not_=Condition(regex="knee")),
    }
    assert config.rule_keywords == {"Modality", "Rows", "KVP", "BodyPartExamined"}


def test_a_peer_may_override_which_objects_it_gets() -> None:
    config, _ = parse_config(PEER + '[results.peer.pacs]\nobjects = ["sr"]\n')
    assert config.results.objects_for("pacs") == ("sr",)
    assert config.results.objects_for("another") == ("sc", "sr")


def test_peers_are_found_by_name_and_by_ae_title() -> None:
    config, _ = parse_config(PEER)
    assert config.peer_named("pacs") is config.peer[0] is config.peer_with_ae_title(" PACS ")
    assert config.peer_named("PACS") is None
    assert config.peer_with_ae_title("pacs") is None


def test_tls_to_a_peer_is_its_files() -> None:
    config, _ = parse_config(PEER + 'tls = { ca = "ca.pem", cert = "c.pem", key = "k.pem" }\n')
    tls = config.peer[0].tls
    assert tls
    assert (tls.ca, tls.cert, tls.key) == (Path("ca.pem"), Path("c.pem"), Path("k.pem"))


def test_the_database_lies_in_the_data_folder_unless_it_is_named() -> None:
    config, _ = parse_config('[node]\ndata_dir = "/srv/node"\n')
    assert config.node.database_url == "sqlite:////srv/node/dicomnode.sqlite3"
    config, _ = parse_config('[node]\ndatabase = "sqlite:////db/x"\n')
    assert config.node.database_url == "sqlite:////db/x"


def test_a_large_file_is_read_quickly() -> None:
    text = "".join(PEER.replace("pacs", f"p{index}") for index in range(1000))
    started = time.perf_counter()
    assert len(parse_config(text)[0].peer) == 1000
    fault_of(text + "wrong = 1\n")
    assert time.perf_counter() - started < 5
