"""The oldest rows leave for a signed archive, and what is left still proves itself (trust.md B7, B9, A5)."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicomnode.audit import append, verify
from dicomnode.audit import archive as archiving
from dicomnode.audit.archive import Archived, archive, remove_archived
from dicomnode.audit.archive_files import MANIFEST, ROWS, SIGNATURE, check_files
from dicomnode.audit.chain import canonical, row_hash
from dicomnode.audit.checkpoint import compare, head_of
from dicomnode.audit.events import Event
from dicomnode.audit.evidence import Asked, Findings, examine
from dicomnode.audit.signing import SigningKey
from dicomnode.errors import ConfigError, Permanent
from dicomnode.store.audit_sql import PROTECTED, TRIGGERS
from dicomnode.store.engine import Store
from dicomnode.store.schema import check_triggers
from tests.unit.audit_fixtures import check, intruder, new_log

OLD = datetime(2019, 1, 1, tzinfo=UTC)
NEW = datetime(2020, 1, 1, tzinfo=UTC)
OLD_ROWS, NEW_ROWS = 8, 4


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.make(tmp_path / "audit.key")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with eight rows of 2019, three of 2020 and one of now."""
    store = new_log(tmp_path_factory.mktemp("pristine"))
    times = [OLD + timedelta(days=number) for number in range(OLD_ROWS)]
    times += [NEW + timedelta(days=number) for number in range(NEW_ROWS - 1)] + [datetime.now(UTC)]
    with store.write() as session:
        for number, at in enumerate(times, 1):
            append(session, Event.INFERENCE, {"PatientID": f"P{number}", "text": "Grün"}, at)
    with store.engine.connect() as connection:
        connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    return store.path


@pytest.fixture
def log(pristine: Path, tmp_path: Path) -> Iterator[Store]:
    """A copy of it."""
    shutil.copy(pristine, tmp_path / "x.sqlite3")
    store = Store(f"sqlite:///{tmp_path / 'x.sqlite3'}")
    yield store
    store.close()


def move(store: Store, folder: Path, key: SigningKey, before: datetime = NEW, days: int = 183) -> Archived:
    return archive(store, folder, before, retention_days=days, origin="NODE", key=key, user={"user": "tester"})


def asked(store: Store, *archives: Path, key: SigningKey | None = None, **more: Any) -> Findings:
    with store.read() as session:
        return examine(session, Asked(archives=archives, keys=[key.public] if key else [], **more))


def seqs(store: Store) -> list[int]:
    connection = sqlite3.connect(store.path)
    found = [row[0] for row in connection.execute("SELECT seq FROM audit ORDER BY seq")]
    connection.close()
    return found


