"""Research export: images and results leave de-identified, or they do not leave."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from dicomnode.config import parse_config
from dicomnode.errors import ConfigError
from dicomnode.node.requeue import requeue_dead_job
from tests.integration.outside_fixtures import HOUR, SENTINELS, hospital, image

EXPORT = """
[[deid.export]]
name = "head study"
when = { Modality = "CT" }
send_to = ["research"]
"""
TO_CLOUD = EXPORT.replace('"research"', '"cloud"')


def _everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() + str(path).encode() for path in folder.rglob("*") if path.is_file())


def test_images_arrive_de_identified(tmp_path: Path) -> None:
    """D23: the images of a Series that an export takes lie de-identified in the research folder, nothing else does."""
    with hospital(tmp_path, EXPORT) as (ours, pacs, _):
        ours.receives([image(number) for number in (1, 2, 3)])
        ours.run(ours.outside.step)
        found = ours.exported()
        assert len(found) == 3
        assert {one.PatientIdentityRemoved for one in found} == {"YES"}
        assert len({one.PatientID for one in found}) == len({one.StudyInstanceUID for one in found}) == 1
        assert sorted(int(one.InstanceNumber) for one in found) == [1, 2, 3]
        assert found[0].PixelData in {image(number).PixelData for number in (1, 2, 3)}
        content = _everything(ours.research)
        assert not [word for word in SENTINELS if word.encode() in content]
        assert [job.state for job in ours.jobs("export")] == ["done"]
        assert pacs.received == []


def test_export_is_audited(tmp_path: Path) -> None:
    """D23: the log says what left for whom, under which profile and key, with hashes, and holds no pseudonym."""
    with hospital(tmp_path, EXPORT) as (ours, _, _):
        ours.receives([image(1)])
        ours.run(ours.outside.step)
        (row,) = ours.audit("export")
        assert (row["peer"], row["export"], row["profile"]) == ("research", "head study", "basic")
        assert row["PatientID"] == "SENTINEL-4711"
        assert row["actions"]["U"] >= 3
        assert row["instances"][0]["sha256_before"] != row["instances"][0]["sha256_after"]
        assert "ANON-" not in str(row)
        assert str(ours.exported()[0].SOPInstanceUID) not in str(row)


def test_burned_in_text_is_held_back(tmp_path: Path) -> None:
    """D21, D23: what cannot be de-identified stays, the others go, and a dead letter and an audit row say so."""
    with hospital(tmp_path, EXPORT) as (ours, _, _):
        ours.receives([image(1), image(2, BurnedInAnnotation="YES")])
        ours.run(ours.outside.step)
        assert [int(one.InstanceNumber) for one in ours.exported()] == [1]
        (job,) = ours.jobs("export")
        assert job.state == "dead"
        assert job.error.startswith("1 of 2 images held back: burned-in-text")
        (held,) = ours.audit("quarantine")
        assert held["instances"][0]["SOPInstanceUID"] == image(2).SOPInstanceUID
        assert not [word for word in SENTINELS if word in job.error]
        assert list((ours.spool.root / "outgoing").iterdir()) == []


def test_no_patient_is_held_back(tmp_path: Path) -> None:
    """D17: an image without a Patient ID goes nowhere: everybody without one would become one patient."""
    with hospital(tmp_path, EXPORT) as (ours, _, _):
        ours.receives([image(1, PatientID="")])
        ours.run(ours.outside.step)
        assert ours.exported() == []
        assert "no-patient-id" in ours.jobs("export")[0].error


def test_what_is_there_is_not_sent_again(tmp_path: Path) -> None:
    """D23: a peer that refuses for a while gets the rest later, and each image once."""
    refusing = {2}

    def answer(number: int, *_: object) -> int:
        return 0xA700 if number in refusing else 0

    with hospital(tmp_path, TO_CLOUD, answer=answer) as (ours, _, cloud):
        ours.receives([image(number) for number in (1, 2, 3)])
        assert ours.run(ours.outside.step) == 1
        assert [job.state for job in ours.jobs("export")] == ["ready"]
        refusing.clear()
        ours.now += HOUR
        ours.run(ours.outside.step)
        assert [job.state for job in ours.jobs("export")] == ["done"]
        assert sorted(cloud.uids.count(uid) for uid in set(cloud.uids)) == [1, 1, 2]
        assert not [word for word in SENTINELS for _, _, data in cloud.received if word.encode() in data]


def test_requeued_by_an_operator(tmp_path: Path) -> None:
    """D23: a dead export gets a new life by hand; what was held back is looked at again."""
    with hospital(tmp_path, EXPORT) as (ours, _, _):
        ours.receives([image(1, BurnedInAnnotation="YES")])
        ours.run(ours.outside.step)
        requeue_dead_job(ours.store, ours.jobs("export")[0].id, ours.now)
        assert ours.run(ours.outside.step) == 1
        assert ours.jobs("export")[0].state == "dead"


PEERS = """
[deid]
key_file = "/key"
[[peer]]
name = "plain"
folder = "/plain"
[[peer]]
name = "research"
folder = "/research"
deid = "basic"
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PEERS + EXPORT.replace("research", "plain"), "would leave with the patient's identity"),
        (PEERS + EXPORT.replace("research", "nobody"), "no peer named"),
        (PEERS + EXPORT + EXPORT, "used twice"),
        (PEERS.replace('key_file = "/key"', "") + EXPORT, "key_file is missing"),
        (PEERS + EXPORT.replace('{ Modality = "CT" }', "{}"), "every series"),
        (
            PEERS + '[[peer]]\nname = "c"\nae_title = "C"\nhost = "h"\nport = 1\ncommit = true\ndeid = "basic"\n',
            "leave commit out",
        ),
    ],
)
def test_configuration_that_would_leak(text: str, message: str) -> None:
    """D23: a configuration by which identified data would leave does not start."""
    with pytest.raises(ConfigError, match=message):
        parse_config(text)


def test_no_key_no_start(tmp_path: Path) -> None:
    """D14: a node with a peer outside and without its key does not start."""
    with hospital(tmp_path, EXPORT) as (ours, _, _):
        (tmp_path / "project.key").unlink()
        with pytest.raises(ConfigError, match="the key of the project"):
            ours.plan.gate()


def test_no_way_back_no_departure(tmp_path: Path) -> None:
    """D19: rows of the vault are committed before the object leaves: a vault that cannot be written stops it."""
    with hospital(tmp_path, EXPORT) as (ours, _, _):
        ours.receives([image(1)])
        with contextlib.closing(sqlite3.connect(ours.data / "vault.sqlite3")) as vault:
            (sql,) = vault.execute("SELECT sql FROM sqlite_master WHERE name = 'entry'").fetchone()
            vault.execute("DROP TABLE entry")
            assert ours.run(ours.outside.step) == 1
            assert ours.exported() == []
            assert [job.state for job in ours.jobs("export")] == ["ready"]
            vault.execute(sql)
        ours.now += HOUR
        ours.run(ours.outside.step)
        assert len(ours.exported()) == 1
        assert len(ours.gate.vault) > 4
