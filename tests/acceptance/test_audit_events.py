"""What a real node writes into its log (trust.md B.3, A1 to A3, A6, A7), and that its rows and files agree with it.

One node with every duty receives Studies full of sentinels, analyses, declines and refuses them, delivers, is asked,
attacked, stopped and started with another configuration. All tests look at what it left.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.datadict import DicomDictionary

from dicomnode.dicom.requestor import Requestor
from dicomnode.store.audit_sql import TRIGGERS
from tests.faults.archive import Archive
from tests.faults.receiver import LOCKED_S, Receiver, audit_bodies, wait_until
from tests.integration.detect_fixtures import ct_slice
from tests.plugin import install_plugin

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

SENTINEL = "ZQXJ"
BIRTH_DATE = "19230405"
IDENTIFIERS = {"PatientID": "IDENT-7", "AccessionNumber": "ACC-8"}
TEXT = {"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}
LIMIT_S = 240.0
TALKATIVE = """
import numpy as np

from dicomnode.detectors.contract import (
    Acceptance, Calibration, DetectionResult, ModelIdentity, Outcome, PlaneResult
)


class Talkative:
    name, version, default_model, description = "talkative", "1.0", "ct-head-healthy", "quotes whatever it knows"
    model = ModelIdentity("talkative", "1.0", "0" * 64, "MIT")
    own_model = model
    accelerator = "cpu"

    def accepts(self, summary):
        said = f"{dict(summary.attributes)}"
        return Acceptance(summary.Modality == "CT", said, on="PatientName" if summary.Modality == "CT" else said)

    def load(self, model_folder, accelerator):
        return self

    def detect(self, volume):
        header = volume.summary.attributes
        said = f"{dict(header)} of {header.get('PatientName')} and {header.get('StudyDescription')}"
        series = str(header["SeriesNumber"][0])
        if series.startswith("2"):
            return DetectionResult(Outcome.NOT_ANALYSED, reason=said)
        if series.startswith("3"):
            raise ValueError(said)
        planes = tuple(PlaneResult(0.1, np.zeros(plane.shape, np.float32)) for plane in volume.planes)
        calibration = Calibration("share", "none", 0, 0.5, 0.5)
        return DetectionResult(Outcome.NO_FINDINGS, 0.1, 0.1, "share", calibration, planes, notices=(said,))


DETECTOR = Talkative()
"""
ROUTES = """
[[route]]
name = "by name"
when = { PatientName = "SOMEBODY", StudyDescription = "NOTHING" }
detector = "talkative"
send_to = ["pacs"]

[[route]]
name = "ct"
when = { Modality = ["CT", "MR"] }
detector = "talkative"
send_to = ["pacs"]

