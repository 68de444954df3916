"""The vault: what a thief of the file sees, what an intruder can change unseen, and who may look."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.vault import Entry, Vault
from dicomnode.errors import ConfigError, Permanent, Transient

PATIENT = Entry("patient", "ANON-1", {"PatientID": "SENTINEL-4711", "issuer": "SENTINEL-HOSPITAL"})
STUDY = Entry("study", "2.25.11", {"StudyInstanceUID": "1.2.826.0.1.77777", "patient": "ANON-1"})
PROJECT = "abcd"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A key for the vault."""
    path = tmp_path / "keys" / "vault.key"
    ProjectKey.create(path)
    return path


@pytest.fixture
def vault(tmp_path: Path, key_file: Path) -> Iterable[Vault]:
    """A vault with one patient and one Study in it."""
    with contextlib.closing(Vault(tmp_path / "vault.sqlite3", key_file, PROJECT)) as opened:
        opened.record([PATIENT, STUDY])
        yield opened


def _ignore(rows: Sequence[int]) -> None:
    assert rows


def _change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def _everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.glob("vault.sqlite3*"))


def test_found_again(vault: Vault, tmp_path: Path, key_file: Path) -> None:
    """D19: what was recorded is found by its pseudonym, also by a process that opens the file later."""
    vault.close()
    with contextlib.closing(Vault(tmp_path / "vault.sqlite3", key_file, PROJECT)) as later:
        found = later.find([("patient", "ANON-1"), ("study", "2.25.11"), ("study", "2.25.99")], _ignore)
    assert found["patient", "ANON-1"]["PatientID"] == "SENTINEL-4711"
    assert found["study", "2.25.11"]["StudyInstanceUID"] == "1.2.826.0.1.77777"
    assert len(found) == 2


def test_recorded_once(vault: Vault) -> None:
    """D19: the thousandth image of a Study adds no row about its patient."""
    assert vault.record([PATIENT, STUDY, Entry("uid", "2.25.12", {"value": "1.2.3"})]) == 1
    assert len(vault) == 3


def test_stolen_file_shows_nothing(vault: Vault, tmp_path: Path) -> None:
    """D19: neither identifiers nor pseudonyms nor their kinds stand in the files, the log included."""
    content = _everything(tmp_path)
    assert len(vault) == 2
    assert len(content) > 4096
    for plain in (b"SENTINEL", b"1.2.826", b"ANON-1", b"2.25.11", b"PatientID", b"patient", b"StudyInstanceUID"):
        assert plain not in content


def test_equal_values_look_different(vault: Vault, tmp_path: Path) -> None:
    """D19: two rows with the same content have different bytes and the same length: nothing can be counted."""
    vault.record([Entry("uid", f"2.25.{number}", {"value": "1.2.3" * number}) for number in (20, 1)])
    with contextlib.closing(sqlite3.connect(tmp_path / "vault.sqlite3")) as connection:
        sealed = [row[0] for row in connection.execute("SELECT sealed FROM entry")]
    assert len(set(sealed)) == 4
    assert {len(one) for one in sealed} == {256 + 16}


def test_file_is_private(vault: Vault, tmp_path: Path, key_file: Path) -> None:
    """D19: nobody else may read the files, and one that was opened to others is refused."""
    assert len(vault) == 2
    assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("vault.sqlite3*")} == {0o600}
    vault.close()
    (tmp_path / "vault.sqlite3").chmod(0o644)
    with pytest.raises(ConfigError, match="the vault is open to others"):
        Vault(tmp_path / "vault.sqlite3", key_file, PROJECT)


def test_another_key(vault: Vault, tmp_path: Path) -> None:
    """D19: with another key the vault does not open, and nothing is written to it."""
    vault.close()
    other = tmp_path / "other.key"
    ProjectKey.create(other)
    before = (tmp_path / "vault.sqlite3").read_bytes()
    with pytest.raises(ConfigError, match="not the one"):
        Vault(tmp_path / "vault.sqlite3", other, PROJECT)
    assert (tmp_path / "vault.sqlite3").read_bytes() == before


def test_no_key(tmp_path: Path) -> None:
    """D19: without its key there is no vault, and none is made."""
    with pytest.raises(ConfigError, match="the key of the vault"):
        Vault(tmp_path / "vault.sqlite3", tmp_path / "missing", PROJECT)
    assert not (tmp_path / "vault.sqlite3").exists()


SWAP_CONTENT = (
    "CREATE TABLE t AS SELECT * FROM entry",
    "UPDATE entry SET (nonce, sealed) = (SELECT nonce, sealed FROM t WHERE t.row = 3 - entry.row)",
)
SWAP_LOOKUP = (
    "CREATE TABLE t AS SELECT * FROM entry",
    "UPDATE entry SET lookup = row",
    "UPDATE entry SET lookup = (SELECT lookup FROM t WHERE t.row = 3 - entry.row)",
)
SWAP_NUMBERS = (
    "UPDATE entry SET row = row + 10",
    "UPDATE entry SET row = 2 WHERE row = 11",
    "UPDATE entry SET row = 1 WHERE row = 12",
)
MOVED = ("UPDATE entry SET row = row + 10",)
FLIPPED = ("UPDATE entry SET sealed = zeroblob(272)",)


