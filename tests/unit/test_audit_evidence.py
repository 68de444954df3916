"""A bundle of evidence: checked by its own script in a bare interpreter, and refused when anything was changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomnode.audit import AuditFilter, append
from dicomnode.audit.bundle import Bundle, write_bundle
from dicomnode.audit.chain import canonical
from dicomnode.audit.checkpoint import head_of
from dicomnode.audit.events import Event
from dicomnode.audit.signing import SigningKey
from dicomnode.errors import Permanent
from dicomnode.store.engine import Store
from tests.unit.audit_fixtures import intruder, new_log

ROWS = 12


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.make(tmp_path_factory.mktemp("keys") / "key.pem")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Store]:
    """Twelve rows; P1 is the patient of rows 1, 4, 7 and 10."""
    store = new_log(tmp_path, ROWS)
    yield store
    store.close()


def write(store: Store, path: Path, key: SigningKey, lines: list[str] | None = None, **wanted: Any) -> Bundle:
    with store.read() as session:
        return write_bundle(session, AuditFilter(**wanted), path, key, "NODE", lines or [])


def unpacked(path: Path) -> Path:
    folder = path.with_suffix("")
    with zipfile.ZipFile(path) as bundle:
        bundle.extractall(folder)
    return folder


def check(folder: Path, *, bare: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the script of the bundle. ``bare``: an interpreter without any package, so that openssl has to do it."""
    flags = ["-I", "-S"] if bare else ["-I"]
    environment = {"PATH": os.environ["PATH"]}
    command = [sys.executable, *flags, str(folder / "verify.py"), str(folder)]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=60)


def test_a_bundle_holds_the_rows_asked_for_and_hides_the_others(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """What is not asked for stays here: of other patients' rows a bundle has the hash alone."""
    made = write(log, tmp_path / "p1.zip", key, patient="P1")
    assert (made.rows, made.withheld, made.first, made.last) == (4, 8, 1, ROWS)
    folder = unpacked(tmp_path / "p1.zip")
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["seq"] for row in rows] == [1, 4, 7, 10]
    links = [line.split() for line in (folder / "links.txt").read_text().splitlines()]
    assert [int(seq) for seq, _ in links] == list(range(ROWS + 1))
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"P2" not in content
    assert b"P0" not in content
    assert oct((tmp_path / "p1.zip").stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize("bare", [False, True], ids=["with cryptography", "with openssl alone"])
def test_anybody_can_check_a_bundle_without_dicomnode(log: Store, tmp_path: Path, key: SigningKey, bare: bool) -> None:
    """The script of the bundle, in an interpreter that does not see dicomnode, in another folder."""
    if bare and shutil.which("openssl") is None:
        pytest.fail("openssl is not installed")
    write(log, tmp_path / "p1.zip", key, patient="P1")
    folder = unpacked(tmp_path / "p1.zip")
    answer = check(folder, bare=bare)
    assert (answer.returncode, answer.stderr) == (0, "")
    expected = hashlib.sha256((folder / "public_key.pem").read_bytes()).hexdigest()
    assert answer.stdout == f"OK: 4 rows, 1 checkpoints agree; compare: public_key.pem {expected}\n"


def edit_row(folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Gr\xc3\xbcn", b"Rot!!", 1))


def drop_row(folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))


def edit_link(folder: Path) -> None:
    path = folder / "links.txt"
    path.write_text(path.read_text().replace(path.read_text().split()[7], "0" * 64))


def cut_links(folder: Path) -> None:
    path = folder / "links.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def edit_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"origin":"NODE"', '"origin":"ELSE"'))


def edit_signature(folder: Path) -> None:
    path = folder / "manifest.sig"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def another_key(folder: Path) -> None:
    other = SigningKey.make(folder / "other.pem")
    (folder / "public_key.pem").write_text(other.public.pem)


def edit_readme(folder: Path) -> None:
    (folder / "README.txt").write_text("All is well.")


TAMPERING = (edit_row, drop_row, edit_link, cut_links, edit_manifest, edit_signature, another_key, edit_readme)


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda one: one.__name__)
@pytest.mark.parametrize("bare", [False, True], ids=["cryptography", "openssl"])
def test_a_bundle_that_was_changed_does_not_pass(
    log: Store, tmp_path: Path, key: SigningKey, tamper: Callable[[Path], None], bare: bool
) -> None:
    write(log, tmp_path / "p1.zip", key, patient="P1")
    folder = unpacked(tmp_path / "p1.zip")
    tamper(folder)
    answer = check(folder, bare=bare)
    assert answer.returncode == 1
    assert answer.stderr.startswith("NOT OK: ")


