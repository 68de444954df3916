"""Files that hold secrets: open to others, the node does not start; doctor and status say what is wrong and when."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dicomnode.config import Config, check_secrets, parse_config, secret_files
from dicomnode.config.tls import ReceiveTls, TlsFiles
from dicomnode.console.metrics import prometheus
from dicomnode.console.status import read_status, troubles
from dicomnode.dicom.certificates import read_certificates
from dicomnode.dicom.private_file import read_private, require_private
from dicomnode.errors import ConfigError
from dicomnode.node.build import Blueprint
from dicomnode.node.locks import exclusive
from dicomnode.node.supervisor import Node
from dicomnode.node.tls_checks import TlsCheck, check_secrets_and_tls
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate
from dicomnode.store.spool import Spool
from tests.certificates import Authority

SECRET = "sEcReT.0123456789"


class Secrets:
    """A configuration with one secret file of each kind, all of them in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.node = self.authority.issue("node", cn="node", ip=["127.0.0.1"], password=SECRET.encode())
        self.client = self.authority.issue("client")
        self.stow = self.authority.issue("stow", password=SECRET.encode())
        for name in ("password", "stow-password", "token"):
            (folder / name).write_text(SECRET)
            (folder / name).chmod(0o600)
        self.crl: Path | None = None
        self.files = [self.node.key, self.client.key, self.stow.key]
        self.files += [folder / name for name in ("password", "stow-password", "token")]

    @property
    def text(self) -> str:
        return f"""[node]
data_dir = "{self.folder / "data"}"
[receive.tls]
port = 0
cert = "{self.node.cert}"
key = "{self.node.key}"
key_password_file = "{self.folder / "password"}"
ca = "{self.authority.ca}"
{f'crl = "{self.crl}"' if self.crl else ""}
[[peer]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
tls = {{ ca = "{self.authority.ca}", cert = "{self.client.cert}", key = "{self.client.key}" }}
[[peer]]
name = "web"
stow = "https://127.0.0.1:1/"
token_file = "{self.folder / "token"}"
[peer.tls]
ca = "{self.authority.ca}"
{f'crl = "{self.crl}"' if self.crl else ""}
cert = "{self.stow.cert}"
key = "{self.stow.key}"
key_password_file = "{self.folder / "stow-password"}"
"""

    @property
    def blueprint(self) -> Blueprint:
        return Blueprint(*parse_config(self.text))

    def checks(self) -> list[TlsCheck]:
        return list(check_secrets_and_tls(self.blueprint.config))


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    monkeypatch.setattr("dicomnode.node.tls_checks._HANDSHAKE_S", 60.0)
    return Secrets(tmp_path)


def test_every_setting_that_names_a_secret_file_is_looked_at(secrets: Secrets) -> None:
    """S18: a new setting for a key, password or token has to be added to ``secret_files``."""
    assert sorted(path for _, path in secret_files(secrets.blueprint.config)) == sorted(secrets.files)
    named = {name for table in (ReceiveTls, TlsFiles) for name in table.model_fields if "key" in name}
    assert named == {"key", "key_password_file", "key_password_env"}


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o620])
def test_a_secret_that_others_can_read_stops_the_start(secrets: Secrets, index: int, mode: int) -> None:
    """S18: whichever it is; the line of its setting is named, nothing of the secret is."""
    Node(secrets.blueprint, ("receive",))
    secrets.files[index].chmod(mode)
    with pytest.raises(ConfigError, match=r"open to others: its mode has to be 0600") as caught:
        Node(secrets.blueprint, ("receive",))
    line = int(str(caught.value).split("line ")[1].split(":")[0])
    assert str(secrets.files[index]) in secrets.text.splitlines()[line - 1]
    assert SECRET not in str(caught.value)