[assemble]
quiet_period_s = 19
max_wait_s = 20
settle_s = 0.5
"""


class Site(Receiver):
    """The node, with the talkative detector."""

    command = ("dicomnode", "serve")

    def __init__(self, folder: Path, archive: Archive) -> None:
        plugin = install_plugin(folder / "plugin", "talkative", "talkative_plugin:DETECTOR", TALKATIVE)
        path = os.pathsep.join(filter(None, [str(plugin), os.environ.get("PYTHONPATH", "")]))
        self.points, self.key = folder / "elsewhere" / "points.jsonl", folder / "audit.key"
        made = subprocess.run(
            [sys.executable, "-m", "dicomnode", "audit", "key", str(self.key)],
            capture_output=True,
            text=True,
            check=True,
        )
        self.public = folder / "public.pem"
        self.public.write_text(made.stdout)
        audit = (
            f'[audit]\nsigning_key_file = "{self.key}"\ncheckpoints = [{{ kind = "file", path = "{self.points}" }}]\n'
        )
        peer = f'[[peer]]\nname = "pacs"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {archive.port}\n'
        super().__init__(folder, tables=f"{peer}{ROUTES}{audit}", environment={"PYTHONPATH": path})
        self.environment = {**os.environ, "PYTHONPATH": path}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dicomnode", *arguments, "--config", str(self.config)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_S, env=self.environment, check=False
        )

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database, timeout=LOCKED_S)) as connection:
            return connection.execute(query).fetchall()

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        return [dict(body) for body in audit_bodies(self.database, kind)]


def planted(series: int, number: int, modality: str = "CT") -> Dataset:
    """An image with a sentinel in every text attribute of the standard, in a sequence and in a private element."""
    dataset, inner = ct_slice(number), Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tag, (vr, vm, _, retired, keyword) in DicomDictionary.items():
            if vr in TEXT and keyword and not retired and tag >> 16 not in (0x0000, 0x0002, 0x0004, 0xFFFE):
                for target in (dataset, inner):
                    target.add_new(tag, vr, f"{SENTINEL}{series}" if vm != "2" else [SENTINEL, SENTINEL])
    dataset.PatientName = f"{SENTINEL}^{SENTINEL}NAME"
    dataset.ReferencedPatientSequence = [inner]
    block = dataset.private_block(0x0011, f"{SENTINEL}P", create=True)
    block.add_new(1, "LO", f"{SENTINEL}Q")
    del dataset.RescaleType
    for name, value in IDENTIFIERS.items():
        setattr(dataset, name, value)
    dataset.PatientBirthDate, dataset.Modality, dataset.SeriesNumber = BIRTH_DATE, modality, series
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"2.25.70.{series}", f"2.25.70.{series}.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.70.{series}.1.{number}"
    return dataset


def send(port: int, datasets: Sequence[Dataset], calling: str = "SCANNER", called: str = "NODE") -> list[int]:
    """DIMSE statuses; empty when the association was rejected."""
    entity = Requestor(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = LIMIT_S
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [association.send_c_store(dataset).Status for dataset in datasets]
    association.release()
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    archive = Archive()
    archive.start()
    node = Site(tmp_path_factory.mktemp("site") / "node", archive)
    try:
        node.start()
        # The last one has a gap: it stays open long enough for its sender to be asked, however busy the machine is.
        for series, modality, numbers in (
            (1, "CT", (1, 2, 3)),
            (2, "CT", (1, 2, 3)),
            (3, "CT", (1, 2, 3)),
            (4, "MR", (1, 2, 4)),
        ):
            images = [planted(series, number, modality) for number in numbers]
            assert send(node.port, images) == [0, 0, 0]
        assert send(node.port, [planted(1, 1)]) == [0]
        assert send(node.port, [], calling="STRANGER") == send(node.port, [], called="ANOTHER") == []
        ended = "SELECT count(*) FROM series s JOIN assignment a ON a.series_id = s.id WHERE a.outcome IS NOT NULL"
        wait_until(lambda: node.rows(ended) == [(4,)], LIMIT_S, "an outcome of every series")
        waiting = "SELECT (SELECT count(*) FROM delivery WHERE state = 'waiting') + (SELECT count(*) FROM job"
        waiting += " WHERE state IN ('ready', 'leased'))"
        wait_until(lambda: node.rows(waiting) == [(0,)], LIMIT_S, "everything delivered")
        assert node.run("audit", "list", "--patient", IDENTIFIERS["PatientID"]).returncode == 0
        dead = node.rows("SELECT id FROM job WHERE state = 'dead' ORDER BY id")
        assert node.run("jobs", "requeue", str(dead[0][0])).returncode == 0
        wait_until(lambda: node.rows(waiting) == [(0,)], LIMIT_S, "the second dead letter")
        assert node.stop() == 0
        node.config.write_text(node.config.read_text().replace("quiet_period_s = 19", "quiet_period_s = 18"))
        node.start()
        assert node.run("backup", str(node.folder / "backup")).returncode == 0
        assert node.stop() == 0
        yield node
    finally:
        node.close()
        archive.stop()


@pytest.mark.parametrize(
    "event",
    [
        "application start",
        "application stop",
        "configuration changed",
        "audit log used",
        "begin transferring",
        "instances transferred",
        "instance stored",
        "instance repeated",
        "query",
        "security alert",
        "series complete",
        "routed",
        "not analysed",
        "inference",
        "stand-ins made",
        "delivered",
        "dead letter",
        "requeued by hand",
        "backup",
    ],
)
def test_every_event_that_this_run_caused_is_in_the_log(site: Site, event: str) -> None:
    """Part B.3: the list of events, as far as one run causes them, written by the node itself."""
    assert site.bodies(event)


def test_every_inference_says_all_that_an_auditor_asks(site: Site) -> None:
    """A1: model, version, weights, software, configuration, inputs and outputs with hashes, times, outcome, device."""
    found = {body["assignment"]: body for body in site.bodies("inference")}
    assert Counter(body["outcome"] for body in found.values()) == {"no findings": 1, "not analysed": 1}
    config = hashlib.sha256(
        site.config.read_bytes().replace(b"quiet_period_s = 18", b"quiet_period_s = 19")
    ).hexdigest()
    for body in found.values():
        assert (body["model"], body["model_version"], body["weights_sha256"]) == ("talkative", "1.0", "0" * 64)
        assert (body["config_sha256"], body["accelerator"]) == (config, "cpu")
        assert re.match(r"\d+\.\d+", body["software_version"])
        assert body["started_at"] <= body["finished_at"]
        assert len(body["sources"]) == 3
        for item in (*body["sources"], *body["outputs"]):
            assert item["SOPInstanceUID"]
            assert len(item["sha256"]) == 64
        assert bool(body["outputs"]) == (body["outcome"] == "no findings")
        assert body["outputs"] or body["reason"]
    stored = {body["SOPInstanceUID"]: body["sha256"] for body in site.bodies("instance stored")}
    sources = {item["SOPInstanceUID"]: item["sha256"] for body in found.values() for item in body["sources"]}
    assert sources.items() <= stored.items()


def test_rows_and_files_and_log_agree(site: Site) -> None:
    """A2, A7: no output without its row, no inference without output or reason, every transfer adds up."""
    answer = site.run("audit", "reconcile", "--json")
    said = json.loads(answer.stdout)
    assert (answer.returncode, said["differences"]) == (0, [])
    assert said["studies"] == 4
    assert said["peers"]["scanner"] == {"begun": 5, "ended": 5, "told": 13, "recorded": 13, "refused": 0}


def test_starts_stops_and_changes_leave_rows(site: Site) -> None:
    """A3: two starts, two stops, one changed configuration between them, with its digest before and after."""
    starts, stops = site.bodies("application start"), site.bodies("application stop")
    assert (len(starts), len(stops)) == (2, 2)
    changed = site.bodies("configuration changed")
    assert [(body["before"], body["after"]) for body in changed] == [
        (body["config_sha256"], starts[1]["config_sha256"]) for body in starts[:1]
    ]
    assert starts[0]["config_sha256"] != starts[1]["config_sha256"]
    assert starts[0]["models"] == starts[1]["models"]
    assert not site.bodies("model changed")


def test_no_row_holds_more_of_the_patient_than_the_identifiers(site: Site) -> None:
    """A6: every text attribute of the standard held a sentinel, a detector quoted all it knew; no row has one."""
    rows = site.rows("SELECT seq, kind, body FROM audit ORDER BY seq")
    assert len(rows) > 40
    for seq, kind, body in rows:
        assert SENTINEL.casefold() not in body.casefold(), (seq, kind)
        assert BIRTH_DATE not in body, (seq, kind)
    whole = "".join(row[2] for row in rows)
    assert all(value in whole for value in IDENTIFIERS.values())
    reasons = [row[0] for row in site.rows("SELECT reason FROM assignment")]
    assert any(SENTINEL in reason for reason in reasons), "the detector did quote them, to the operators"


def test_a_decision_is_kept_as_rule_and_answer(site: Site) -> None:
    """A6: what a rule looked at, not what it saw there."""
    answers = {body["SeriesInstanceUID"]: body["routes"] for body in site.bodies("routed")}
    assert answers["2.25.70.1.1"] == [
        {"route": "by name", "detector": "talkative", "matched": False, "taken": False, "on": "PatientName"},
        {"route": "ct", "detector": "talkative", "matched": True, "taken": True, "on": "PatientName"},
    ]
    assert answers["2.25.70.4.1"][1] == {
        "route": "ct", "detector": "talkative", "matched": True, "taken": False, "on": "",
    }  # fmt: skip
    assert [body["reason"] for body in site.bodies("not analysed")] == ["no detector accepts this series"]


def test_checkpoints_were_signed_at_every_start_and_stop(site: Site) -> None:
    """B8: at least two starts and two stops are in the second place, and the log agrees with an auditor's own key."""
    lines = [json.loads(line) for line in site.points.read_text().splitlines()]
    assert len(lines) >= 4
    assert all(line["signature"] for line in lines)
    answer = site.run("audit", "verify", "--checkpoint", str(site.points), "--public-key", str(site.public), "--json")
    said = json.loads(answer.stdout)
    assert (answer.returncode, said["signed"]) == (0, len(lines))


