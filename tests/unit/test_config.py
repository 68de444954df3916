"""The configuration: what is right is frozen, what is wrong stops the start and names its line."""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import ValidationError

from dicomnode.config import Condition, Config, FolderPeer, Peer, StowPeer, load_config, loading, parse_config
from dicomnode.config.results import NEEDS, PROFILES, SEND_ORDER, fallback, stand_ins
from dicomnode.errors import ConfigError
from dicomnode.store.engine import Store
from tests.unit.config_keys import Key, config_keys

PEER = '[[peer]]\nname = "pacs"\nae_title = "PACS"\nhost = "h"\nport = 104\n'
ROUTE = '[[route]]\nname = "r"\ndetector = "cxr"\nsend_to = ["pacs"]\n'
STOW = '[[peer]]\nname = "web"\nstow = "https://pacs.example.org/dicom-web"\n'
FOLDER = '[[peer]]\nname = "share"\nfolder = "/srv/results"\n'
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
    "commitment that is a text": (PEER + 'commit = "yes"\n', 6, "peer[1].commit"),
    "peer without a way to it": ('[[peer]]\nname = "a"\n', 1, "peer[1].ae_title: Field required"),
    "STOW-RS with a DICOM port": (STOW + "port = 104\n", 4, "peer[1].port: unknown key"),
    "STOW-RS that may send": (STOW + "may_send = true\n", 4, "peer[1].may_send: unknown key"),
    "commitment from STOW-RS": (STOW + "commit = true\n", 4, "peer[1].commit: unknown key"),
    "folder with a DICOM port": (FOLDER + "port = 104\n", 4, "peer[1].port: unknown key"),
    "token for DICOM": (PEER + 'token_env = "TOKEN"\n', 6, "peer[1].token_env: unknown key"),
    "token in the file": (STOW + 'token = "abc"\n', 4, "peer[1].token: unknown key"),
    "token without TLS": (STOW.replace("https", "http") + 'token_env = "TOKEN"\n', 1, "must not travel without TLS"),
    "TLS for a URL without it": (
        STOW.replace("https", "http") + 'tls = { ca = "ca.pem" }\n',
        1,
        "tls says nothing to http",
    ),
    "key without certificate": (PEER + 'tls = { ca = "ca.pem", key = "k.pem" }\n', 6, "peer[1].tls: a key without"),
    "token from two places": (STOW + 'token_env = "T"\ntoken_file = "t"\n', 1, "token_file or token_env, not both"),
    "variable that is none": (STOW + 'token_env = "my token"\n', 4, "peer[1].token_env"),
    "address that is no URL": (STOW.replace("https://", ""), 3, "peer[1].stow"),
    "password in the URL": (STOW.replace("pacs.", "node:secret@pacs."), 3, "peer[1].stow"),
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
    "objects without words": ('[results]\nobjects = ["seg", "ko"]\n', 1, "none of these objects says"),
    "folder without a name": ('[[peer]]\nname = "f"\nfolder = ""\n', 3, "the folder has no name"),
    "unknown object": ('[results]\nobjects = ["sc", "video"]\n', 2, "results.objects[2]"),
    "object that comes by itself": ('[results]\nobjects = ["sr-volume"]\n', 2, "results.objects[1]"),
    "no object": ("[results]\nobjects = []\n", 2, "results.objects"),
    "unknown profile": ('[results]\nprofile = "everything"\n', 2, "results.profile"),
    "profile and objects": ('[results]\nprofile = "sc-sr"\nobjects = ["sc"]\n', 1, "profile or objects, not both"),
    "status of a result": ('[results]\nstatus = ["findings"]\n', 2, "results.status[1]"),
    "override that says nothing": (PEER + "[results.peer.pacs]\n", 6, "give profile, objects or status"),
    "override of the banner": (PEER + '[results.peer.pacs]\nbanner = "RESEARCH"\n', 7, "banner: unknown key"),
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