def test_serve_refuses_with_exit_status_2(secrets: Secrets) -> None:
    """S18: the process itself, before it opens a port or the database."""
    path = secrets.folder / "node.toml"
    path.write_text(secrets.text)
    secrets.node.key.chmod(0o644)
    command = [sys.executable, "-m", "dicomnode", "serve", "--config", str(path), "--role", "receive"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "receive.tls.key" in ended.stderr
    assert "its mode has to be 0600" in ended.stderr
    assert SECRET not in ended.stderr + ended.stdout
    assert not (secrets.folder / "data").exists()


def test_a_secret_that_is_not_there_yet_does_not_stop_the_start(secrets: Secrets) -> None:
    """S18: a token that another program writes later is no reason to turn scanners away; doctor tells."""
    (secrets.folder / "token").unlink()
    check_secrets(secrets.blueprint.config, secrets.blueprint.source)
    assert [one.level for one in secrets.checks() if one.check == "peer web: token_file"] == ["fault"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of several users")
def test_roots_file_may_be_read_by_its_group(request: pytest.FixtureRequest) -> None:
    """S18: the rule of PostgreSQL, for keys that the system hands to a service; of another user it is refused."""
    (shared := Path(tempfile.mkdtemp(dir="/tmp"))).chmod(0o755)
    request.addfinalizer(lambda: shutil.rmtree(shared))
    secret = shared / "key"
    secret.write_text(SECRET)
    probe = (
        "import os, sys\nfrom pathlib import Path\nfrom dicomnode.dicom.private_file import require_private\n"
        "os.setgid(12345); os.setuid(12345)\nrequire_private(Path(sys.argv[1]), 'it')\n"
    )

    def judged(owner: int, mode: int) -> str:
        os.chown(secret, owner, 12345)
        secret.chmod(mode)
        ended = subprocess.run(
            [sys.executable, "-c", probe, str(secret)], capture_output=True, text=True, timeout=60, cwd="/"
        )
        return ended.stderr.strip().splitlines()[-1].split(": ", 1)[1] if ended.returncode else ""

    assert judged(0, 0o640) == ""
    assert judged(12345, 0o600) == ""
    assert judged(0, 0o660) == "it is open to others: its mode has to be 0640 or stricter"
    assert judged(0, 0o644) == "it is open to others: its mode has to be 0640 or stricter"
    assert judged(12345, 0o640) == "it is open to others: its mode has to be 0600 or stricter"
    assert (
        judged(54321, 0o600) == "it belongs to another user: its owner has to be the user that runs the node, or root"
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", ["folder", "fifo", "missing"])
def test_a_secret_is_a_file(tmp_path: Path, make: str) -> None:
    """S18: anything else is refused, without waiting for what never comes."""
    path = tmp_path / "key"
    if make == "folder":
        path.mkdir(mode=0o700)
    if make == "fifo":
        os.mkfifo(path, 0o600)
    for look in (require_private, read_private):
        with pytest.raises(ConfigError, match=r"is no file|cannot be read"):
            look(path, "the key")


def test_what_the_node_makes_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """S18: the data folder is made with mode 0700, by whichever command comes first."""
    before = os.umask(0o022)
    try:
        made = [tmp_path / name for name in ("locks", "spool", "database")]
        with exclusive(made[0], ["receive"]):
            pass
        Blueprint(*parse_config(f'[node]\ndata_dir = "{made[1]}"\n')).spool()
        store = Store(f"sqlite:///{made[2] / 'node.sqlite3'}")
        migrate(store)
        store.close()
    finally:
        os.umask(before)
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in made] == [0o700] * 3


def found(secrets: Secrets, check: str) -> list[tuple[str, str]]:
    return [(one.level, one.found) for one in secrets.checks() if one.check == check]


def test_doctor_finds_all_well(secrets: Secrets) -> None:
    """S18, S4: modes, dates, chain, a handshake with itself."""
    (secrets.folder / "data").mkdir(mode=0o700)
    assert {one.level for one in secrets.checks()} == {"ok"}
    [(_, handshake)] = found(secrets, "receive.tls")
    assert handshake.startswith("handshake with itself: TLSv1.3, TLS_")
    assert SECRET not in repr(secrets.checks())


def test_doctor_warns_of_an_open_data_folder(secrets: Secrets) -> None:
    """S18: patient data that everybody on the machine can read."""
    (secrets.folder / "data").mkdir()
    (secrets.folder / "data").chmod(0o755)
    [(level, said)] = found(secrets, "node.data_dir")
    assert level == "warning"
    assert "open to everybody" in said


@pytest.mark.parametrize(
    ("days", "level", "said"),
    [
        ((-30, -1), "fault", "has expired on"),
        ((1, 60), "fault", "is not valid yet"),
        ((-30, 20.5), "warning", "expires in 20 days"),
        ((-30, 60), "ok", "until 2"),
    ],
)
def test_doctor_tells_the_dates(secrets: Secrets, days: tuple[float, float], level: str, said: str) -> None:
    """Hot reload: what is renewed in time needs no restart, and who looks in time knows."""
    secrets.authority.issue("node", cn="node", ip=["127.0.0.1"], days=days, password=SECRET.encode())
    assert [(one[0], said in one[1]) for one in found(secrets, "receive.tls.cert")] == [(level, True)]


@pytest.mark.parametrize(
    ("days", "level", "said"),
    [((-8, -1), "fault", "over since 2"), ((-1, 0.5), "warning", "until 2"), ((-1, 6), "ok", "until 2")],
)
def test_doctor_tells_when_a_revocation_list_is_over(
    secrets: Secrets, days: tuple[float, float], level: str, said: str
) -> None:
    """S4: a list that is over shuts everybody out, so it is told a day before."""
    other = Authority(secrets.folder, "Other Authority").revoke(file="other")
    secrets.crl = secrets.authority.revoke(days=days)
    secrets.crl.write_bytes(other.read_bytes() + secrets.crl.read_bytes())
    (whole, one) = found(secrets, "receive.tls.crl")
    assert whole[0] == "ok"
    assert (one[0], said in one[1], "CN=Test Authority" in one[1]) == (level, True, True)
    assert found(secrets, "peer web: tls.crl") == [whole, one]
    secrets.crl.write_bytes(secrets.authority.ca.read_bytes())
    assert [level for level, _ in found(secrets, "receive.tls")] == ["fault"]


def test_doctor_finds_a_chain_in_the_wrong_order(secrets: Secrets) -> None:
    """S4: peers would not find the way from the node's certificate to its authority."""
    foreign = Authority(secrets.folder, "Foreign Authority")
    secrets.node.cert.write_bytes(secrets.node.cert.read_bytes() + foreign.ca.read_bytes())
    assert ("fault", "what follows CN=node in the file has not issued it") in found(secrets, "receive.tls.cert")
    secrets.authority.issue("node", cn="node", password=SECRET.encode())
    assert any("no alternative name" in said for _, said in found(secrets, "receive.tls.cert"))


def test_doctor_finds_files_that_do_not_fit(secrets: Secrets) -> None:
    """S18: what would stop the start is a fault beforehand."""
    secrets.node.key.write_bytes(secrets.client.key.read_bytes())
    [(level, said)] = found(secrets, "receive.tls")
    assert (level, "not that of the certificate" in said) == ("fault", True)


def test_status_shows_when_certificates_end(secrets: Secrets, tmp_path: Path) -> None:
    """Hot reload: days left in status, console, metrics; a trouble from thirty days before the end."""
    store = Store(f"sqlite:///{tmp_path / 'node.sqlite3'}")
    migrate(store)
    spool = Spool(tmp_path / "spool")
    config = secrets.blueprint.config
    shown = {one["setting"]: one for one in read_status(config, store, spool, time.time())["certificates"]}
    assert set(shown) == {"receive.tls", "peer pacs", "peer web"}
    assert shown["receive.tls"]["subject"] == "CN=node"
    assert 89 < shown["receive.tls"]["days_left"] <= 90
    secrets.authority.issue("client", days=(-9, -2))
    secrets.stow.cert.unlink()
    secrets.authority.issue("node", cn="node", days=(-1, 300), password=SECRET.encode())
    status = read_status(config, store, spool, time.time())
    said = [trouble for trouble in troubles(status) if "certificate" in trouble]
    assert said[0] == "certificate of peer pacs has expired"
    assert said[1].startswith("certificate of peer web: ")
    assert len(said) == 2
    samples = [line for line in prometheus(status).splitlines() if line.startswith("dicomnode_certificate_days_left{")]
    assert samples == [
        'dicomnode_certificate_days_left{setting="receive.tls"} 300',
        'dicomnode_certificate_days_left{setting="peer pacs"} -2',
    ]
    store.close()


def test_a_chain_is_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    """S4: each certificate and whether the one behind it issued it."""
    root = Authority(tmp_path)
    between = Authority(tmp_path, "Between", parent=root)
    leaf = between.issue("leaf", cn="leaf", dns=["a.test"], ip=["::1"])
    one, two = read_certificates(leaf.cert)
    assert (one.subject, one.issuer, one.issued_by_next, one.names) == (
        "CN=leaf",
        "CN=Between",
        True,
        ("a.test", "::1"),
    )
    assert (two.subject, two.issued_by_next) == ("CN=Between", None)
    assert f"sha256:{one.sha256}" == leaf.sha256
    with pytest.raises(ConfigError, match="holds no certificate"):
        read_certificates(leaf.key)


def test_a_node_without_tls_has_no_certificates() -> None:
    assert list(secret_files(Config())) == []
