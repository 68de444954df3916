"""A detector outside the trust zone: images go there under pseudonyms, results come back to the patient."""

from __future__ import annotations

from typing import Any

import pytest

from dicomnode.config import parse_config
from dicomnode.errors import ConfigError
from dicomnode.node.requeue import requeue_dead_job
from tests.integration.outside_fixtures import HOUR, SENTINELS, decoded, hospital, image, report_about
from tests.integration.test_deid_export import PEERS

REMOTE = """
[[deid.remote]]
name = "second opinion"
when = { Modality = "CT" }
peer = "cloud"
send_to = ["pacs"]
timeout_s = 36000
"""


def _asked(ours: Any, cloud: Any, *images: Any) -> list[Any]:
    """The hospital receives ``images`` and asks; returns what the detector outside got."""
    ours.receives(images or [image(number) for number in (1, 2, 3)])
    ours.goes_out()
    return [decoded(one) for one in cloud.received]


def test_round_trip(tmp_path: Any) -> None:
    """D24: the detector outside sees no patient, and at the PACS its result belongs to the patient again."""
    with hospital(tmp_path, REMOTE, "research") as (ours, pacs, cloud):
        away = _asked(ours, cloud)
        assert len(away) == 3
        assert not [word for word in SENTINELS for _, _, data in cloud.received if word.encode("latin-1") in data]
        assert [row.outcome for row in ours.assignments()] == [None]
        ours.receives([report_about(away)], "CLOUD")
        ours.goes_out()
        ours.run(ours.deliverer.step)
        (back,) = [decoded(one) for one in pacs.received]
        source = image(1)
        for keyword in ("PatientID", "StudyInstanceUID", "StudyDate", "AccessionNumber", "StudyID", "PatientBirthDate"):
            assert back[keyword].value == source[keyword].value, keyword
        assert back.PatientName == "Sentinel^Änne"
        assert (back.SOPInstanceUID, back.SeriesInstanceUID) == ("2.25.9001", "2.25.9000")
        spoken_of = back.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        assert spoken_of.SeriesInstanceUID == source.SeriesInstanceUID
        uids = {item.ReferencedSOPInstanceUID for item in spoken_of.ReferencedSOPSequence}
        assert uids == {image(number).SOPInstanceUID for number in (1, 2, 3)}
        assert "PatientIdentityRemoved" not in back
        assert "DeidentificationMethod" not in back
        asked = next(row for row in ours.assignments() if row.route == "second opinion")
        assert asked.outcome == "findings"
        assert [job.state for kind in ("remote", "return", "deliver") for job in ours.jobs(kind)] == ["done"] * 3
        _audited_both_ways(ours)


def _audited_both_ways(ours: Any) -> None:
    (there,), (read,), (back,) = ours.audit("export"), ours.audit("vault read"), ours.audit("re-identification")
    assert (there["peer"], back["peer"], read["peer"]) == ("cloud", "cloud", "cloud")
    assert there["PatientID"] == back["PatientID"] == "SENTINEL-4711"
    assert back["instances"][0]["uids_translated"] >= 5
    assert len(read["rows"]) >= 5
    (made,) = ours.audit("inference")
    assert made["outputs"][0]["sha256"] == back["instances"][0]["sha256_after"]
    assert len(made["sources"]) == 3
    assert "ANON-" not in f"{there} {read} {back} {made}"


def test_unknown_result_is_never_forwarded(tmp_path: Any) -> None:
    """D24: a result about a Study that was never sent is held back, told, and reaches no archive."""
    with hospital(tmp_path, REMOTE) as (ours, pacs, cloud):
        away = _asked(ours, cloud, image(1))
        stranger = report_about(away)
        stranger.PatientID = "ANON-0123456789abcdef"
        ours.receives([stranger], "CLOUD")
        ours.goes_out()
        ours.run(ours.deliverer.step)
        assert pacs.received == []
        (job,) = ours.jobs("return")
        assert (job.state, "unknown-pseudonym" in job.error) == ("dead", True)
        assert ours.audit("quarantine")[0]["instances"][0]["SOPInstanceUID"] == "2.25.9001"
        assert len(ours.received()) == 2, "what came stays as it came"
        assert [row.outcome for row in ours.assignments()] == [None, "not analysed"]


def test_silence_is_a_failure(tmp_path: Any) -> None:
    """D24: without a result in time the Series has failed, visibly, and can be asked about again."""
    with hospital(tmp_path, REMOTE) as (ours, _, cloud):
        _asked(ours, cloud, image(1))
        assert ours.goes_out() == 0
        ours.now += 11 * HOUR
        ours.goes_out()
        assert [(row.outcome, row.reason) for row in ours.assignments()] == [
            ("failed", "no result came by cloud within 36000 s")
        ]
        (job,) = ours.jobs("remote")
        assert job.state == "dead"
        assert ours.audit("dead letter")[0]["PatientID"] == "SENTINEL-4711"
        requeue_dead_job(ours.store, job.id, ours.now)
        ours.goes_out()
        assert len(cloud.received) == 2
        assert [row.outcome for row in ours.assignments()] == [None]


def test_nothing_leaves_when_one_image_is_held_back(tmp_path: Any) -> None:
    """D21, D24: a Series with an image that may show a name is not analysed outside at all, and says why."""
    with hospital(tmp_path, REMOTE) as (ours, _, cloud):
        assert _asked(ours, cloud, image(1), image(2, BurnedInAnnotation="YES")) == []
        (row,) = ours.assignments()
        assert row.outcome == "not analysed"
        assert row.reason.startswith("1 of 2 images held back: burned-in-text")


def test_detector_is_away(tmp_path: Any) -> None:
    """D24: a detector that does not take the images is asked again until the time is over."""
    with hospital(tmp_path, REMOTE, answer=lambda *_: 0xA700) as (ours, _, cloud):
        _asked(ours, cloud, image(1))
        ours.now += 100.0
        ours.goes_out()
        assert len(cloud.received) == 2
        ours.now += 11 * HOUR
        ours.goes_out()
        assert [(row.outcome, row.reason) for row in ours.assignments()] == [
            ("failed", "its images were not all taken by cloud within 36000 s")
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PEERS + REMOTE.replace("cloud", "research"), "may_send"),
        (PEERS + REMOTE.replace("cloud", "plain"), "has to have deid"),
        (PEERS + REMOTE, "no peer named"),
        (
            PEERS
            + '[[peer]]\nname = "cloud"\nae_title = "C"\nhost = "h"\nport = 1\nmay_send = true\ndeid = "basic"\n'
            + REMOTE,
            "deid.vault",
        ),
    ],
)
def test_configuration_without_a_way_back(text: str, message: str) -> None:
    """D24: a detector outside whose results could not find back, or that gets names, stops the start."""
    with pytest.raises(ConfigError, match=message):
        parse_config(text)