@pytest.mark.parametrize("statements", [SWAP_CONTENT, SWAP_LOOKUP, SWAP_NUMBERS, MOVED, FLIPPED])
def test_moved_rows_are_refused(vault: Vault, tmp_path: Path, statements: tuple[str, ...]) -> None:
    """D19: rows that an intruder swapped, moved or altered are refused, however it was done."""
    _change(tmp_path / "vault.sqlite3", *statements)
    with pytest.raises(Permanent, match="not what was written"):
        vault.find([("patient", "ANON-1")], _ignore)


def test_row_of_another_project(vault: Vault, tmp_path: Path, key_file: Path) -> None:
    """D19: a row says nothing to another project, also when it is put there by hand."""
    with contextlib.closing(Vault(tmp_path / "vault.sqlite3", key_file, "other")) as other:
        assert other.find([("patient", "ANON-1")], _ignore) == {}
        lookup = other._cipher.lookup("other", "patient", "ANON-1")
        _change(
            tmp_path / "vault.sqlite3", f"UPDATE entry SET project = 'other', lookup = x'{lookup.hex()}' WHERE row = 1"
        )
        with pytest.raises(Permanent, match="row 1 is not what was written"):
            other.find([("patient", "ANON-1")], _ignore)


def test_audited_before_it_is_read(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """D19: the audit row is written before a row is opened; when it cannot be written, none is."""
    order: list[Any] = []
    opened = vault._cipher.open
    monkeypatch.setattr(vault._cipher, "open", lambda *place: order.append("open") or opened(*place))
    vault.find([("patient", "ANON-1"), ("study", "2.25.11")], lambda rows: order.append(list(rows)))
    assert order == [[1, 2], "open", "open"]

    def fails(rows: Sequence[int]) -> None:
        raise Transient("database: locked")

    order.clear()
    with pytest.raises(Transient):
        vault.find([("patient", "ANON-1")], fails)
    assert order == []


def test_rekey(vault: Vault, tmp_path: Path, key_file: Path) -> None:
    """D19: after re-keying everything is found under the new key, and nothing of the old sealing is left."""
    before, old = key_file.read_bytes(), sqlite3.connect(tmp_path / "vault.sqlite3")
    with contextlib.closing(old):
        sealed = [row[0] for row in old.execute("SELECT sealed FROM entry UNION ALL SELECT lookup FROM entry")]
    other = Vault(tmp_path / "vault.sqlite3", key_file, PROJECT)
    assert vault.rekey() == 2
    assert key_file.read_bytes() != before
    assert ProjectKey.load(key_file).retired == ()
    with contextlib.closing(other):
        assert other.find([("patient", "ANON-1")], _ignore)["patient", "ANON-1"]["PatientID"] == "SENTINEL-4711"
        assert other.record([Entry("uid", "2.25.13", {"value": "1.2.3"})]) == 1
    assert vault.find([("uid", "2.25.13")], _ignore)["uid", "2.25.13"]["value"] == "1.2.3"
    content = _everything(tmp_path)
    assert not [one for one in sealed if one in content]


def test_rekey_interrupted(vault: Vault, tmp_path: Path, key_file: Path) -> None:
    """D19: a re-keying that ended between the key file and the rows leaves a vault that opens, and can be run again."""
    vault.close()
    old = ProjectKey.load(key_file)
    ProjectKey.rotate(key_file)
    with contextlib.closing(Vault(tmp_path / "vault.sqlite3", key_file, PROJECT)) as later:
        assert later.key_id == old.id
        assert later.find([("patient", "ANON-1")], _ignore)
        later.rekey()
        assert later.key_id == ProjectKey.load(key_file).id != old.id
        assert later.find([("patient", "ANON-1")], _ignore)


def _many(path: Path, key_file: Path, number: int) -> None:
    vault = Vault(path, key_file, PROJECT)
    for round_ in range(8):
        shared = Entry("uid", f"2.25.{round_}", {"value": f"1.2.{round_}"})
        vault.record([shared, Entry("uid", f"2.25.{number}{round_:03}", {"value": f"1.{number}.{round_}"})])
    vault.close()


def test_four_processes(tmp_path: Path, key_file: Path) -> None:
    """D19: four processes that open a new vault at once and write lose nothing and number no row twice."""
    path, context = tmp_path / "vault.sqlite3", multiprocessing.get_context("spawn")
    processes = [context.Process(target=_many, args=(path, key_file, number)) for number in (1, 2, 3, 4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    names = [("uid", f"2.25.{number}{round_:03}") for number in (1, 2, 3, 4) for round_ in range(8)]
    shared = [("uid", f"2.25.{round_}") for round_ in range(8)]
    with contextlib.closing(Vault(path, key_file, PROJECT)) as vault:
        assert len(vault) == 40
        assert len(vault.find([*names, *shared], _ignore)) == 40  # type: ignore[list-item]