def test_the_chain_goes_on_from_the_archived_head(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """A5: pruned rows leave a signed checkpoint and a row, and what stays verifies, as does what is added."""
    head = check(log).head
    done = move(log, tmp_path / "out", key)
    assert (done.first, done.last, done.removed) == (1, OLD_ROWS, OLD_ROWS)
    assert seqs(log) == [9, 10, 11, 12, 13]
    check_triggers(log)
    verdict = check(log)
    assert (verdict.ok, verdict.rows, verdict.archived) == (True, 13, OLD_ROWS)
    with log.write() as session:
        assert append(session, Event.INFERENCE, {}) == 14
    assert check(log).ok
    with log.read() as session:
        row = session.connection().exec_driver_sql("SELECT kind, body, hex(prev) FROM audit WHERE seq = 13").one()
    body = json.loads(row[1])
    assert (row[0], row[2].lower()) == ("audit archived", head.hex())
    assert (body["first"], body["last"], body["user"]) == (1, OLD_ROWS, "tester")
    assert json.loads(body["checkpoint"])["signature"]


def test_archive_and_log_together_lead_to_the_first_row(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """B9: given the archives, verify proves the chain from its first row on; without one of them it says so."""
    move(log, tmp_path / "a", key, OLD + timedelta(days=3))
    move(log, tmp_path / "b", key)
    whole = asked(log, tmp_path / "b", tmp_path / "a", key=key)
    assert (whole.ok, whole.from_genesis, whole.reason) == (True, True, "")
    part = asked(log, tmp_path / "b", key=key)
    assert (part.ok, part.from_genesis) == (True, False)
    assert (asked(log, key=key).ok, asked(log, key=key).from_genesis) == (True, False)


def test_a_checkpoint_of_archived_rows_is_compared_with_the_archive(
    log: Store, tmp_path: Path, key: SigningKey
) -> None:
    """B9: old checkpoints stay worth something after their rows have left the table."""
    with log.read() as session:
        now = head_of(session, "NODE")
    good = [canonical({"size": 5, "hash": hash_of(log, 5), "origin": "NODE"}), now.signed(key).line()]
    bad = canonical({"size": 5, "hash": "ab" * 32, "origin": "NODE"})
    move(log, tmp_path / "out", key)
    points = tmp_path / "points.jsonl"
    points.write_text("\n".join(good))
    found = asked(log, tmp_path / "out", key=key, files=[points], origin="NODE")
    assert (found.ok, found.checkpoints.agree, found.checkpoints.archived) == (True, 2, 0)
    found = asked(log, key=key, files=[points], origin="NODE")
    assert (found.ok, found.checkpoints.agree, found.checkpoints.archived) == (True, 1, 1)
    points.write_text(bad)
    assert "row 5 is not the row" in asked(log, tmp_path / "out", key=key, files=[points], origin="NODE").reason


def hash_of(store: Store, seq: int) -> str:
    connection = sqlite3.connect(store.path)
    found = connection.execute("SELECT lower(hex(hash)) FROM audit WHERE seq = ?", (seq,)).fetchone()[0]
    connection.close()
    return str(found)


@pytest.mark.parametrize("days", [183, 730, 2190])
def test_rows_that_have_to_stay_are_refused(log: Store, tmp_path: Path, key: SigningKey, days: int) -> None:
    """A5: pruning below the retention time is refused, and nothing is written or removed."""
    before = datetime.now(UTC) - timedelta(days=days) + timedelta(hours=1)
    with pytest.raises(Permanent, match=f"retention_days = {days}"):
        move(log, tmp_path / "out", key, before, days)
    assert not (tmp_path / "out").exists()
    assert len(seqs(log)) == OLD_ROWS + NEW_ROWS
    assert move(log, tmp_path / "out", key, OLD + timedelta(days=2), days).last == 2


def test_a_clock_set_forward_does_not_shorten_the_time(tmp_path: Path, key: SigningKey) -> None:
    """A5: the newest row says what time it is when the machine's clock claims a later one."""
    store = new_log(tmp_path)
    with store.write() as session:
        for day in range(3):
            append(session, Event.INFERENCE, {}, OLD + timedelta(days=day))
    with pytest.raises(Permanent, match="have to stay"):
        move(store, tmp_path / "out", key, OLD + timedelta(days=1))
    store.close()


def test_nothing_old_leaves_nothing(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """No archive, no anchor, no row."""
    assert move(log, tmp_path / "out", key, OLD).folder is None
    assert not (tmp_path / "out").exists()
    assert check(log).rows == OLD_ROWS + NEW_ROWS


def test_a_folder_that_is_there_is_not_written_over(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """An archive is evidence: one name, one content."""
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="nothing is written over"):
        move(log, tmp_path / "out", key)
    assert check(log).rows == OLD_ROWS + NEW_ROWS


def test_a_log_that_was_tampered_with_is_not_archived(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """An archive would give a forged row our signature."""
    with intruder(log) as connection:
        connection.execute("UPDATE audit SET body = '{}' WHERE seq = 4")
    with pytest.raises(Permanent, match="not as it was written"):
        move(log, tmp_path / "out", key)
    assert not (tmp_path / "out").exists()
    assert len(seqs(log)) == OLD_ROWS + NEW_ROWS


class Died(BaseException):
    """A SIGKILL, as far as a thread can play one."""


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_crash_while_rows_are_removed_leaves_a_log_that_verifies(
    log: Store, tmp_path: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """B6: anchor and record are one transaction; what is left to remove is still good, and the next run removes it."""
    monkeypatch.setattr(archiving, "AT_ONCE", 3)
    calls = []

    def dying(session: Any, last: int) -> int:
        calls.append(last)
        if len(calls) > after:
            raise Died
        return real(session, last)

    real = archiving._remove
    monkeypatch.setattr(archiving, "_remove", dying)
    with pytest.raises(Died):
        move(log, tmp_path / "out", key)
    monkeypatch.setattr(archiving, "_remove", real)
    assert seqs(log)[0] == 1 + 3 * after
    check_triggers(log)
    found = asked(log, tmp_path / "out", key=key)
    assert (found.ok, found.verdict.rows, found.from_genesis) == (True, 13, True)
    assert remove_archived(log) == OLD_ROWS - 3 * after
    assert asked(log, tmp_path / "out", key=key).ok


def test_a_leftover_that_was_edited_is_found(
    log: Store, tmp_path: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B7: archived rows that are still in the table are verified like the others."""
    monkeypatch.setattr(archiving, "remove_archived", lambda _store: 0)
    move(log, tmp_path / "out", key)
    with intruder(log) as connection:
        connection.execute("UPDATE audit SET body = '{}' WHERE seq = 4")
    assert check(log).first_bad == 4


def test_a_leftover_that_its_anchor_does_not_name_is_the_bad_row(
    log: Store, tmp_path: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B9: with its hash made anew the row itself is named, not the good one behind it."""
    monkeypatch.setattr(archiving, "remove_archived", lambda _store: 0)
    move(log, tmp_path / "out", key)
    with intruder(log) as connection:
        ts, kind, prev = connection.execute("SELECT ts, kind, prev FROM audit WHERE seq = ?", (OLD_ROWS,)).fetchone()
        forged = row_hash(prev, OLD_ROWS, ts, kind, "{}")
        connection.execute("UPDATE audit SET body = '{}', hash = ? WHERE seq = ?", (forged, OLD_ROWS))
    assert (check(log).first_bad, check(log).reason) == (OLD_ROWS, "it is not the row that its anchor names")


def test_removal_that_cannot_protect_the_table_again_removes_nothing(
    log: Store, tmp_path: Path, key: SigningKey
) -> None:
    """B3: the triggers are compared before the removal commits, and before an archive is begun."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archiving, "remove_archived", lambda _store: 0)
        move(log, tmp_path / "out", key, OLD + timedelta(days=3))
    before = seqs(log)
    connection = sqlite3.connect(log.path)
    connection.execute("CREATE TRIGGER extra AFTER DELETE ON audit BEGIN SELECT 1; END")
    connection.close()
    with pytest.raises(Permanent, match="extra"):
        remove_archived(log)
    with pytest.raises(Permanent, match="extra"):
        move(log, tmp_path / "next", key)
    assert seqs(log) == before
    assert "extra" in check(log).reason
    assert not (tmp_path / "next").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_archive SET seq = 9",
        "DELETE FROM audit_archive",
        "INSERT INTO audit_archive VALUES (8, zeroblob(32), '', '')",
        "INSERT OR REPLACE INTO audit_archive VALUES (8, zeroblob(32), '', '')",
        "INSERT INTO audit_archive VALUES (5, zeroblob(32), '', '')",
        "INSERT INTO audit_archive VALUES (9, x'00', '', '')",
    ],
)
def test_anchors_are_append_only(log: Store, tmp_path: Path, key: SigningKey, statement: str) -> None:
    """B2: what says where the archive ends is protected like the rows."""
    move(log, tmp_path / "out", key)
    connection = sqlite3.connect(log.path)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    connection.close()
    assert check(log).ok


@pytest.mark.parametrize("name", PROTECTED["audit_archive"])
def test_a_missing_trigger_of_the_anchors_is_named(log: Store, name: str) -> None:
    """B3: for both tables."""
    connection = sqlite3.connect(log.path)
    connection.execute(f"DROP TRIGGER {name}")
    connection.close()
    assert name in check(log).reason


def forge_prefix(log: Store, *, record: bool) -> None:
    """Somebody cuts off the first nine rows and invents an anchor, and a record of it if he is thorough."""
    head = bytes.fromhex(hash_of(log, 9))
    body = {"first": 1, "last": 9, "head": head.hex(), "manifest_sha256": "ab" * 32}
    with intruder(log) as connection:
        connection.execute("DELETE FROM audit WHERE seq <= 9")
        connection.execute("INSERT INTO audit_archive VALUES (9, ?, '', ?)", (head, "ab" * 32))
    if record:
        with log.write() as session:
            append(session, Event.AUDIT_ARCHIVED, body)


def test_an_anchor_that_no_row_confirms_is_found(log: Store) -> None:
    """B9: rows cannot vanish behind an anchor alone."""
    forge_prefix(log, record=False)
    assert "no row of the log says that they were archived" in check(log).reason


def test_an_anchor_with_an_invented_record_lacks_the_signature(log: Store, key: SigningKey) -> None:
    """B8: whoever writes into the database cannot sign."""
    forge_prefix(log, record=True)
    assert check(log).ok
    found = asked(log, key=key)
    assert not found.ok
    assert "checkpoint" in found.reason


def test_a_removed_anchor_is_found(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """B9: the rows behind it do not begin a log."""
    move(log, tmp_path / "out", key)
    connection = sqlite3.connect(log.path)
    connection.execute("DROP TABLE audit_archive")
    connection.commit()
    connection.close()
    assert check(log).first_bad == 1


def test_a_log_of_a_version_without_anchors_verifies(log: Store) -> None:
    """B9: backups of earlier versions have no table of anchors; a start migrates before it serves."""
    connection = sqlite3.connect(log.path)
    connection.execute("DROP TABLE audit_archive")
    connection.commit()
    connection.close()
    assert check(log).ok
    with log.read() as session:
        assert compare(session, [head_of(session, "NODE").line()], origin="NODE").agree == 1


def edited(folder: Path, name: str, old: bytes, new: bytes) -> None:
    content = (folder / name).read_bytes()
    assert old in content
    (folder / name).write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (ROWS, b"P3", b"P4", "row 3 is not as it was written"),
        (ROWS, b"[2,", b"[9,", "row 2 is not as it was written"),
        (ROWS, b"[8,", b"[8", "row 8"),
        (ROWS, b"[3,", b"[3 ,", "its rows are not those of its manifest"),
        (MANIFEST, b'"last":8', b'"last":7', "signature"),
        (MANIFEST, b'"type"', b'"typo"', "its manifest is none"),
    ],
)
def test_an_archive_that_was_altered_is_found(
    log: Store, tmp_path: Path, key: SigningKey, name: str, old: bytes, new: bytes, said: str
) -> None:
    """B9: the archive is part of the evidence."""
    move(log, tmp_path / "out", key)
    edited(tmp_path / "out", name, old, new)
    assert said in asked(log, tmp_path / "out", key=key).reason


def test_an_archive_signed_by_somebody_else_is_refused(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """B8: rows, manifest and key can all be made anew, but not for the key that the auditor has."""
    other = SigningKey.make(tmp_path / "other.key")
    move(log, tmp_path / "out", other)
    assert asked(log, tmp_path / "out").ok
    assert "another key" in asked(log, tmp_path / "out", key=key).reason


def test_a_cut_archive_is_found(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """B9: a line less is no shorter archive."""
    move(log, tmp_path / "out", key)
    lines = (tmp_path / "out" / ROWS).read_bytes().splitlines(keepends=True)
    (tmp_path / "out" / ROWS).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(Permanent, match="not those of its manifest"):
        check_files(tmp_path / "out", [key.public])


def test_anybody_checks_an_archive_without_dicomnode(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """The script in the archive needs Python and openssl, and finds what ours finds."""
    folder, trusted = tmp_path / "out", tmp_path / "trusted.pem"
    move(log, folder, key)
    trusted.write_text(key.public.pem)

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(folder / "verify.py"), str(folder), str(trusted)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (run().returncode, run().stdout) == (0, "ok\n")
    edited(folder, ROWS, b"P3", b"P4")
    assert (run().returncode, run().stdout) == (1, "NOT ok: row 3 is not as it was written\n")
    edited(folder, ROWS, b"P4", b"P3")
    (folder / SIGNATURE).write_bytes(bytes(64))
    assert run().returncode == 1


def test_the_rows_of_an_archive_are_those_of_the_log(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """Nothing is lost on the way: every column of every row, and hashes that can be computed again."""
    connection = sqlite3.connect(log.path)
    before = connection.execute("SELECT seq, ts, kind, body, prev, hash FROM audit WHERE seq <= 8").fetchall()
    connection.close()
    move(log, tmp_path / "out", key)
    lines = [json.loads(line) for line in (tmp_path / "out" / ROWS).read_text(encoding="utf-8").splitlines()]
    assert [tuple(line) for line in lines] == [(*row[:4], row[4].hex(), row[5].hex()) for row in before]
    for seq, ts, kind, body, prev, said in lines:
        assert row_hash(bytes.fromhex(prev), seq, ts, kind, body).hex() == said


def test_triggers_are_never_gone_for_others(log: Store, tmp_path: Path, key: SigningKey) -> None:
    """B3: another connection that looks in the middle of a removal sees every trigger and every row."""
    seen: list[set[str]] = []

    def look(*_: object) -> None:
        connection = sqlite3.connect(log.path)
        seen.append({row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")})
        assert connection.execute("SELECT count(*) FROM audit").fetchone()[0] == OLD_ROWS + NEW_ROWS + 1
        connection.close()

    real = archiving.wrong_triggers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archiving, "wrong_triggers", lambda session: (look(), real(session))[1])
        move(log, tmp_path / "out", key)
    assert seen
    assert all(set(TRIGGERS) <= names for names in seen)
    with log.read() as session:
        assert verify(session).ok