def test_a_file_full_of_faults_is_gone_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration of a quarter of a megabyte with hundreds of faults is refused at once, not in ten seconds."""
    passes, number = [], loading._line_numbers
    monkeypatch.setattr(loading, "_line_numbers", lambda text: (passes.append(1), number(text))[1])
    text = "".join(f"key_{index} = 1\n" for index in range(500))
    with pytest.raises(ConfigError) as fault:
        parse_config(text)
    assert "line 500: key_499: unknown key" in str(fault.value)
    assert len(passes) == 1


def test_a_key_of_tables_in_tables_without_end_is_refused_before_it_takes_the_memory() -> None:
    """The parser keeps every prefix of a dotted key: seventeen thousand parts took a gigabyte."""
    tracemalloc.start()
    try:
        assert fault_of("[node]\n" + "a." * 17_000 + "b = 1\n") == "x.toml, line 2: too many dots in one line"
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_line_may_hold_a_thousand_addresses() -> None:
    assert "dots" not in fault_of("[node]\nnothing = [" + '"10.1.2.3", ' * 1000 + "]\n")


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


PLACES = ("_file", "_env")
"""How a setting ends that names the place of a secret, a file or an environment variable."""


def secrets(keys: Iterable[Key]) -> list[Key]:
    suspicious = re.compile(r"secret|password|passwd|token|credential|api_?key", re.IGNORECASE)
    return [key for key in keys if suspicious.search(".".join(key)) and not key[-1].endswith(PLACES)]


def test_no_setting_is_a_secret() -> None:
    """Passwords come from the environment or a file, never from here; ``key`` is the path of one."""
    assert len(config_keys()) > 40
    assert secrets(config_keys()) == []
    assert secrets([("peer", "token"), ("peer", "token_file"), ("node", "api_key")]) == [
        ("peer", "token"),
        ("node", "api_key"),
    ]


def test_a_token_is_never_repeated_in_a_fault() -> None:
    """Somebody who writes the token where its place belongs does not find it in the log."""
    said = fault_of(STOW + 'token_env = "eyJhbGciOi.very-secret"\n')
    assert "token_env" in said
    assert "very-secret" not in said
    assert "hunter2" not in fault_of(STOW.replace("pacs.", "node:hunter2@pacs."))


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
    assert config.results.status_for("pacs") == ("not analysed",)


def test_a_peer_may_override_its_profile_or_its_status_pages_alone() -> None:
    text = '[results]\nobjects = ["sr", "seg"]\nstatus = ["not analysed", "failed"]\n' + PEER + STOW
    text += '[results.peer.pacs]\nprofile = "sc-only"\n[results.peer.web]\nstatus = []\n'
    results = parse_config(text)[0].results
    assert (results.objects_for("pacs"), results.status_for("pacs")) == (("sc",), ("not analysed", "failed"))
    assert (results.objects_for("web"), results.status_for("web")) == (("seg", "sr", "sr-volume"), ())


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_sent_in_an_order_in_which_every_reference_resolves(profile: str) -> None:
    """What is referred to goes first, and a kind that needs others is never chosen without them."""
    config, _ = parse_config(f'[results]\nprofile = "{profile}"\n')
    kinds = config.results.objects_for("anybody")
    assert set(PROFILES[profile]) <= set(kinds)
    assert list(kinds) == sorted(kinds, key=SEND_ORDER.index)
    for kind in kinds:
        assert set(NEEDS.get(kind, ())) <= set(kinds[: kinds.index(kind)])


@pytest.mark.parametrize("kind", SEND_ORDER)
def test_a_refused_object_is_stood_in_for_until_nothing_is_left(kind: str) -> None:
    """However many kinds a peer refuses, a result that can still be told is told; no two kinds go in circles."""
    refused = [kind]
    while (other := fallback(kind, refused)) is not None:
        assert other in stand_ins(kind)
        refused.append(other)
    assert set(refused) == {kind, *stand_ins(kind)}
    assert {"pdf", "page"} <= set(refused)


def test_what_may_have_to_stand_in_is_built_with_what_is_sent() -> None:
    config, _ = parse_config(PEER + STOW + '[results.peer.web]\nprofile = "ihe-air"\n')
    assert config.results.built_for(["pacs"]) == {"sc", "sr", "pdf", "page"}
    assert {"sc", "pdf", "page", "seg", "pm", "ko", "sr", "sr-volume"} == config.results.built_for(["pacs", "web"])


def test_a_peer_is_reached_by_dicom_by_stow_or_as_a_folder() -> None:
    config, _ = parse_config(PEER + STOW + 'token_file = "/run/secrets/pacs"\n' + FOLDER)
    by_dicom, by_stow, folder = config.peer
    assert isinstance(by_dicom, Peer)
    assert isinstance(by_stow, StowPeer)
    assert isinstance(folder, FolderPeer)
    assert config.entities == (by_dicom,)
    assert (by_stow.token_file, folder.folder) == (Path("/run/secrets/pacs"), Path("/srv/results"))


def test_peers_are_found_by_name_and_by_ae_title() -> None:
    config, _ = parse_config(PEER)
    assert config.peer_named("pacs") is config.peer[0] is config.peer_with_ae_title(" PACS ")
    assert config.peer_named("PACS") is None
    assert config.peer_with_ae_title("pacs") is None


def test_tls_to_a_peer_is_its_files() -> None:
    config, _ = parse_config(PEER + 'tls = { ca = "ca.pem", cert = "c.pem", key = "k.pem" }\n')
    tls = config.entities[0].tls
    assert tls
    assert (tls.ca, tls.cert, tls.key) == (Path("ca.pem"), Path("c.pem"), Path("k.pem"))


def test_the_database_lies_in_the_data_folder_unless_it_is_named() -> None:
    config, _ = parse_config('[node]\ndata_dir = "/srv/node"\n')
    assert config.node.database_url == "sqlite:////srv/node/dicomnode.sqlite3"
    config, _ = parse_config('[node]\ndatabase = "sqlite:////db/x"\n')
    assert config.node.database_url == "sqlite:////db/x"


def test_a_large_file_is_read_quickly() -> None:
    text = "".join(PEER.replace("pacs", f"p{index}") for index in range(1000))
    started = time.process_time()
    assert len(parse_config(text)[0].peer) == 1000
    fault_of(text + "wrong = 1\n")
    assert time.process_time() - started < 5
