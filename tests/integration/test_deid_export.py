"""Research export: images and results leave de-identified, or they do not leave."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from dicomnode.config import parse_config
from dicomnode.errors import ConfigError
from dicomnode.node.build import Blueprint
from dicomnode.node.requeue import requeue_dead_job
from tests.integration.outside_fixtures import HOUR, SENTINELS, Hospital, hospital, image

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
        ours.goes_out()
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
        _audited(ours)


def _audited(ours: Hospital) -> None:
    """The log says what left for whom, under which profile and key, with hashes, and holds no pseudonym."""
    (row,) = ours.audit("export")
    assert (row["peer"], row["export"], row["profile"]) == ("research", "head study", "basic")
    assert (row["PatientID"], row["project_key"]) == ("SENTINEL-4711", ours.gate.key.id)
    assert row["actions"]["U"] >= 3
    assert row["instances"][0]["sha256_before"] != row["instances"][0]["sha256_after"]
    assert "ANON-" not in str(row)
    assert str(ours.exported()[0].SOPInstanceUID) not in str(row)


def test_what_cannot_be_de_identified_stays(tmp_path: Path) -> None:
    """D17, D21, D23: text in the pixels and a missing Patient ID hold an image back. The others go, a dead letter and
    an audit row say so, and an operator may have it looked at again."""
    with hospital(tmp_path, EXPORT) as (ours, _, _):
        ours.receives([image(1), image(2, BurnedInAnnotation="YES"), image(3, PatientID="")])
        ours.goes_out()
        assert [int(one.InstanceNumber) for one in ours.exported()] == [1]
        (job,) = ours.jobs("export")
        assert job.state == "dead"
        assert job.error.startswith("2 of 3 images held back: burned-in-text")
        assert "no-patient-id" in job.error
        (held,) = ours.audit("quarantine")
        assert [one["SOPInstanceUID"] for one in held["instances"]] == [
            image(2).SOPInstanceUID,
            image(3).SOPInstanceUID,
        ]
        assert not [word for word in SENTINELS if word in job.error]
        assert list((ours.spool.root / "outgoing").iterdir()) == []
        requeue_dead_job(ours.store, job.id, ours.now)
        assert ours.goes_out() == 1
        assert ours.jobs("export")[0].state == "dead"


def test_what_is_there_is_not_sent_again(tmp_path: Path) -> None:
    """D23: a peer that refuses for a while gets the rest later, and each image once."""
    refusing = {2}

    def answer(number: int, *_: object) -> int:
        return 0xA700 if number in refusing else 0

    with hospital(tmp_path, TO_CLOUD, answer=answer) as (ours, _, cloud):
        ours.receives([image(number) for number in (1, 2, 3)])
        assert ours.goes_out() == 1
        assert [job.state for job in ours.jobs("export")] == ["ready"]
        refusing.clear()
        ours.now += HOUR
        ours.goes_out()
        assert [job.state for job in ours.jobs("export")] == ["done"]
        assert sorted(cloud.uids.count(uid) for uid in set(cloud.uids)) == [1, 1, 2]
        assert not [word for word in SENTINELS for _, _, data in cloud.received if word.encode() in data]


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


def test_no_key_no_start() -> None:
    """D14: a node with a peer outside and without its key does not start."""
    config, source = parse_config(PEERS + EXPORT)
    with pytest.raises(ConfigError, match="the key of the project cannot be read"):
        Blueprint(config, source).gate()


def test_no_way_back_no_departure(tmp_path: Path) -> None:
    """D19: rows of the vault are committed before the object leaves: a vault that cannot be written stops it."""
    with hospital(tmp_path, EXPORT) as (ours, _, _):
        ours.receives([image(1)])
        with contextlib.closing(sqlite3.connect(ours.data / "vault.sqlite3")) as vault:
            (sql,) = vault.execute("SELECT sql FROM sqlite_master WHERE name = 'entry'").fetchone()
            vault.execute("DROP TABLE entry")
            assert ours.goes_out() == 1
            assert ours.exported() == []
            assert [job.state for job in ours.jobs("export")] == ["ready"]
            vault.execute(sql)
        ours.now += HOUR
        ours.goes_out()
        assert len(ours.exported()) == 1
        assert len(ours.gate.vault) > 4