@pytest.mark.parametrize(
    ("statements", "kinds"),
    [
        (["DELETE FROM audit WHERE kind = 'inference'"], {"output without its row", "outcome without its row"}),
        (["DELETE FROM audit WHERE kind = 'delivered'"], {"delivery without its row"}),
        (["DELETE FROM audit WHERE kind = 'dead letter'"], {"outcome without its row"}),
        (
            ["DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit WHERE kind = 'instance stored')"],
            {"instance without its row", "transfer counts differ"},
        ),
        (
            ["DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit WHERE kind = 'instances transferred')"],
            {"transfer without one end"},
        ),
        (
            ["DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit WHERE kind = 'begin transferring')"],
            {"transfer without one beginning"},
        ),
        (["UPDATE audit SET body = replace(body, '\"n_new\":3', '\"n_new\":2')"], {"transfer counts differ"}),
        (
            ["DELETE FROM delivery", "DELETE FROM derived WHERE id = (SELECT max(id) FROM derived)"],
            {"row without its output"},
        ),
        (["DELETE FROM instance WHERE id = (SELECT max(id) FROM instance)"], {"row without its instance"}),
        (
            ["UPDATE audit SET body = json_set(body, '$.outputs', json('[]')) WHERE kind = 'inference'"],
            {"output without its row", "inference without output or reason"},
        ),
        (["UPDATE derived SET path = path || 'x' WHERE id = 1"], {"file missing"}),
    ],
)
def test_reconciliation_finds_what_is_missing(
    site: Site, tmp_path: Path, statements: Sequence[str], kinds: set[str]
) -> None:
    """A2, A7: each way in which rows, files and log can come apart is a difference."""
    from dicomnode.node.reconciliation import compare_all
    from dicomnode.store.engine import Store
    from dicomnode.store.spool import Spool

    copy = tmp_path / "copy.sqlite3"
    shutil.copy(site.database, copy)
    with closing(sqlite3.connect(copy)) as connection:
        for name in TRIGGERS:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    store = Store(f"sqlite:///{copy}")
    try:
        found = compare_all(store, Spool(site.data / "spool"), None, files=False)
    finally:
        store.close()
    assert {item.kind for item in found.differences} == kinds