def resigned(folder: Path, key: SigningKey) -> None:
    """What somebody with the key can do: manifest and signature computed anew over changed files."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path.write_text(canonical(manifest))
    (folder / "manifest.sig").write_bytes(key.sign(path.read_bytes()))


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (edit_row, "row 1 is not the row that was hashed"),
        (edit_link, "is not the row that was hashed"),
        (cut_links, "a link is missing"),
        (drop_row, "rows or head differ"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_even_the_holder_of_the_key_cannot_change_a_row_without_its_hash(
    log: Store, tmp_path: Path, key: SigningKey, tamper: Callable[[Path], None], words: str
) -> None:
    """The signature is not all: each row is hashed again and has to have the hash at its place in the chain."""
    write(log, tmp_path / "p1.zip", key, patient="P1")
    folder = unpacked(tmp_path / "p1.zip")
    tamper(folder)
    resigned(folder, key)
    answer = check(folder)
    assert answer.returncode == 1
    assert words in answer.stderr


def test_a_checkpoint_kept_elsewhere_convicts_a_log_that_was_rewritten(
    log: Store, tmp_path: Path, key: SigningKey
) -> None:
    """B7: the checkpoints of the second place lie beside the rows and have to agree with the links."""
    with log.read() as session:
        line = head_of(session, "NODE").signed(key).line()
    write(log, tmp_path / "good.zip", key, [line], patient="P1")
    assert "2 checkpoints agree" in check(unpacked(tmp_path / "good.zip")).stdout
    foreign = line.replace(json.loads(line)["hash"], "ab" * 32)
    write(log, tmp_path / "bad.zip", key, [foreign], patient="P1")
    answer = check(unpacked(tmp_path / "bad.zip"))
    assert answer.returncode == 1
    assert f"a checkpoint of {ROWS} rows disagrees" in answer.stderr


def test_no_evidence_is_made_of_a_damaged_log(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """A row behind the first one asked for was changed, though nobody asked for it."""
    with intruder(log) as connection:
        connection.execute("UPDATE audit SET body = '{}' WHERE seq = 6")
    with pytest.raises(Permanent, match="row 6 is not as it was written"):
        write(log, tmp_path / "p1.zip", key, patient="P1")
    assert not (tmp_path / "p1.zip").exists()


def test_evidence_of_nothing_is_refused_and_no_file_is_written_over(
    log: Store, tmp_path: Path, key: SigningKey
) -> None:
    with pytest.raises(Permanent, match="no row of the log fits"):
        write(log, tmp_path / "p9.zip", key, patient="P9")
    (tmp_path / "mine.zip").write_text("mine")
    with pytest.raises(Permanent, match="is there already"):
        write(log, tmp_path / "mine.zip", key, patient="P1")
    assert (tmp_path / "mine.zip").read_text() == "mine"


def test_rows_with_any_text_pass(tmp_path: Path, key: SigningKey) -> None:
    """Line separators, quotes and characters beyond the first plane survive the way out and back."""
    store = new_log(tmp_path)
    with store.write() as session:
        append(session, Event.INFERENCE, {"PatientID": 'a"b\\c', "text": "\u2028\u0085\x00\U0001f600\n"})
        append(session, Event.DELIVERED, {"PatientID": "other"})
    write(store, tmp_path / "odd.zip", key)
    for bare in (False, True):
        assert check(unpacked(tmp_path / "odd.zip"), bare=bare).returncode == 0
    store.close()


def test_the_script_is_short_enough_to_be_read() -> None:
    """About 30 lines that check: an auditor has to be able to read what he runs."""
    import dicomnode.audit.bundle as module

    text = (Path(module.__file__).parent / module.SCRIPT).read_text(encoding="utf-8")
    checking = [line for line in text.partition("check(is_signed")[2].splitlines() if line.strip()]
    assert len(checking) <= 30
    assert "dicomnode" not in text.partition('"""')[2].partition('"""')[2]
